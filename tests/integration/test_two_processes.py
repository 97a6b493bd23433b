"""Gateway and brain as two processes on a real NATS: what happens to devices and operators when one of them dies or cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.gateway.notices import notice
from edge.gateway.server import MAX_MISSED_BEATS
from edge.seam import BEAT_S
from edge.simulator.bootstrap import Identity
from edge.simulator.client import connect
from edge.simulator.device import Device
from manifests import servers
from manifests.processes import Child, Children, answers, children, free_ports
from tests.integration.node import SPEECH, mac
from tests.real_time import run

READY_S = 30.0
NOTICED_S = (MAX_MISSED_BEATS + 1) * BEAT_S + 5.0
"""When the gateway takes the brain for dead, and as much again for a busy machine."""
ROOT = Path(__file__).parents[2]


def shown(code: str) -> str:
    """Return the alert a device shows for an error."""
    status, message, _ = notice(code)
    return f"{status}: {message}"


def quiet(_line: str) -> None:
    pass


@dataclass(slots=True)
class TwoProcesses:
    """A gateway and a brain on one NATS."""

    group: Children
    env: Mapping[str, str]
    device_port: int
    gateway: Child
    brain: Child

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.device_port}/xiaozhi/v1/"

    def device(self, number: int = 1) -> Any:
        return connect(url=self.url, identity=Identity(device_id=mac(number)))

    async def start_brain(self) -> None:
        self.brain = await start(self.group, "brain", self.env)


async def start(group: Children, role: str, env: Mapping[str, str]) -> Child:
    """Start one role of the edge and wait until it is ready."""
    (http_port,) = free_ports(1)
    command = [sys.executable, "-m", "edge", role]
    child = await group.start(f"edge-{role}", command, env={**env, "EDGE_HTTP_PORT": str(http_port)})
    await group.wait_ready(child, lambda: answers(f"http://127.0.0.1:{http_port}/readyz"), READY_S)
    return child


@asynccontextmanager
async def two_processes(directory: Path, **settings: str) -> AsyncGenerator[TwoProcesses, None]:
    nats_port, device_port = free_ports(2)
    env = {
        "EDGE_NATS_URL": f"nats://127.0.0.1:{nats_port}",
        "EDGE_ENGINES": "scripted",
        "EDGE_AUTH": "off",
        "EDGE_GATEWAY_PORT": str(device_port),
        "EDGE_END_SILENCE_MS": "240",
        "EDGE_DRAIN_S": "1",
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    async with children(directory) as group:
        await servers.nats_server(group, directory, "nats", {"host": "127.0.0.1", "port": nats_port}, quiet)
        async with asyncio.TaskGroup() as tasks:
            brain = tasks.create_task(start(group, "brain", env))
            gateway = tasks.create_task(start(group, "gateway", env))
        yield TwoProcesses(group, env, device_port, gateway.result(), brain.result())


async def talks(device: Device) -> None:
    """Hold the first third of a second of a turn."""
    turn = await device.ask(SPEECH, interrupt_after_ms=300)
    assert (turn.outcome, turn.alerts) == ("interrupted", ()), turn
    assert "第" in turn.heard


async def dial_until_told(here: TwoProcesses, why: str) -> None:
    """Connect one device after another until one is shown ``why`` it is turned away."""
    for number in range(2, 20):
        async with here.device(number) as device:
            await device.listen()
            alerts = device.firmware.log.alerts
            await device.until(lambda alerts=alerts: alerts, 1.0)
            if any(why in alert for alert in alerts):
                return
    raise AssertionError("nobody was told")


def test_a_killed_brain_is_told_to_devices_and_a_new_one_serves_them(tmp_path: Path) -> None:
    async def work() -> None:
        # The gateway has not got all of an answer that is written slowly when the brain dies.
        async with two_processes(tmp_path, EDGE_SCRIPTED_TOKEN_S="0.3") as here:
            async with here.device(1) as talking, here.device(2) as waiting:
                await talks(talking)
                await waiting.listen()
                asking = asyncio.create_task(talking.ask(SPEECH))
                assert await talking.until(lambda: talking.firmware.playback.sound.frames > 2, 20)
                os.kill(here.brain.pid, signal.SIGKILL)
                await here.brain.process.wait()
                for device in (talking, waiting):
                    assert await device.until(lambda: False, NOTICED_S) is False
                    assert device.is_closed, "nobody leaves a device without an end"
                cut = await asking
                assert cut.outcome in {"closed", "failed"}
                assert shown("brain-away") in cut.alerts
                assert shown("brain-away") in waiting.firmware.log.alerts
            assert not here.gateway.has_ended(), "the sockets' process lives on"

            await here.start_brain()
            async with here.device(1) as again:
                await talks(again)

            # A device that was only connected while the brain was replaced is told to come again when it speaks.
            async with here.device(3) as idle:
                os.kill(here.brain.pid, signal.SIGKILL)
                await here.brain.process.wait()
                await here.start_brain()
                assert not idle.is_closed
                asking = asyncio.create_task(idle.ask(SPEECH))
                assert await idle.until(lambda: False, NOTICED_S) is False
                assert idle.is_closed
                assert (await asking).alerts == (shown("stage"),)
            async with here.device(3) as again:
                await talks(again)

            for child in (here.brain, here.gateway):
                os.kill(child.pid, signal.SIGTERM)
            async with asyncio.timeout(10):
                assert [await child.process.wait() for child in (here.brain, here.gateway)] == [0, 0]
            assert "Traceback" not in here.gateway.log.read_text() + here.brain.log.read_text()

    run(work(), timeout_s=90)


def test_sigterm_lets_the_turn_under_way_be_heard_out_and_admits_nobody_else(tmp_path: Path) -> None:
    async def work() -> None:
        async with two_processes(tmp_path, EDGE_DRAIN_S="15") as here, here.device(1) as device:
            asking = asyncio.create_task(device.ask(SPEECH))
            assert await device.until(lambda: device.firmware.playback.sound.frames > 2, 20)
            for child in (here.gateway, here.brain):
                os.kill(child.pid, signal.SIGTERM)
            await dial_until_told(here, notice("draining").message)
            turn = await asking
            assert turn.outcome == "answered"
            async with asyncio.timeout(10):
                assert [await child.process.wait() for child in (here.gateway, here.brain)] == [0, 0]
            assert device.is_closed

    run(work(), timeout_s=60)


# Processes that cannot start


async def fails(role: str, **env: str) -> str:
    """Run one role that cannot start and return the one line it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge", role),
        cwd=ROOT,
        env={**os.environ, "EDGE_LOG_LEVEL": "error", "EDGE_AUTH": "off", "EDGE_ENGINES": "scripted", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, said) == (2, b""), complained
    (line,) = complained.decode().splitlines()
    return line


