"""The road between the tiers on real nats-servers: a hub and a leaf, alive, killed, frozen and back again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing

from cloud.worker import PoolWorker
from coordinator import wire
from coordinator.bus import Bus, Subscription
from coordinator.nats_bus import NatsBus
from coordinator.remote import RemoteCompleter
from coordinator.wire import MAX_PAYLOAD_BYTES
from manifests.processes import Child, Children, children, free_ports, stop_child
from manifests.servers import nats_server
from models.errors import CloudUnreachableError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Message, Prompt, Usage
from models.scripted import ScriptedCompleter
from tests.real_time import run

POOL = "qwen-14b"
PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="水的沸点是多少度？"),))
NOTICED_S = 15.0
"""Pings go out every 2 s and two may be missed; the rest is for a busy machine."""


def quiet(_line: str) -> None:
    pass


async def until(condition: Callable[[], bool], within_s: float = NOTICED_S) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # other processes: nothing to wait on
            await asyncio.sleep(0.01)


class State:
    """What ``on_state`` heard."""

    def __init__(self) -> None:
        self.heard: list[bool] = []
        self._changed = asyncio.Event()

    def __call__(self, connected: bool) -> None:
        self.heard.append(connected)
        self._changed.set()

    async def becomes(self, expected: list[bool]) -> None:
        async with asyncio.timeout(NOTICED_S):
            while self.heard != expected:
                self._changed.clear()
                await self._changed.wait()


class Server:
    """One nats-server that can be killed and started again on its port."""

    def __init__(self, group: Children, base: Path, name: str, config: dict[str, object]) -> None:
        self.url = f"nats://127.0.0.1:{config['port']}"
        self._group, self._base, self._name, self._config = group, base, name, config
        self.child: Child | None = None

    async def start(self) -> None:
        await nats_server(self._group, self._base, self._name, self._config, quiet)
        self.child = self._group.running[-1]

    async def kill(self) -> None:
        assert self.child
        self.child.process.kill()
        await self.child.process.wait()
        self._group.running.remove(self.child)

    def send(self, number: signal.Signals) -> None:
        assert self.child
        os.kill(self.child.pid, number)
        threads = Path(f"/proc/{self.child.pid}/task")
        while number == signal.SIGSTOP and threads.exists() and not all(map(_has_stopped, threads.iterdir())):
            pass  # the signal is sent, but on a busy machine a thread may go on for a moment


def _has_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"


@asynccontextmanager
async def one_server(base: Path, **config: object) -> AsyncGenerator[Server, None]:
    async with children(base) as group:
        server = Server(group, base, "nats", {"host": "127.0.0.1", "port": free_ports(1)[0], **config})
        await server.start()
        yield server


@asynccontextmanager
async def hub_and_leaf(base: Path, *, is_hub_up: bool = True) -> AsyncGenerator[tuple[Server, Server], None]:
    hub_port, link_port, leaf_port = free_ports(3)
    link = {"remotes": [{"url": f"nats-leaf://127.0.0.1:{link_port}"}], "reconnect": 1}
    async with children(base) as group:
        hub = Server(
            group,
            base,
            "hub",
            {"host": "127.0.0.1", "port": hub_port, "leafnodes": {"host": "127.0.0.1", "port": link_port}},
        )
        leaf = Server(group, base, "leaf", {"host": "127.0.0.1", "port": leaf_port, "leafnodes": link})
        if is_hub_up:
            await hub.start()
        await leaf.start()
        yield hub, leaf


@asynccontextmanager
async def pool(bus: Bus, upstream: ScriptedCompleter, **options: object) -> AsyncGenerator[PoolWorker, None]:
    worker = PoolWorker(bus, POOL, upstream, worker_id="w", **options)  # type: ignore[arg-type]  # a test's options
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(worker.run())
        await worker.ready.wait()
        yield worker
        serving.cancel()


async def heard_of(edge: Bus) -> None:
    """Return once a beat of the pool crossed the leaf; the pool's subscriptions did so before it."""
    async with edge.subscribe(wire.pool_beat_subject(POOL, "*")) as beats, asyncio.timeout(NOTICED_S):
        await anext(aiter(beats))


async def ask(bus: Bus, prompt: Prompt = PROMPT) -> list[CompletionDelta]:
    async with aclosing(RemoteCompleter(bus, POOL, "edge-1").complete(prompt)) as deltas:
        return [delta async for delta in deltas]


