from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloud.admission import Admission, Terms
from cloud.worker import BEAT_S, CANCELS_KEPT, PoolWorker
from coordinator import wire
from coordinator.memory_bus import MemoryBus
from coordinator.remote import Asker, RemoteCompleter
from models.engines import Completer
from models.errors import CloudUnreachableError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Message, Prompt, Usage
from models.scripted import ScriptedCompleter
from tests.virtual_time import run

POOL = "qwen-14b"
PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="水的沸点是多少度？"),))
ANSWER = "一百度"
LOOP_TURNS = 20
"""A cancel passes three queues and unwinds four tasks on its way from the asker to the upstream: some loop turns, but no time."""


@dataclass
class Cluster:
    """Workers of one pool on a bus, and an asker."""

    bus: MemoryBus
    workers: list[PoolWorker]
    results: Counter[str]
    counts: list[int] = field(default_factory=list)

    @property
    def worker(self) -> PoolWorker:
        (only,) = self.workers
        return only

    @property
    def remote(self) -> RemoteCompleter:
        return RemoteCompleter(self.bus, POOL, "edge-1", now=asyncio.get_running_loop().time)

    async def ask(self, prompt: Prompt = PROMPT) -> str:
        async with aclosing(self.remote.complete(prompt)) as deltas:
            return "".join([delta.text async for delta in deltas])

    async def send(self, payload: bytes, *, reply: str = "voice.answer.edge-1.r") -> None:
        await self.bus.publish(wire.complete_subject(POOL, "edge-1"), payload, reply=reply)

    async def cancel(self, request_id: str) -> None:
        cancel = wire.encode(wire.CompletionCancel(request_id=request_id))
        await self.bus.publish(wire.cancel_subject(POOL, "edge-1"), cancel)


@asynccontextmanager
async def cluster(*completers: Completer, max_running: int = 8) -> AsyncGenerator[Cluster, None]:
    """Run one worker per completer; nothing of them may be left when this ends."""
    bus, results = MemoryBus(), Counter[str]()
    counts: list[int] = []
    workers = [
        PoolWorker(
            bus,
            POOL,
            completer,
            worker_id=f"w{number}",
            model="m",
            max_running=max_running,
            observe=lambda result: results.update([result]),
            running_changed=counts.append,
        )
        for number, completer in enumerate(completers)
    ]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    for worker in workers:
        await worker.ready.wait()
    try:
        yield Cluster(bus, workers, results, counts)
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        assert all(task.cancelled() for task in running), [task for task in running if not task.cancelled()]
        assert [worker.running for worker in workers] == [0] * len(workers)
        assert not bus._lines


async def turns(count: int = LOOP_TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def now_s() -> float:
    return asyncio.get_running_loop().time()


@contextmanager
def no_time_passes() -> Iterator[None]:
    began_s = now_s()
    yield
    assert now_s() == began_s


def scripted(**options: object) -> ScriptedCompleter:
    return ScriptedCompleter({PROMPT.question: ANSWER}, **options)  # type: ignore[arg-type]  # a test's options


def request(request_id: str, prompt: Prompt = PROMPT) -> bytes:
    return wire.encode(wire.CompletionRequest(request_id=request_id, prompt=prompt))


# Answering


def test_an_answer_streams_from_the_upstream_to_the_asker() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=0.3, per_token_s=0.1)
        async with cluster(upstream) as site:
            heard: list[tuple[float, CompletionDelta]] = []
            async with aclosing(site.remote.complete(PROMPT)) as deltas:
                async for delta in deltas:
                    heard.append((round(now_s(), 6), delta))
                    assert site.worker.running in {0, 1}
            assert [(at_s, delta.text, delta.model) for at_s, delta in heard[:-1]] == [
                (0.3, "一", "scripted"),
                (0.4, "百", "scripted"),
                (0.5, "度", "scripted"),
            ]
            assert heard[-1][1] == CompletionDelta(text="", usage=Usage(prompt_tokens=9, completion_tokens=3))
            assert list(upstream.prompts) == [PROMPT]
            await turns()
            assert site.results == {"answered": 1}
            assert site.counts == [1, 0]

    run(scenario())