def test_an_unreachable_bus_is_one_line_with_the_mend() -> None:
    (port,) = free_ports(1)
    unreachable = {"EDGE_NATS_URL": f"nats://127.0.0.1:{port}", "EDGE_NATS_CONNECT_S": "0.5", "EDGE_HTTP_PORT": "0"}

    async def work() -> None:
        for line in await asyncio.gather(fails("gateway", **unreachable), fails("brain", **unreachable)):
            assert unreachable["EDGE_NATS_URL"] in line
            assert "is nats-server running there" in line

    run(work())


def test_a_port_in_use_a_short_secret_and_a_missing_model_are_one_line_each(tmp_path: Path) -> None:
    async def work() -> None:
        (nats_port,) = free_ports(1)
        common = {"EDGE_NATS_URL": f"nats://127.0.0.1:{nats_port}", "EDGE_HTTP_PORT": "0"}
        async with children(tmp_path) as group:
            await servers.nats_server(group, tmp_path, "nats", {"host": "127.0.0.1", "port": nats_port}, quiet)
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = str(taken.getsockname()[1])
                async with asyncio.TaskGroup() as tasks:
                    http = tasks.create_task(fails("brain", **{**common, "EDGE_HTTP_PORT": port}))
                    devices = tasks.create_task(fails("gateway", **common, EDGE_GATEWAY_PORT=port))
                    secret = tasks.create_task(fails("gateway", **{**common, "EDGE_AUTH": "token"}))
                    model = tasks.create_task(
                        fails("brain", **{**common, "EDGE_ENGINES": "real", "EDGE_MODELS_ROOT": str(tmp_path)})
                    )
        assert f"127.0.0.1:{port}" in http.result()
        assert "EDGE_HTTP_PORT" in http.result()
        assert f"127.0.0.1:{port}" in devices.result()
        assert "EDGE_DEVICE_TOKEN_SECRET" in secret.result()
        assert f"models pull silero-vad --root {tmp_path}" in model.result()

    run(work(), timeout_s=60)