async def read(line: Subscription, count: int) -> list[bytes]:
    messages = aiter(line)
    async with asyncio.timeout(NOTICED_S):
        return [(await anext(messages)).payload for _ in range(count)]


# Requests across the leaf


def test_an_answer_streams_across_the_leaf(tmp_path: Path) -> None:
    async def scenario() -> None:
        upstream = ScriptedCompleter({PROMPT.question: "一百度"}, per_token_s=0.01)
        async with (
            hub_and_leaf(tmp_path) as (hub, leaf),
            NatsBus.connect(hub.url, name="cloud") as cloud,
            NatsBus.connect(leaf.url, name="edge") as edge,
            pool(cloud, upstream),
        ):
            await heard_of(edge)
            deltas = await ask(edge)
            assert [delta.text for delta in deltas] == ["一", "百", "度", ""]
            assert deltas[-1].usage == Usage(prompt_tokens=9, completion_tokens=3)
            assert list(upstream.prompts) == [PROMPT]
            answers = await asyncio.gather(*(ask(edge) for _ in range(8)))
            assert ["".join(delta.text for delta in answer) for answer in answers] == ["一百度"] * 8

    run(scenario(), timeout_s=60)


@pytest.mark.parametrize("moment", ["before-the-first-token", "mid-stream"])
def test_a_cancel_crosses_the_leaf(tmp_path: Path, moment: str) -> None:
    async def scenario() -> None:
        first_token_s = 60.0 if moment == "before-the-first-token" else 0.0
        upstream = ScriptedCompleter({PROMPT.question: "一" * 200}, first_token_s=first_token_s, per_token_s=0.01)
        results = Counter[str]()
        async with (
            hub_and_leaf(tmp_path) as (hub, leaf),
            NatsBus.connect(hub.url, name="cloud") as cloud,
            NatsBus.connect(leaf.url, name="edge") as edge,
            pool(cloud, upstream, observe=lambda result: results.update([result])) as worker,
        ):
            await heard_of(edge)
            asking = asyncio.create_task(ask(edge))
            await until(lambda: worker.running == 1)
            if moment == "mid-stream":
                await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            await until(lambda: worker.running == 0)
            assert upstream.calls.running == 0
            assert results == {"cancelled": 1}

    run(scenario(), timeout_s=60)


def test_errors_and_budgets_cross_the_leaf(tmp_path: Path) -> None:
    async def scenario() -> None:
        upstream = ScriptedCompleter(first_token_s=60)
        async with (
            hub_and_leaf(tmp_path) as (hub, leaf),
            NatsBus.connect(hub.url, name="cloud") as cloud,
            NatsBus.connect(leaf.url, name="edge") as edge,
            pool(cloud, upstream, max_running=1) as worker,
        ):
            await heard_of(edge)
            asking = asyncio.create_task(ask(edge, Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=1_000)))
            await until(lambda: worker.running == 1)
            with pytest.raises(OverloadedError):
                await ask(edge)
            with pytest.raises(DeadlineError):
                await asking
            await until(lambda: worker.running == 0)

    run(scenario(), timeout_s=60)


def test_a_pool_nobody_serves_is_unreachable_without_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hub_and_leaf(tmp_path) as (hub, leaf):
            for url in (hub.url, leaf.url):
                async with NatsBus.connect(url, name="edge") as edge:
                    with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
                        await ask(edge)

    run(scenario(), timeout_s=60)


def test_a_hub_killed_in_the_middle_of_an_answer_is_an_unreachable_cloud(tmp_path: Path) -> None:
    async def scenario() -> None:
        upstream = ScriptedCompleter({PROMPT.question: "一" * 4000}, per_token_s=0.005)
        async with (
            hub_and_leaf(tmp_path) as (hub, leaf),
            NatsBus.connect(hub.url, name="cloud") as cloud,
            NatsBus.connect(leaf.url, name="edge") as edge,
            pool(cloud, upstream) as worker,
        ):
            await heard_of(edge)
            async with aclosing(RemoteCompleter(edge, POOL, "edge-1").complete(PROMPT)) as deltas:
                assert (await anext(deltas)).text == "一"
                await hub.kill()
                with pytest.raises(CloudUnreachableError):  # what is under way still comes
                    async for _ in deltas:
                        pass
            assert edge.is_connected, "to its leaf"
            with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
                await ask(edge)
            await until(lambda: worker.running == 0)
            await hub.start()
            await heard_of(edge)
            assert (await ask(edge))[0].text == "一", "and all is well again"

    run(scenario(), timeout_s=90)