def test_many_askers_get_each_their_own_answer() -> None:
    async def scenario() -> None:
        upstream = ScriptedCompleter(lambda prompt: prompt.question * 2, per_token_s=0.01)
        async with cluster(upstream, max_running=100) as site:
            prompts = [Prompt(turn_id="t", messages=(Message(role="user", text=f"<{n}>"),)) for n in range(50)]
            answers = await asyncio.gather(*(site.ask(prompt) for prompt in prompts))
            assert answers == [f"<{n}><{n}>" for n in range(50)]

    run(scenario())


def test_workers_of_a_pool_share_the_requests() -> None:
    async def scenario() -> None:
        upstreams = [scripted(), scripted(), scripted()]
        async with cluster(*upstreams) as site:
            for _ in range(6):
                assert await site.ask() == ANSWER
            assert [upstream.calls.started for upstream in upstreams] == [2, 2, 2]

    run(scenario())


@pytest.mark.parametrize("error", [OverloadedError, DeadlineError, CloudUnreachableError, CompletionError])
@pytest.mark.parametrize("at_token", [0, 2])
def test_the_upstream_s_error_survives_the_wire(error: type[CompletionError], at_token: int) -> None:
    async def scenario() -> None:
        async with cluster(scripted(fail_at_token=at_token, error=error, per_token_s=0.1)) as site:
            heard = ""
            async with aclosing(site.remote.complete(PROMPT)) as deltas:
                for _ in range(at_token):
                    heard += (await anext(deltas)).text
                with pytest.raises(error, match="planned failure") as caught:
                    await anext(deltas)
            assert type(caught.value) is error
            assert heard == ANSWER[:at_token]
            await turns()
            assert site.results == {error.code: 1}

    run(scenario())


def test_beats_keep_an_upstream_alive_that_is_slower_than_the_silence_allowed() -> None:
    async def scenario() -> None:
        slow_s = 5 * wire.ANSWER_SILENCE_S
        async with cluster(scripted(first_token_s=slow_s, per_token_s=slow_s)) as site:
            assert await site.ask(msgspec.structs.replace(PROMPT, budget_ms=60_000)) == ANSWER
            assert now_s() == pytest.approx(3 * slow_s)

    run(scenario())


# Budgets


def test_a_budget_that_is_over_ends_the_request_on_both_sides() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=60)
        async with cluster(upstream) as site:
            with pytest.raises(DeadlineError):
                await site.ask(msgspec.structs.replace(PROMPT, budget_ms=1_500))
            assert now_s() == pytest.approx(1.5)
            with no_time_passes():
                await turns()
                assert site.worker.running == 0
            assert upstream.calls.running == 0

    run(scenario())


def test_a_worker_ends_at_the_budget_without_any_cancel() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=60)
        async with cluster(upstream) as site, site.bus.subscribe("voice.answer.edge-1.r") as inbox:
            await site.send(
                request("r", msgspec.structs.replace(PROMPT, budget_ms=1_200)), reply="voice.answer.edge-1.r"
            )
            frames = [wire.decode_answer((await anext(aiter(inbox))).payload) for _ in range(3)]
            assert [type(frame).__name__ for frame in frames] == ["AnswerBeat"] * 2 + ["AnswerFailed"]
            assert [frame.seq for frame in frames] == [0, 1, 2]
            assert isinstance(frames[-1], wire.AnswerFailed)
            assert frames[-1].code == "llm-deadline"
            assert now_s() == pytest.approx(1.2)
            assert upstream.calls.running == 0
            await turns()
            assert site.results == {"llm-deadline": 1}

    run(scenario())


# Refusing


def test_a_full_worker_refuses_and_recovers() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=1)
        async with cluster(upstream, max_running=2) as site:
            asking = [asyncio.create_task(site.ask()) for _ in range(2)]
            await turns()
            with no_time_passes(), pytest.raises(OverloadedError):
                await site.ask()
            assert upstream.calls.started == 2
            assert await asyncio.gather(*asking) == [ANSWER] * 2
            await turns()
            assert await site.ask() == ANSWER
            await turns()
            assert site.results == {"refused": 1, "answered": 3}

    run(scenario())


