"""The coordinator and cloud workers as their operator meets them: side by side, killed, locked out, and started wrongly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator import wire
from coordinator.nats_bus import NatsBus
from coordinator.nats_rights import Role, rights_of
from coordinator.remote import RemoteCompleter
from manifests.processes import Child, Children, children, free_ports
from manifests.servers import nats_server
from models.errors import CloudUnreachableError
from models.prompts import CompletionDelta, Message, Prompt
from tests.bare_server import BareServer
from tests.real_time import run

SECRET = "correct horse battery staple"
POOL = "qwen-14b"
PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="水的沸点是多少度？"),))
READY_S = 30.0
"""A Python process is up after about a second; the rest is for a busy machine."""
SEEN_S = 5.0
"""How long a test waits for what takes a loop turn or two in another process."""
SOUGHT = {"http_request_duration_seconds", "active_devices", "model_inference_errors", "cache_hit_rate", "processing_queue_size"}  # fmt: skip
"""Metrics that existing alert rules look for, counters without their suffix."""


def quiet(_line: str) -> None:
    pass


class Upstream(BareServer):
    """A model's server on bare sockets: lists its models, says one word of an answer, and goes on when it is let."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.event = f"data: {json.dumps({'choices': [{'delta': {'content': word}}]})}\n\n".encode()
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str, None]:
        async with self.listening() as port:
            yield f"http://127.0.0.1:{port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET "):
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            return
        self.asked.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + self.event)
        await writer.drain()
        going_on = asyncio.create_task(self.go_on.wait())
        hanging_up = asyncio.create_task(self._until_hung_up(reader))
        try:
            await asyncio.wait([going_on, hanging_up], return_when=asyncio.FIRST_COMPLETED)
        finally:
            going_on.cancel()
            hanging_up.cancel()
            await asyncio.wait([going_on, hanging_up])
        if not self.hung_up.is_set():
            writer.write(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
            await writer.drain()

    async def _until_hung_up(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(65_536):  # what is left of the question
            pass
        self.hung_up.set()


class Site:
    """A nats-server, perhaps with users, and our processes on it."""

    def __init__(self, group: Children, base: Path) -> None:
        self.group, self.base = group, base
        (self.port,) = free_ports(1)
        self.nats_url = f"nats://127.0.0.1:{self.port}"

    async def start_nats(self, **config: object) -> None:
        await nats_server(self.group, self.base, "nats", {"host": "127.0.0.1", "port": self.port, **config}, quiet)

    def change_nats(self, **config: object) -> None:
        """Let the running server read another configuration."""
        (nats,) = (child for child in self.group.running if child.name == "nats")
        (self.base / "nats.conf").write_text(json.dumps({"host": "127.0.0.1", "port": self.port, **config}))
        nats.process.send_signal(signal.SIGHUP)

    async def kill(self, child: Child) -> None:
        child.process.kill()
        await child.process.wait()
        self.group.running.remove(child)

    async def start(self, module: str, name: str = "", **environ: str) -> tuple[Child, str]:
        """Start one of our processes; return it and the address of its probes."""
        (port,) = free_ports(1)
        prefix = module.upper()
        env = {
            f"{prefix}_NATS_URL": self.nats_url,
            f"{prefix}_HTTP_PORT": str(port),
            f"{prefix}_LOG_LEVEL": "warning",
            f"{prefix}_LOG_FORMAT": "json",
            **environ,
        }
        child = await self.group.start(name or module, [sys.executable, "-m", module], env=env)
        return child, f"http://127.0.0.1:{port}"

    async def start_worker(self, name: str, upstream_url: str, **environ: str) -> tuple[Child, str]:
        """Start a worker and return once it is ready."""
        ours = {"CLOUD_POOL": POOL, "CLOUD_WORKER_ID": name, "CLOUD_UPSTREAM_URL": upstream_url}
        child, url = await self.start("cloud", name, CLOUD_MAX_RUNNING="64", **ours, **environ)
        await ready(child, url)
        return child, url


@asynccontextmanager
async def site(base: Path, **nats: object) -> AsyncGenerator[Site, None]:
    async with children(base) as group:
        made = Site(group, base)
        await made.start_nats(**nats)
        yield made


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.get(url)


async def ready(child: Child, url: str) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            assert not child.has_ended(), child.tail()
            with suppress(httpx.HTTPError):
                if (await get(url + "/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


async def status_of(child: Child) -> int:
    async with asyncio.timeout(READY_S):
        return await child.process.wait()


def line_of(child: Child) -> str:
    """Return the one line a process wrote besides its log."""
    (line,) = (line for line in child.log.read_text().splitlines() if not line.startswith("{"))
    return line


async def ask(bus: NatsBus) -> list[CompletionDelta]:
    async with aclosing(RemoteCompleter(bus, POOL, "edge-1").complete(PROMPT)) as deltas:
        return [delta async for delta in deltas]


async def said(bus: NatsBus) -> str:
    return "".join(delta.text for delta in await ask(bus))


# Workers side by side


def test_two_workers_share_a_pool_and_one_is_enough_when_the_other_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = Upstream("一"), Upstream("二")
        async with (
            first.served() as first_url,
            second.served() as second_url,
            site(tmp_path) as here,
            NatsBus.connect(here.nats_url, name="edge") as edge,
        ):
            (dies, _), (stays, _) = await asyncio.gather(
                here.start_worker("w1", first_url), here.start_worker("w2", second_url)
            )
            answers = [await said(edge) for _ in range(40)]
            assert set(answers) == {"一", "二"}, "each took some"

            first.go_on.clear()
            second.go_on.clear()
            first.asked.clear()
            under_way = [asyncio.create_task(ask(edge)) for _ in range(40)]
            async with asyncio.timeout(SEEN_S):
                await first.asked.wait()
            await here.kill(dies)
            second.go_on.set()
            done = await asyncio.gather(*under_way, return_exceptions=True)
            lost = [answer for answer in done if isinstance(answer, BaseException)]
            assert {type(error) for error in lost} == {CloudUnreachableError}, "those of the killed worker"
            assert len(lost) < len(done), "those of the other were answered"
            assert [await said(edge) for _ in range(10)] == ["二"] * 10

            stays.process.terminate()
            assert await status_of(stays) == 0
            with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
                await ask(edge)

    run(scenario(), timeout_s=90)


def test_a_cancel_closes_the_socket_to_the_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        upstream = Upstream("一")
        upstream.go_on.clear()
        async with (
            upstream.served() as upstream_url,
            site(tmp_path) as here,
            NatsBus.connect(here.nats_url, name="edge") as edge,
        ):
            _, url = await here.start_worker("w1", upstream_url)
            async with aclosing(RemoteCompleter(edge, POOL, "edge-1").complete(PROMPT)) as deltas:
                assert (await anext(deltas)).text == "一"
                assert not upstream.hung_up.is_set()
            async with asyncio.timeout(SEEN_S):
                await upstream.hung_up.wait()
            families = {family.name for family in text_string_to_metric_families((await get(url + "/metrics")).text)}
            assert families >= SOUGHT | {"voice_cloud_requests", "voice_bus_connected", "voice_build_info"}

    run(scenario(), timeout_s=60)


# Users of NATS


def key_file(base: Path, name: str) -> tuple[Path, str]:
    """Write a new user's seed; return its file and the public key."""
    nkeys = pytest.importorskip("nkeys", reason="seeds need the library's optional part")
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    path = base / f"{name}.nk"
    path.write_bytes(bytes(seed) + b"\n")
    return path, nkeys.from_seed(bytearray(seed)).public_key.decode()


def test_users_may_do_what_their_role_needs_and_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        cloud_seed, cloud_key = key_file(tmp_path, "cloud")
        edge_seed, edge_key = key_file(tmp_path, "edge")
        cloud, edge_rights = (
            {"publish": list(rights.publish), "subscribe": list(rights.subscribe)}
            for rights in (rights_of(Role.CLOUD, "w1"), rights_of(Role.EDGE, "edge-1"))
        )
        users = [{"nkey": cloud_key, "permissions": cloud}, {"nkey": edge_key, "permissions": edge_rights}]
        upstream = Upstream("一")
        async with (
            upstream.served() as upstream_url,
            site(tmp_path, authorization={"users": users}) as here,
            NatsBus.connect(here.nats_url, name="edge", nkey_seed=edge_seed.read_text().strip()) as edge,
        ):
            await here.start_worker("w1", upstream_url, CLOUD_NATS_NKEY_SEED_FILE=str(cloud_seed))
            assert await said(edge) == "一"
            async with edge.subscribe(wire.answer_subject("edge-2", "x")):
                assert await said(edge) == "一", "a subject it may not hear costs the connection nothing"

            locked_out, _ = await here.start("cloud", "locked-out", CLOUD_NATS_CONNECT_S="0.5")
            assert await status_of(locked_out) == 2
            assert "may this user in?" in line_of(locked_out)

    run(scenario(), timeout_s=60)


NEEDS = [("coordinator", {"COORDINATOR_DEVICE_TOKEN_SECRET": SECRET}), ("cloud", {})]
"""Each kind of process and what it cannot start without."""


@pytest.mark.parametrize(("module", "needs"), NEEDS)
def test_a_process_whose_user_is_taken_away_waits_until_it_is_let_in_again(
    tmp_path: Path, module: str, needs: dict[str, str]
) -> None:
    async def scenario() -> None:
        seed, key = key_file(tmp_path, "ours")
        _, other_key = key_file(tmp_path, "other")
        upstream = Upstream("一")
        async with (
            upstream.served() as upstream_url,
            site(tmp_path, authorization={"users": [{"nkey": key}]}) as here,
        ):
            environ = {f"{module.upper()}_NATS_NKEY_SEED_FILE": str(seed), **needs}
            if module == "cloud":
                environ["CLOUD_UPSTREAM_URL"] = upstream_url
            child, url = await here.start(module, **environ)
            await ready(child, url)
            here.change_nats(authorization={"users": [{"nkey": other_key}]})
            async with asyncio.timeout(READY_S):
                while (answer := await get(url + "/readyz")).status_code == 200:  # noqa: ASYNC110  # another process
                    await asyncio.sleep(0.05)
            assert answer.json()["reasons"] == {"nats": "not connected"}
            here.change_nats(authorization={"users": [{"nkey": key}]})
            await ready(child, url)
            child.process.terminate()
            assert await status_of(child) == 0

    run(scenario(), timeout_s=90)


class Refusing:
    """As much of a nats-server as says to every client, when told, that it may not stay."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refusing = asyncio.create_task(self._refuse(writer))
        try:
            writer.write(b'INFO {"server_id": "x", "version": "2.11.0", "headers": true, "max_payload": 1048576}\r\n')
            with suppress(ConnectionError):
                async for line in reader:
                    if line.startswith(b"PING"):
                        writer.write(b"PONG\r\n")
        finally:
            refusing.cancel()
            await asyncio.wait([refusing])
            writer.close()

    async def _refuse(self, writer: asyncio.StreamWriter) -> None:
        await self.told.wait()
        writer.write(b"-ERR 'User Authentication Revoked'\r\n")


@pytest.mark.parametrize(("module", "needs"), NEEDS)
def test_a_process_that_is_told_to_stay_out_ends_with_one_line(
    tmp_path: Path, module: str, needs: dict[str, str]
) -> None:
    async def scenario() -> None:
        nats, upstream = Refusing(), Upstream("一")
        server = await asyncio.start_server(nats.serve, "127.0.0.1", 0)
        async with upstream.served() as upstream_url, children(tmp_path) as group, server:
            here = Site(group, tmp_path)
            here.nats_url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            environ = {"CLOUD_UPSTREAM_URL": upstream_url} if module == "cloud" else needs
            child, url = await here.start(module, **environ)
            await ready(child, url)
            nats.told.set()
            assert await status_of(child) == 2
            line = line_of(child)
            assert line.startswith(f"python -m {module}: ")
            assert "closed" in line
            assert "user authentication revoked" in line
            assert "NKey seed" in line, "and what to do"

    run(scenario(), timeout_s=60)


# Starts that fail, and one that only shows


async def alone(module: str, *options: str, **environ: str) -> tuple[int, str, str]:
    """Run one of our processes to its end without any NATS; return its status and what it wrote on both outputs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *options),
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(READY_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("module", ["coordinator", "cloud"])
def test_an_unknown_variable_is_one_line_on_standard_error(module: str) -> None:
    variable = f"{module.upper()}_NATS_URLL"
    status, out, err = run(alone(module, **{variable: "nats://u:pa55@h:4222"}))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"python -m {module}: {variable}: no such setting")
    assert "pa55" not in err


@pytest.mark.parametrize(("module", "needs"), NEEDS)
def test_a_nats_that_is_away_is_one_line_that_names_it(
    unused_tcp_port: int, module: str, needs: dict[str, str]
) -> None:
    prefix = module.upper()
    environ = {
        f"{prefix}_NATS_URL": f"nats://u:pa55@127.0.0.1:{unused_tcp_port}",
        f"{prefix}_NATS_CONNECT_S": "0.5",
        **needs,
    }
    status, out, err = run(alone(module, **environ))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"cannot connect to NATS at nats://***@127.0.0.1:{unused_tcp_port}" in err
    assert "pa55" not in err
    assert SECRET not in err


@pytest.mark.parametrize(("module", "needs"), NEEDS)
def test_a_port_in_use_is_one_line_that_names_it_and_its_variable(
    tmp_path: Path, module: str, needs: dict[str, str]
) -> None:
    async def scenario() -> None:
        variable = f"{module.upper()}_HTTP_PORT"
        async with site(tmp_path) as here:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = str(taken.getsockname()[1])
                child, _ = await here.start(module, **{**needs, variable: port})
                assert await status_of(child) == 2
            line = line_of(child)
            assert f"cannot listen on 127.0.0.1:{port}: " in line
            assert line.endswith(f"set {variable}")

    run(scenario(), timeout_s=60)


@pytest.mark.parametrize("module", ["coordinator", "cloud"])
def test_the_settings_are_shown_without_secrets_and_without_a_nats(module: str) -> None:
    prefix = module.upper()
    secret = {"coordinator": "COORDINATOR_DEVICE_TOKEN_SECRET", "cloud": "CLOUD_UPSTREAM_API_KEY"}[module]
    environ = {f"{prefix}_NATS_URL": "nats://u:pa55@h:4222", secret: SECRET}
    status, out, err = run(alone(module, "--check-config", **environ))
    assert (status, err) == (0, "")
    assert json.loads(out)["nats_url"] == "nats://***@h:4222"
    assert SECRET not in out