def test_an_edge_whose_hub_never_came_up_starts_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = State()
        async with (
            hub_and_leaf(tmp_path, is_hub_up=False) as (hub, leaf),
            NatsBus.connect(leaf.url, name="edge", on_state=state) as edge,
            edge.subscribe("s") as line,
        ):
            await edge.publish("s", b"1")
            assert await read(line, 1) == [b"1"], "what stays on the node arrives"
            with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
                await ask(edge)
            await hub.start()
            upstream = ScriptedCompleter({PROMPT.question: "一百度"})
            async with NatsBus.connect(hub.url, name="cloud") as cloud, pool(cloud, upstream):
                await heard_of(edge)
                assert "".join(delta.text for delta in await ask(edge)) == "一百度", "the cloud is there once it is"
            assert state.heard == [True], "the leaf was there all the time"

    run(scenario(), timeout_s=60)


# One server


def test_a_message_arrives_without_anything_sent_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            one_server(tmp_path) as server,
            NatsBus.connect(server.url, name="a") as sender,
            NatsBus.connect(server.url, name="b") as receiver,
            receiver.subscribe("voice.test.>") as line,
        ):
            assert sender.is_connected
            await sender.publish("voice.test.x", b"1", reply="inbox.1")
            message = await anext(aiter(line))
            assert (message.subject, message.payload, message.reply) == ("voice.test.x", b"1", "inbox.1")
            assert not message.no_responders

    run(scenario())


def test_members_of_a_queue_share_and_others_hear_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        numbers = [b"%d" % number for number in range(20)]
        async with one_server(tmp_path) as server, NatsBus.connect(server.url, name="a") as bus:
            async with (
                bus.subscribe("s", queue="q") as one,
                bus.subscribe("s", queue="q") as two,
                bus.subscribe("s") as every,
            ):
                for number in numbers:
                    await bus.publish("s", number)
                assert await read(every, 20) == numbers
            shares = [await collect(line) for line in (one, two)]
            assert sorted(shares[0] + shares[1]) == sorted(numbers)

    run(scenario())


def test_a_message_over_the_limit_is_refused_here_and_the_largest_arrives(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            one_server(tmp_path) as server,
            NatsBus.connect(server.url, name="a") as bus,
            bus.subscribe("s") as line,
        ):
            with pytest.raises(CloudUnreachableError, match="over the limit"):
                await bus.publish("s", b"x" * (MAX_PAYLOAD_BYTES + 1))
            await bus.publish("s", b"x" * MAX_PAYLOAD_BYTES)
            assert len((await read(line, 1))[0]) == MAX_PAYLOAD_BYTES
            assert bus.is_connected

    run(scenario())


def test_a_server_with_a_smaller_limit_is_one_of_our_errors(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            one_server(tmp_path, max_payload=1024) as server,
            NatsBus.connect(server.url, name="a") as bus,
            bus.subscribe("s") as line,
        ):
            with pytest.raises(CloudUnreachableError, match="MaxPayload"):
                await bus.publish("s", b"x" * 2000)
            await bus.publish("s", b"y")
            assert await read(line, 1) == [b"y"]

    run(scenario())


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB x 0"])
def test_a_subject_that_is_none_is_one_of_our_errors(tmp_path: Path, subject: str) -> None:
    async def scenario() -> None:
        async with one_server(tmp_path) as server, NatsBus.connect(server.url, name="a") as bus:
            with pytest.raises(CloudUnreachableError, match="BadSubject"):
                await bus.publish(subject, b"")
            with pytest.raises(CloudUnreachableError, match="BadSubject"):
                async with bus.subscribe(subject):
                    pass

    run(scenario())