def test_draining_leaves_what_is_new_to_others_and_waits_for_what_is_under_way() -> None:
    async def scenario() -> None:
        async with cluster(scripted(first_token_s=1, per_token_s=1)) as site:
            asking = asyncio.create_task(site.ask())
            await turns()
            draining = asyncio.create_task(site.worker.drain(60))
            await turns()
            assert not draining.done()
            with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
                await site.ask()
            await draining
            assert now_s() == pytest.approx(3)
            assert await asking == ANSWER

    run(scenario())


def test_a_request_that_came_before_a_worker_left_its_group_is_refused() -> None:
    async def scenario() -> None:
        async with cluster(scripted()) as site, site.bus.subscribe("voice.answer.edge-1.r") as inbox:
            await site.send(request("r"), reply="voice.answer.edge-1.r")
            await site.worker.drain(60)
            frame = wire.decode_answer((await anext(aiter(inbox))).payload)
            assert isinstance(frame, wire.AnswerFailed)
            assert frame.code == "llm-overloaded"

    run(scenario())


@pytest.mark.parametrize("within_s", [0, 0.5])
def test_draining_waits_no_longer_than_it_may(within_s: float) -> None:
    async def scenario() -> None:
        async with cluster(scripted(first_token_s=10)) as site:
            asking = asyncio.create_task(site.ask())
            await turns()
            await site.worker.drain(within_s)
            assert now_s() == pytest.approx(within_s)
            assert site.worker.running == 1
            asking.cancel()
            await asyncio.wait([asking])

    run(scenario())


def test_draining_an_idle_worker_takes_no_time() -> None:
    async def scenario() -> None:
        async with cluster(scripted()) as site:
            with no_time_passes():
                await site.worker.drain(60)

    run(scenario())


# What nobody should send


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"\xc0",
        msgspec.msgpack.encode({"request_id": 1}),
        b"\x82\xaarequest_id\xa1a\xa1x" + b"\x91" * 20_000 + b"\x90",
        request("r").replace("水".encode(), b"\xff\xff\xff"),
    ],
    ids=["empty", "text", "nil", "shape", "nested", "broken-text"],
)
def test_a_malformed_message_is_counted_and_the_worker_lives(payload: bytes) -> None:
    async def scenario() -> None:
        async with cluster(scripted()) as site:
            await site.send(payload)
            await site.bus.publish(wire.cancel_subject(POOL, "edge-1"), payload[:-2])
            await turns()
            assert site.results == {"malformed": 2}
            assert await site.ask() == ANSWER

    run(scenario())


@settings(max_examples=50)
@given(payload=st.binary(max_size=48))
@example(payload=request("r")[:20])
def test_no_bytes_stop_a_worker(payload: bytes) -> None:
    async def scenario() -> None:
        async with cluster(scripted()) as site:
            await site.send(payload)
            await site.bus.publish(wire.cancel_subject(POOL, "edge-1"), payload)
            await turns()
            assert await site.ask() == ANSWER

    run(scenario())


def test_a_request_without_a_reply_subject_is_malformed() -> None:
    async def scenario() -> None:
        upstream = scripted()
        async with cluster(upstream) as site:
            await site.send(request("r"), reply="")
            await turns()
            assert site.results == {"malformed": 1}
            assert upstream.calls.started == 0

    run(scenario())


def test_a_request_that_comes_twice_is_served_once() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=1)
        async with cluster(upstream) as site:
            await site.send(request("r"))
            await site.send(request("r"))
            await turns()
            assert upstream.calls.started == site.worker.running == 1
            assert site.results == {"malformed": 1}

    run(scenario())


@pytest.mark.parametrize("max_tokens", [-1, 0, 2**60])
@pytest.mark.parametrize("budget_ms", [-(2**60), 0, 2**60])
def test_absurd_numbers_end_in_an_answer_or_an_error(max_tokens: int, budget_ms: int) -> None:
    async def scenario() -> None:
        async with cluster(scripted(first_token_s=0.1)) as site, site.bus.subscribe("voice.answer.edge-1.r") as inbox:
            prompt = msgspec.structs.replace(PROMPT, max_tokens=max_tokens, budget_ms=budget_ms)
            await site.send(request("r", prompt), reply="voice.answer.edge-1.r")
            async for message in inbox:
                frame = wire.decode_answer(message.payload)
                if isinstance(frame, wire.AnswerEnd | wire.AnswerFailed):
                    break
            await turns()
            assert site.worker.running == 0

    run(scenario())