def test_what_is_too_much_for_a_line_is_dropped_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            one_server(tmp_path) as server,
            NatsBus.connect(server.url, name="a") as sender,
            NatsBus.connect(server.url, name="b") as receiver,
            receiver.subscribe("s", max_pending=10) as narrow,
            receiver.subscribe("s", max_pending=10_000) as wide,
        ):
            for number in range(5_000):
                await sender.publish("s", b"%d" % number)
            await until(lambda: narrow.dropped == 4_990)
            assert await read(narrow, 10) == [b"%d" % number for number in range(10)]
            assert await read(wide, 5_000) == [b"%d" % number for number in range(5_000)]
            assert wide.dropped == 0, "nothing is lost on the way to the line"

    run(scenario())


# Tasks


def tasks_of(bus: NatsBus) -> int:
    return len(asyncio.all_tasks()) + len(bus._client._subs)


def test_leaving_a_subscription_leaves_no_task_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_server(tmp_path) as server, NatsBus.connect(server.url, name="a") as bus:
            before = tasks_of(bus)
            async with bus.subscribe("s") as line:
                assert tasks_of(bus) > before
                await bus.publish("s", b"1")
                await read(line, 1)
                await bus.publish("s", b"unread")
            assert tasks_of(bus) == before
            for _ in range(5):
                async with bus.subscribe("s"):
                    pass
                assert tasks_of(bus) == before

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_a_subscription_cancelled_while_it_is_made_harms_no_other(tmp_path: Path, turns: int) -> None:
    async def subscribed(bus: NatsBus) -> None:
        async with bus.subscribe("other"):
            await asyncio.Event().wait()

    async def scenario() -> None:
        state = State()
        async with (
            one_server(tmp_path) as server,
            NatsBus.connect(server.url, name="a", on_state=state) as bus,
            bus.subscribe("s") as line,
        ):
            before = tasks_of(bus)
            for _ in range(20):
                making = asyncio.create_task(subscribed(bus))
                for _ in range(turns):
                    await asyncio.sleep(0)
                making.cancel()
                await asyncio.wait([making])
                assert making.cancelled()
            assert tasks_of(bus) == before
            await bus.publish("s", b"1")
            assert await read(line, 1) == [b"1"]
            async with bus.subscribe("later"):
                pass
            assert state.heard == [True], "the connection was never lost"

    run(scenario())