@pytest.mark.parametrize("worker_id", ["", "a.b", "a b"])
def test_a_worker_s_name_must_fit_a_subject(worker_id: str) -> None:
    with pytest.raises(ConfigError, match="NATS subject"):
        PoolWorker(MemoryBus(), POOL, scripted(), worker_id=worker_id)


# Cancelling

MOMENTS_S = {
    "before-it-is-taken": 0.0,
    "waiting-for-the-first-token": 0.3,
    "as-it-is-tended": wire.ANSWER_BEAT_S,
    "as-a-beat-is-due": 2 * wire.ANSWER_BEAT_S,
    "as-the-first-token-comes": 0.7,
    "mid-stream": 0.75,
    "as-a-token-and-a-beat-come": 4 * wire.ANSWER_BEAT_S,
    "after-the-last-token": 1.1,
}


@pytest.mark.parametrize("loop_turns", range(8))
@pytest.mark.parametrize("moment", MOMENTS_S)
def test_a_cancelled_question_is_over_everywhere_at_once(moment: str, loop_turns: int) -> None:
    async def scenario() -> None:
        upstream = ScriptedCompleter({PROMPT.question: "一二三四"}, first_token_s=0.7, per_token_s=0.1)
        async with cluster(upstream) as site:
            asking = asyncio.create_task(site.ask())
            await asyncio.sleep(MOMENTS_S[moment])
            await turns(loop_turns)
            with no_time_passes():
                asking.cancel()
                await asyncio.wait([asking])
                await turns()
                assert site.worker.running == 0
                assert upstream.calls.running == 0
            assert not [line for line in site.bus._lines if line.subject.startswith("voice.answer.")]
            assert asking.cancelled() or await asking == "一二三四"
            assert set(site.results) <= {"cancelled", "answered"}
            assert await site.ask() == "一二三四", "the worker serves on"

    run(scenario())


def test_closing_the_answer_after_a_piece_is_as_good_as_cancelling() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=0.2, per_token_s=0.2)
        async with cluster(upstream) as site:
            async with aclosing(site.remote.complete(PROMPT)) as deltas:
                await anext(deltas)
            with no_time_passes():
                await turns()
                assert site.worker.running == upstream.calls.running == 0
            assert site.results == {"cancelled": 1}

    run(scenario())


def test_a_cancel_reaches_the_one_worker_that_has_the_request() -> None:
    async def scenario() -> None:
        upstreams = [scripted(first_token_s=5) for _ in range(3)]
        async with cluster(*upstreams) as site:
            asking = [asyncio.create_task(site.ask()) for _ in range(3)]
            await asyncio.sleep(1)
            asking[1].cancel()
            await turns()
            assert sorted(worker.running for worker in site.workers) == [0, 1, 1]
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
            await turns()

    run(scenario())


def test_a_cancel_that_overtakes_its_request_is_kept_for_it() -> None:
    async def scenario() -> None:
        upstream = scripted()
        async with cluster(upstream) as site:
            await site.cancel("r")
            await turns()
            await site.send(request("r"))
            await turns()
            assert upstream.calls.started == 0
            assert site.results == {"cancelled": 1}
            await site.send(request("r"))
            await turns()
            assert upstream.calls.started == 1, "it counts for one request"

    run(scenario())


def test_cancels_of_other_workers_requests_cannot_fill_the_memory() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=1)
        async with cluster(upstream) as site:
            for number in range(CANCELS_KEPT + 10):
                await site.cancel(f"r{number}")
                if number % 1000 == 0:
                    await turns(2)
            await turns()
            assert len(site.worker._cancelled) == CANCELS_KEPT
            await site.send(request("r0"))
            await site.send(request(f"r{CANCELS_KEPT + 9}"))
            await turns()
            assert upstream.calls.started == 1, "the oldest is forgotten, the newest is not"

    run(scenario())


class Stubborn:
    """A completer whose clean-up takes time, as closing a connection may."""

    def __init__(self, closing_s: float) -> None:
        self.closing_s = closing_s
        self.is_open = False

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        self.is_open = True
        try:
            while True:
                await asyncio.sleep(0.1)
                yield CompletionDelta(text="x")
        finally:
            await asyncio.sleep(self.closing_s)
            self.is_open = False