def test_a_bus_that_is_left_ends_its_readers(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = State()
        async with one_server(tmp_path) as server:
            connection = NatsBus.connect(server.url, name="a", on_state=state)
            bus = await connection.__aenter__()
            async with bus.subscribe("s") as line:
                reading = asyncio.create_task(collect(line))
                await bus.publish("s", b"1")
                await until(lambda: not bus._client._subs or bus._client._subs[1].delivered == 1)
                await connection.__aexit__(None, None, None)
                assert await reading == [b"1"]
                assert not bus.is_connected
                with pytest.raises(CloudUnreachableError):
                    await bus.publish("s", b"2")
        assert state.heard == [True, False]

    run(scenario())


async def collect(line: Subscription) -> list[bytes]:
    return [message.payload async for message in line]


# Servers that go and come back


def test_a_server_that_comes_back_on_its_port_is_taken_up_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = State()
        async with (
            one_server(tmp_path) as server,
            NatsBus.connect(server.url, name="a", on_state=state) as bus,
            bus.subscribe("s") as line,
        ):
            await server.kill()
            await state.becomes([True, False])
            assert bus.is_connected == state.heard[-1]
            with pytest.raises(CloudUnreachableError, match="not connected"):
                await bus.publish("s", b"lost")
            async with bus.subscribe("meanwhile") as meanwhile:
                await server.start()
                await state.becomes([True, False, True])
                assert bus.is_connected == state.heard[-1]
                for subject, heard in (("s", line), ("meanwhile", meanwhile)):
                    await bus.publish(subject, b"back")
                    assert await read(heard, 1) == [b"back"], "and nothing of before"
        assert state.heard == [True, False, True, False]

    run(scenario(), timeout_s=60)


def test_leaving_while_the_server_is_away_takes_no_time_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = State()
        async with one_server(tmp_path) as server:
            async with NatsBus.connect(server.url, name="a", on_state=state) as bus, bus.subscribe("s") as line:
                await server.kill()
                await state.becomes([True, False])
            assert await collect(line) == []
            assert state.heard == [True, False]

    run(scenario())


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
def test_a_frozen_server_is_noticed_and_its_return_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = State()
        async with (
            one_server(tmp_path) as server,
            NatsBus.connect(server.url, name="a", on_state=state) as bus,
            bus.subscribe("s") as line,
        ):
            server.send(signal.SIGSTOP)
            try:
                with pytest.raises(CloudUnreachableError, match="did not confirm"):
                    async with bus.subscribe("other"):
                        pass
                assert bus.is_connected, "it may only be slow"
                await state.becomes([True, False])
                assert bus.is_connected == state.heard[-1]
            finally:
                server.send(signal.SIGCONT)
            await state.becomes([True, False, True])
            await bus.publish("s", b"back")
            assert await read(line, 1) == [b"back"]

    run(scenario(), timeout_s=60)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
def test_a_server_that_was_frozen_for_a_moment_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = State()
        async with (
            one_server(tmp_path) as server,
            NatsBus.connect(server.url, name="a", on_state=state) as bus,
            bus.subscribe("s") as line,
        ):
            server.send(signal.SIGSTOP)
            try:
                with pytest.raises(CloudUnreachableError, match="did not confirm"):
                    async with bus.subscribe("other"):
                        pass
            finally:
                server.send(signal.SIGCONT)
            async with bus.subscribe("later"):
                await bus.publish("s", b"1")
                assert await read(line, 1) == [b"1"]
            assert state.heard == [True], "the late pong did no harm"

    run(scenario(), timeout_s=60)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
def test_publishing_to_a_server_that_does_not_read_can_be_cancelled(tmp_path: Path) -> None:
    async def publish_until_it_waits(bus: NatsBus) -> None:
        for _ in range(1000):
            async with asyncio.timeout(0.3):
                await bus.publish("s", b"x" * MAX_PAYLOAD_BYTES)
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with one_server(tmp_path) as server, NatsBus.connect(server.url, name="a") as bus:
            server.send(signal.SIGSTOP)
            try:
                with pytest.raises(TimeoutError):
                    await publish_until_it_waits(bus)
            finally:
                server.send(signal.SIGCONT)

    run(scenario(), timeout_s=60)


# Who may in


def key_pair() -> tuple[str, str]:
    nkeys = pytest.importorskip("nkeys", reason="seeds need the library's optional part")
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return bytes(seed).decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


def test_a_seed_opens_the_door_and_another_does_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        seed, public_key = key_pair()
        other_seed, _ = key_pair()
        async with one_server(tmp_path, authorization={"users": [{"nkey": public_key}]}) as server:
            async with (
                NatsBus.connect(server.url, name="a", nkey_seed=seed) as bus,
                bus.subscribe("s") as line,
            ):
                await bus.publish("s", b"in")
                assert await read(line, 1) == [b"in"]
            wrong: Sequence[str | None] = (other_seed, None)
            for nkey_seed in wrong:
                with (
                    structlog.testing.capture_logs() as logs,
                    pytest.raises(ConfigError, match="Authorization Violation") as caught,
                ):
                    async with NatsBus.connect(server.url, name="a", nkey_seed=nkey_seed, connect_s=0.8):
                        pass
                (told,) = [entry for entry in logs if entry["log_level"] == "warning"]
                assert (told["event"], told["name"]) == ("bus_refused", "a")
                assert "NKey seed" in told["mend"]
                assert seed not in str(caught.value)
                assert "\n" not in str(caught.value)

    run(scenario())


def test_a_subject_one_may_not_use_does_not_end_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        rights = {"publish": "voice.>", "subscribe": "voice.>"}
        users = [{"user": "edge", "password": "pa55", "permissions": rights}]
        async with one_server(tmp_path, authorization={"users": users}) as server:
            url = server.url.replace("nats://", "nats://edge:pa55@")
            async with NatsBus.connect(url, name="a") as bus, bus.subscribe("voice.x") as line:
                await bus.publish("forbidden", b"")
                async with bus.subscribe("forbidden"):
                    pass
                await bus.publish("voice.x", b"1")
                assert await read(line, 1) == [b"1"]

    run(scenario())


def test_a_server_that_ends_in_order_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = State()
        async with one_server(tmp_path) as server, NatsBus.connect(server.url, name="a", on_state=state):
            assert server.child
            await stop_child(server.child)
            await state.becomes([True, False])
            await server.start()
            await state.becomes([True, False, True])

    run(scenario(), timeout_s=60)