def test_an_upstream_that_is_slow_to_close_counts_as_running_until_it_is() -> None:
    async def scenario() -> None:
        upstream = Stubborn(closing_s=1)
        async with cluster(upstream) as site:
            asking = asyncio.create_task(site.ask())
            await asyncio.sleep(0.25)
            asking.cancel()
            await asyncio.wait([asking])
            await turns()
            assert site.worker.running == 1
            await asyncio.sleep(1.01)
            assert site.worker.running == 0
            assert not upstream.is_open

    run(scenario())


# The end of a worker


def test_a_worker_killed_in_the_middle_of_an_answer_is_an_unreachable_cloud() -> None:
    async def scenario() -> None:
        bus, upstream = MemoryBus(), scripted(per_token_s=1)
        worker = PoolWorker(bus, POOL, upstream, worker_id="w")
        serving = asyncio.create_task(worker.run())
        await worker.ready.wait()
        remote = RemoteCompleter(bus, POOL, "edge-1", now=asyncio.get_running_loop().time)
        async with aclosing(remote.complete(PROMPT)) as deltas:
            assert (await anext(deltas)).text == "一"
            serving.cancel()
            await asyncio.wait([serving])
            assert worker.running == upstream.calls.running == 0
            killed_s = now_s()
            with pytest.raises(CloudUnreachableError, match="nothing heard"):
                await anext(deltas)
            assert now_s() == pytest.approx(killed_s + wire.ANSWER_SILENCE_S)
        with pytest.raises(CloudUnreachableError, match="no worker"):
            async with aclosing(remote.complete(PROMPT)) as deltas:
                await anext(deltas)

    run(scenario())


def test_an_asker_who_cannot_be_reached_ends_the_request() -> None:
    class Cut(MemoryBus):
        async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
            if subject.startswith("voice.answer."):
                raise CloudUnreachableError(f"{subject}: not connected to NATS")
            await super().publish(subject, payload, reply=reply)

    async def scenario() -> None:
        bus, upstream, results = Cut(), scripted(first_token_s=1, per_token_s=1), Counter[str]()
        worker = PoolWorker(bus, POOL, upstream, worker_id="w", observe=lambda result: results.update([result]))
        serving = asyncio.create_task(worker.run())
        await worker.ready.wait()
        await bus.publish(wire.complete_subject(POOL, "edge-1"), request("r"), reply="voice.answer.edge-1.r")
        await asyncio.sleep(1.5)
        assert worker.running == upstream.calls.running == 0
        assert results == {"cloud-unreachable": 1}
        serving.cancel()
        await asyncio.wait([serving])

    run(scenario())


class Lost(MemoryBus):
    """A bus that gave its connection up."""

    async def lost(self) -> NoReturn:
        raise CloudUnreachableError("the reason")


def test_a_bus_that_closes_ends_the_worker_with_an_error_that_says_why() -> None:
    async def scenario() -> None:
        bus, upstream = Lost(), scripted(first_token_s=5)
        worker = PoolWorker(bus, POOL, upstream, worker_id="w")
        serving = asyncio.create_task(worker.run())
        await worker.ready.wait()
        await bus.publish(wire.complete_subject(POOL, "edge-1"), request("r"), reply="voice.answer.edge-1.r")
        await turns()
        assert worker.running == 1
        for line in bus._lines:
            line.end()
        await asyncio.wait([serving])
        error = serving.exception()
        assert isinstance(error, ExceptionGroup)
        assert [str(told) for told in error.exceptions] == ["the reason"]
        assert worker.running == upstream.calls.running == 0

    run(scenario())


# Beats of the pool


def test_a_worker_beats_with_what_it_has_to_do() -> None:
    async def scenario() -> None:
        bus, is_ready = MemoryBus(), [False]
        async with bus.subscribe(wire.pool_beat_subject(POOL, "*")) as beats:
            worker = PoolWorker(
                bus,
                POOL,
                scripted(first_token_s=60),
                worker_id="w",
                model="m",
                max_running=4,
                is_upstream_ready=lambda: is_ready[0],
            )
            serving = asyncio.create_task(worker.run())
            first = await anext(aiter(beats))
            assert first.subject == wire.pool_beat_subject(POOL, "w")
            quiet = wire.PoolBeat(pool=POOL, worker_id="w", model="m", running=0, max_running=4, ready=False)
            assert wire.decode_pool_beat(first.payload) == quiet
            is_ready[0] = True
            await bus.publish(wire.complete_subject(POOL, "edge-1"), request("r"), reply="voice.answer.edge-1.r")
            busy = wire.decode_pool_beat((await anext(aiter(beats))).payload)
            assert now_s() == pytest.approx(BEAT_S)
            assert busy == msgspec.structs.replace(quiet, running=1, ready=True)
            await worker.drain(0)
            draining = wire.decode_pool_beat((await anext(aiter(beats))).payload)
            assert draining == msgspec.structs.replace(busy, ready=False)
            serving.cancel()
            await asyncio.wait([serving])

    run(scenario())


def test_a_bus_that_is_away_for_a_while_does_not_stop_the_beats() -> None:
    class Flaky(MemoryBus):
        is_away = True

        async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
            if self.is_away:
                raise CloudUnreachableError("not connected to NATS")
            await super().publish(subject, payload, reply=reply)

    async def scenario() -> None:
        bus = Flaky()
        worker = PoolWorker(bus, POOL, scripted(), worker_id="w")
        serving = asyncio.create_task(worker.run())
        async with bus.subscribe(wire.pool_beat_subject(POOL, "w")) as beats:
            await asyncio.sleep(3.5 * BEAT_S)
            bus.is_away = False
            await anext(aiter(beats))
            assert now_s() == pytest.approx(4 * BEAT_S)
        serving.cancel()
        await asyncio.wait([serving])

    run(scenario())


# Admission


def admitting(**terms: float) -> Admission:
    return Admission(Terms(**terms))  # type: ignore[arg-type]  # numbers by name


def asked(request_id: str, **fields: object) -> bytes:
    return wire.encode(wire.CompletionRequest(request_id=request_id, prompt=PROMPT, **fields))  # type: ignore[arg-type]  # a test's fields


@asynccontextmanager
async def one_worker(
    upstream: Completer, admission: Admission
) -> AsyncGenerator[tuple[MemoryBus, PoolWorker, Counter[str]], None]:
    bus, results = MemoryBus(), Counter[str]()
    worker = PoolWorker(
        bus, POOL, upstream, worker_id="w", admission=admission, observe=lambda result: results.update([result])
    )
    serving = asyncio.create_task(worker.run())
    await worker.ready.wait()
    try:
        yield bus, worker, results
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        assert not bus._lines


async def frames_of(bus: MemoryBus, request_id: str, payload: bytes) -> list[wire.AnyAnswerFrame]:
    """Ask and return all frames of the answer but beats."""
    heard: list[wire.AnyAnswerFrame] = []
    async with bus.subscribe(f"voice.answer.edge-1.{request_id}") as inbox:
        await bus.publish(wire.complete_subject(POOL, "edge-1"), payload, reply=f"voice.answer.edge-1.{request_id}")
        async for message in inbox:
            frame = wire.decode_answer(message.payload)
            heard += [] if isinstance(frame, wire.AnswerBeat) else [frame]
            if isinstance(frame, wire.AnswerEnd | wire.AnswerFailed):
                return heard
    raise AssertionError("it ended without a last frame")


def test_one_that_waits_is_answered_when_its_turn_comes_with_what_is_left_of_its_budget() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=1)
        async with one_worker(upstream, admitting(max_running=1, max_waiting=4)) as (bus, worker, results):
            asking = [asyncio.create_task(frames_of(bus, name, asked(name))) for name in "ab"]
            await asyncio.sleep(0.1)
            assert (worker.running, worker.admission.waiting) == (1, 1)
            answers = await asyncio.gather(*asking)
            assert [type(answer[-1]).__name__ for answer in answers] == ["AnswerEnd"] * 2
            assert now_s() == pytest.approx(2)
            assert [prompt.budget_ms for prompt in upstream.prompts] == [30_000, 29_000]
            await turns()
            assert results == {"answered": 2}

    run(scenario())


def test_one_cancelled_while_it_waits_leaves_at_once_and_costs_nothing() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=1)
        async with one_worker(upstream, admitting(max_running=1, max_waiting=4)) as (bus, worker, results):
            remote = RemoteCompleter(bus, POOL, "edge-1", now=now_s)

            async def ask() -> str:
                async with aclosing(remote.complete(PROMPT)) as deltas:
                    return "".join([delta.text async for delta in deltas])

            first, second = (asyncio.create_task(ask()) for _ in range(2))
            await asyncio.sleep(0.6)
            with no_time_passes():
                second.cancel()
                await asyncio.wait([second])
                await turns()
                assert (worker.running, worker.admission.waiting) == (1, 0)
            assert await first == ANSWER
            assert upstream.calls.started == 1
            await turns()
            assert results == {"answered": 1, "cancelled": 1}

    run(scenario())


def test_work_that_would_come_too_late_is_refused_at_once() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=2)
        async with one_worker(upstream, admitting(max_running=1, max_waiting=4)) as (bus, _, results):
            await frames_of(bus, "a", asked("a"))
            running = asyncio.create_task(frames_of(bus, "b", asked("b")))
            await turns()
            with no_time_passes():
                (last,) = await frames_of(bus, "c", asked("c", first_token_ms=3_500))
            assert isinstance(last, wire.AnswerFailed)
            assert last.code == "llm-overloaded"
            in_time = await frames_of(bus, "d", asked("d", first_token_ms=4_500))
            assert isinstance(in_time[-1], wire.AnswerEnd)
            await running
            await turns()
            assert results == {"answered": 3, "refused-late": 1}

    run(scenario())


def test_one_whose_time_runs_out_in_the_line_is_refused_then() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=10)
        async with one_worker(upstream, admitting(max_running=1, max_waiting=4)) as (bus, worker, results):
            running = asyncio.create_task(frames_of(bus, "a", asked("a")))
            await turns()
            (last,) = await frames_of(bus, "b", asked("b", first_token_ms=1_200))
            assert isinstance(last, wire.AnswerFailed)
            assert now_s() == pytest.approx(1.25), "the worker looks four times a second"
            assert worker.admission.waiting == 0
            running.cancel()
            await asyncio.wait([running])
            assert results == {"refused-late": 1}

    run(scenario())


def test_a_live_turn_takes_the_place_of_preloading_in_a_full_line() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=1)
        async with one_worker(upstream, admitting(max_running=1, max_waiting=1)) as (bus, _, results):
            names = {"runs": wire.TURN, "preloads": wire.PRELOAD, "turn": wire.TURN}
            tasks = []
            for name, priority in names.items():
                tasks.append(asyncio.create_task(frames_of(bus, name, asked(name, priority=priority))))
                await turns()
            endings = [type(frames[-1]).__name__ for frames in await asyncio.gather(*tasks)]
            assert endings == ["AnswerEnd", "AnswerFailed", "AnswerEnd"]
            await turns()
            assert results == {"answered": 2, "refused": 1}

    run(scenario())


# Askers


def test_an_asker_that_falls_silent_is_lost_and_its_requests_end() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=60)
        async with one_worker(upstream, admitting(max_running=2, max_waiting=2)) as (bus, worker, results):
            for name in "abc":
                await bus.publish(
                    wire.complete_subject(POOL, "edge-1"), asked(name, asker_id="gone"), reply="voice.answer.edge-1.r"
                )
            await bus.publish(wire.complete_subject(POOL, "edge-1"), asked("d"), reply="voice.answer.edge-1.r")
            await asyncio.sleep(wire.ASKER_SILENCE_S - 0.1)
            assert (worker.running, worker.admission.waiting) == (2, 2)
            await asyncio.sleep(wire.ANSWER_BEAT_S + 0.1)
            await turns()
            assert results == {"asker-lost": 3}
            assert (worker.running, worker.admission.waiting) == (1, 0), "one that never promised to beat goes on"
            assert upstream.calls.running == 1

    run(scenario())


def test_an_asker_that_beats_is_waited_for() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=20)
        async with one_worker(upstream, admitting(max_running=2)) as (bus, _, results):
            remote = RemoteCompleter(bus, POOL, "edge-1", now=now_s)
            async with aclosing(remote.complete(PROMPT)) as deltas:
                assert "".join([delta.text async for delta in deltas]) == ANSWER
            await turns()
            assert results == {"answered": 1}

    run(scenario())


@pytest.mark.parametrize("payload", [b"", b"\xc0", wire.encode(wire.AskerBeat(asker_id="a stranger"))])
def test_beats_of_strangers_change_nothing(payload: bytes) -> None:
    async def scenario() -> None:
        async with one_worker(scripted(), admitting(max_running=2)) as (bus, worker, _):
            await bus.publish(wire.asker_beat_subject(POOL, "edge-1", "w"), payload)
            await turns()
            assert not worker._askers
            assert isinstance((await frames_of(bus, "a", asked("a")))[-1], wire.AnswerEnd)

    run(scenario())


def test_what_another_edge_says_of_a_request_changes_nothing() -> None:
    async def scenario() -> None:
        upstream = scripted(first_token_s=2.5)
        async with one_worker(upstream, admitting(max_running=2)) as (bus, worker, results):
            payload = asked("r", asker_id="a")
            asking = asyncio.create_task(frames_of(bus, "r", payload))
            await turns()
            cancel = wire.encode(wire.CompletionCancel(request_id="r"))
            for subject in (wire.cancel_subject(POOL, "edge-2"), wire.cancel_subject(POOL, "edge-2", "w")):
                await bus.publish(subject, cancel)
            heard_s = dict(worker._askers)
            await asyncio.sleep(0.1)
            await bus.publish(wire.asker_beat_subject(POOL, "edge-2", "w"), wire.encode(wire.AskerBeat(asker_id="a")))
            await turns()
            assert worker._askers == heard_s
            assert isinstance((await asking)[-1], wire.AnswerEnd)
            await turns()
            assert results == {"answered": 1}

    run(scenario())


def test_two_edges_may_use_the_same_ids() -> None:
    async def scenario() -> None:
        async with one_worker(scripted(first_token_s=1), admitting(max_running=2)) as (bus, worker, results):
            for edge_id in ("edge-1", "edge-2"):
                subject = wire.complete_subject(POOL, edge_id)
                await bus.publish(subject, asked("r"), reply=wire.answer_subject(edge_id, "r"))
            await asyncio.sleep(0.5)
            assert worker.running == 2
            assert {ticket.edge_id for ticket in (r.ticket for r in worker._requests.values())} == {"edge-1", "edge-2"}
            await asyncio.sleep(5)
            assert results == {"answered": 2}

    run(scenario())


@pytest.mark.parametrize("reply", ["", "voice.answer.edge-2.a.r", "voice.answer.edge-1", "voice.complete.p.edge-1"])
def test_a_worker_answers_nobody_but_the_edge_that_asked(reply: str) -> None:
    async def scenario() -> None:
        upstream = scripted()
        async with one_worker(upstream, admitting(max_running=2)) as (bus, worker, results):
            async with bus.subscribe(">") as spy:
                await bus.publish(wire.complete_subject(POOL, "edge-1"), asked("r"), reply=reply)
                await asyncio.sleep(2)
                subjects = [line.subject for line in spy._waiting._queue if line]  # type: ignore[attr-defined]  # the line's own
            assert worker.running == 0
            assert not upstream.prompts
            assert results == {"malformed": 1}
            assert all(subject.startswith(("voice.beat.", "voice.complete.")) for subject in subjects)

    run(scenario())


def test_a_worker_that_ignores_a_cancel_for_a_while_says_nothing_more() -> None:
    async def scenario() -> None:
        class Deaf:
            async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
                for _ in range(20):
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(0.1)
                    yield CompletionDelta(text="x")

        async with one_worker(Deaf(), admitting(max_running=2)) as (bus, worker, results):
            heard: list[str] = []
            async with bus.subscribe("voice.answer.>") as spy, Asker.open(bus, "edge-1") as asker:
                remote = RemoteCompleter(bus, POOL, "edge-1", asker=asker, now=now_s)
                async with aclosing(remote.complete(PROMPT)) as deltas:
                    heard.append((await anext(deltas)).text)
                await turns()
                before = spy._waiting.qsize()  # type: ignore[attr-defined]  # the line's own
                await asyncio.sleep(5)
                assert spy._waiting.qsize() == before  # type: ignore[attr-defined]  # as above
                assert heard == ["x"]
                assert worker.running == 0
                assert results in ({"answered": 1}, {"cancelled": 1})

    run(scenario())
