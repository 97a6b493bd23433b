from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from coordinator import wire
from coordinator.bus import Subscription
from coordinator.memory_bus import MemoryBus
from coordinator.remote import (
    CANCEL_S,
    MAX_FRAMES_WAITING,
    MAX_TRIES,
    RETRY_BURST,
    RETRY_SHARE,
    SUSPECT_S,
    Asker,
    RemoteCompleter,
)
from models.errors import (
    CloudUnreachableError,
    CompletionError,
    DeadlineError,
    OverloadedError,
    VoiceError,
)
from models.prompts import CompletionDelta, Message, Prompt, Usage
from tests.virtual_time import run

POOL = "qwen-14b"
PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="你好"),))
USAGE = Usage(prompt_tokens=2, completion_tokens=3)

Frames = Sequence[tuple[float, wire.AnyAnswerFrame | bytes]]
"""Seconds to wait before a frame, and the frame."""


def said(*texts: str) -> list[tuple[float, wire.AnyAnswerFrame | bytes]]:
    return [(0.1, wire.AnswerDelta(seq=seq, text=text, model="m")) for seq, text in enumerate(texts)]


class Pool:
    """Sends planned frames to whoever asks and notes what it hears."""

    def __init__(self, bus: MemoryBus, frames: Frames) -> None:
        self.requests: list[wire.CompletionRequest] = []
        self.replies: list[str] = []
        self.cancels: list[str] = []
        self._bus = bus
        self._frames = frames

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None, None]:
        async with (
            self._bus.subscribe(wire.complete_subject(POOL, "*"), queue=POOL) as requests,
            self._bus.subscribe(wire.cancel_subject(POOL, "*")) as cancels,
            asyncio.TaskGroup() as tasks,
        ):
            serving = tasks.create_task(self._serve(requests))
            hearing = tasks.create_task(self._hear(cancels))
            yield
            for _ in range(10):
                await asyncio.sleep(0)
            serving.cancel()
            hearing.cancel()

    async def _serve(self, requests: Subscription) -> None:
        async for message in requests:
            self.requests.append(wire.decode_request(message.payload))
            self.replies.append(message.reply)
            for pause_s, frame in self._frames:
                await asyncio.sleep(pause_s)
                await self.say(frame)

    async def say(self, frame: wire.AnyAnswerFrame | bytes) -> None:
        await self._bus.publish(self.replies[-1], frame if isinstance(frame, bytes) else wire.encode(frame))

    async def _hear(self, cancels: Subscription) -> None:
        async for message in cancels:
            self.cancels.append(wire.decode_cancel(message.payload).request_id)


def remote(bus: MemoryBus, asker: Asker | None = None, *, silence_s: float = wire.ANSWER_SILENCE_S) -> RemoteCompleter:
    now = asyncio.get_running_loop().time
    return RemoteCompleter(bus, POOL, "edge-1", asker=asker, silence_s=silence_s, now=now)


async def ask(completer: RemoteCompleter, prompt: Prompt = PROMPT) -> list[CompletionDelta]:
    async with aclosing(completer.complete(prompt)) as deltas:
        return [delta async for delta in deltas]


async def take(count: int, deltas: AsyncGenerator[CompletionDelta, None]) -> AsyncGenerator[CompletionDelta, None]:
    for _ in range(count):
        yield await anext(deltas)


def outcome(
    frames: Frames, *, prompt: Prompt = PROMPT, silence_s: float = wire.ANSWER_SILENCE_S
) -> tuple[object, float, Pool]:
    """Return the answer or its error, the seconds it took, and the pool that was asked."""

    async def scenario() -> tuple[object, float, Pool]:
        bus = MemoryBus()
        pool = Pool(bus, frames)
        async with pool.served():
            result: object
            try:
                result = await ask(remote(bus, silence_s=silence_s), prompt)
            except VoiceError as error:
                result = error
            ended_s = asyncio.get_running_loop().time()
        assert not bus._lines, "every subscription is closed"
        return result, ended_s, pool

    return run(scenario())


def test_an_answer_streams_with_its_model_and_its_usage_last() -> None:
    result, _, pool = outcome([*said("一", "百"), (0, wire.AnswerEnd(seq=2, usage=USAGE))])
    assert result == [
        CompletionDelta(text="一", model="m"),
        CompletionDelta(text="百", model="m"),
        CompletionDelta(text="", usage=USAGE),
    ]
    (request,) = pool.requests
    assert request.prompt == PROMPT
    assert pool.replies == [wire.inbox_subject("edge-1", request.asker_id).removesuffix("*") + request.request_id]
    assert pool.cancels == [], "what ended needs no cancel"


def test_every_request_has_an_id_of_its_own() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [(0, wire.AnswerEnd(seq=0))])
        async with pool.served():
            for _ in range(3):
                await ask(remote(bus))
        assert len({request.request_id for request in pool.requests}) == 3

    run(scenario())


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (wire.AnswerFailed(seq=0, code="llm-overloaded", message="full"), OverloadedError),
        (wire.AnswerFailed(seq=0, code="llm-deadline"), DeadlineError),
        (wire.AnswerFailed(seq=0, code="cloud-unreachable"), CloudUnreachableError),
        (wire.AnswerFailed(seq=0, code="llm-failed"), CompletionError),
        (wire.AnswerFailed(seq=0, code="of-a-newer-worker"), CompletionError),
        (wire.AnswerFailed(seq=0, code="asr-failed"), CompletionError),
        (wire.AnswerFailed(seq=0, code=""), CompletionError),
    ],
)
def test_a_worker_s_error_arrives_as_the_same_error(frame: wire.AnswerFailed, expected: type[CompletionError]) -> None:
    result, _, pool = outcome([(0, frame)])
    assert type(result) is expected
    assert str(result).startswith(f"{POOL}: ")
    assert pool.cancels == []


def test_a_failure_after_some_words_keeps_the_words() -> None:
    heard: list[str] = []

    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [*said("一"), (0, wire.AnswerFailed(seq=1, code="llm-failed"))])
        async with pool.served(), aclosing(remote(bus).complete(PROMPT)) as deltas:
            heard.append((await anext(deltas)).text)
            with pytest.raises(CompletionError):
                await anext(deltas)

    run(scenario())
    assert heard == ["一"]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([*said("一"), (0, wire.AnswerDelta(seq=2, text="百"))], "frame 1 of an answer was lost"),
        ([(0, wire.AnswerEnd(seq=1))], "frame 0 of an answer was lost"),
        ([*said("一"), (0, wire.AnswerDelta(seq=0, text="一"))], "frame 1 of an answer was lost"),
        ([*said("一"), (0, b"\xc1 nonsense")], "unreadable"),
        ([(0, b"\x81\xa4text\xa2\xff\xfe")], "unreadable"),
        ([], "nothing heard for 1 s"),
        (said("一"), "nothing heard for 2 s"),
    ],
)
def test_a_broken_answer_is_an_unreachable_cloud_and_cancelled_there(frames: Frames, words: str) -> None:
    result, _, pool = outcome(frames)
    assert type(result) is CloudUnreachableError
    assert words in str(result)
    assert pool.cancels == [request.request_id for request in pool.requests]


def test_silence_is_counted_from_the_last_frame() -> None:
    result, ended_s, _ = outcome(said("一", "百"), silence_s=1.5)
    assert type(result) is CloudUnreachableError
    assert ended_s == pytest.approx(0.2 + 1.5)


def test_beats_keep_a_silent_worker_alive() -> None:
    beats = [(0.9, wire.AnswerBeat(seq=0)), *((1.9, wire.AnswerBeat(seq=seq)) for seq in range(1, 5))]
    result, ended_s, _ = outcome([*beats, (1.9, wire.AnswerDelta(seq=5, text="好")), (0, wire.AnswerEnd(seq=6))])
    assert result == [CompletionDelta(text="好"), CompletionDelta(text="")]
    assert ended_s == pytest.approx(0.9 + 5 * 1.9)


def test_beats_do_not_outlive_the_budget() -> None:
    prompt = Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=5_000)
    result, ended_s, pool = outcome([(0.5, wire.AnswerBeat(seq=seq)) for seq in range(100)], prompt=prompt)
    assert type(result) is DeadlineError
    assert ended_s == pytest.approx(5)
    assert len(pool.cancels) == 1


def test_a_budget_shorter_than_the_silence_is_a_deadline() -> None:
    prompt = Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=300)
    result, ended_s, pool = outcome([], prompt=prompt)
    assert type(result) is DeadlineError
    assert ended_s == pytest.approx(0.3)
    assert len(pool.cancels) == 1


@pytest.mark.parametrize("budget_ms", [0, -5])
def test_a_budget_that_is_over_already_is_a_deadline(budget_ms: int) -> None:
    result, ended_s, _ = outcome([], prompt=Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=budget_ms))
    assert type(result) is DeadlineError
    assert ended_s == 0


def test_a_pool_without_workers_is_unreachable_at_once() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
            await ask(remote(bus))
        assert asyncio.get_running_loop().time() == 0
        assert not bus._lines

    run(scenario())


def test_a_slow_reader_gets_the_whole_answer_even_after_the_budget() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [*said("一", "百", "度"), (0, wire.AnswerEnd(seq=3))])
        prompt = Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=1_000)
        async with pool.served(), aclosing(remote(bus).complete(prompt)) as deltas:
            texts = [(await anext(deltas)).text]
            await asyncio.sleep(5)
            texts += [delta.text async for delta in deltas]
        assert texts == ["一", "百", "度", ""]

    run(scenario())


def test_a_reader_too_slow_for_its_line_is_told_that_frames_were_lost() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        frames = [(0.0, wire.AnswerDelta(seq=seq, text="x")) for seq in range(MAX_FRAMES_WAITING + 10)]
        pool = Pool(bus, frames)
        async with pool.served(), aclosing(remote(bus).complete(PROMPT)) as deltas:
            await anext(deltas)
            await asyncio.sleep(1)
            assert [delta.text async for delta in take(MAX_FRAMES_WAITING, deltas)] == ["x"] * MAX_FRAMES_WAITING
            await pool.say(wire.AnswerEnd(seq=MAX_FRAMES_WAITING + 11))
            with pytest.raises(CloudUnreachableError, match=f"frame {MAX_FRAMES_WAITING + 1} of an answer was lost"):
                await anext(deltas)

    run(scenario())


class OtherBus(MemoryBus):
    """A bus whose publishing can be slow, fail, or be followed by its end."""

    def __init__(
        self, *, pause_s: dict[str, float] | None = None, fails: Callable[[str], bool] = lambda _subject: False
    ) -> None:
        super().__init__()
        self.pause_s = pause_s or {}
        self.fails = fails
        self.published: list[str] = []

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        await asyncio.sleep(next((s for start, s in self.pause_s.items() if subject.startswith(start)), 0))
        if self.fails(subject):
            raise CloudUnreachableError(f"{subject}: not connected")
        self.published.append(subject)
        await super().publish(subject, payload, reply=reply)


def test_a_bus_that_is_not_connected_is_an_unreachable_cloud() -> None:
    async def scenario() -> None:
        bus = OtherBus(fails=lambda _subject: True)
        with pytest.raises(CloudUnreachableError, match="not connected"):
            await ask(remote(bus))
        assert not bus._lines

    run(scenario())


def test_a_bus_that_closes_in_the_middle_is_an_unreachable_cloud() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with Pool(bus, said("一")).served(), aclosing(remote(bus).complete(PROMPT)) as deltas:
            await anext(deltas)
            for line in bus._lines:
                line.end()
            with pytest.raises(CloudUnreachableError, match="the bus closed"):
                await anext(deltas)

    run(scenario())


def test_a_prompt_too_large_for_the_bus_is_an_unreachable_cloud() -> None:
    huge = Prompt(turn_id="t", messages=(Message(role="user", text="长" * 100_000),))
    result, _, pool = outcome([], prompt=huge)
    assert type(result) is CloudUnreachableError
    assert pool.requests == []


# Cancelling

CANCEL_AT_S = [0.0, 0.05, 0.1, 0.15, 0.2, 0.3]


@pytest.mark.parametrize("at_s", CANCEL_AT_S)
def test_a_cancelled_reader_tells_the_pool_at_once(at_s: float) -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [*said("一", "百"), (5, wire.AnswerEnd(seq=2))])
        async with pool.served():
            asking = asyncio.create_task(ask(remote(bus)))
            await asyncio.sleep(at_s)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            assert asyncio.get_running_loop().time() == pytest.approx(at_s)
        assert pool.cancels == [request.request_id for request in pool.requests]

    run(scenario())


def test_closing_between_two_pieces_tells_the_pool() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, said("一", "百"))
        async with pool.served():
            async with aclosing(remote(bus).complete(PROMPT)) as deltas:
                await anext(deltas)
            assert not [line for line in bus._lines if line.subject.startswith("voice.answer.")]
        assert len(pool.cancels) == 1

    run(scenario())


def test_closing_what_was_never_read_asks_nobody() -> None:
    async def scenario() -> None:
        bus = OtherBus()
        await remote(bus).complete(PROMPT).aclose()
        assert bus.published == []

    run(scenario())


def test_a_reader_cancelled_while_its_request_is_handed_over_still_tells_the_pool() -> None:
    async def scenario() -> None:
        bus = OtherBus(pause_s={"voice.complete.": 1.0})
        pool = Pool(bus, [])
        async with pool.served():
            asking = asyncio.create_task(ask(remote(bus)))
            await asyncio.sleep(0.5)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
        assert len(pool.cancels) == 1

    run(scenario())


def test_a_second_cancel_does_not_stop_the_first_from_being_told() -> None:
    async def scenario() -> None:
        bus = OtherBus(pause_s={"voice.cancel.": 0.5})
        pool = Pool(bus, [])
        async with pool.served():
            asking = asyncio.create_task(ask(remote(bus)))
            await asyncio.sleep(0.1)
            for _ in range(3):
                asking.cancel()
                await asyncio.sleep(0.01)
            await asyncio.wait([asking])
            assert asking.cancelled()
        assert len(pool.cancels) == 1

    run(scenario())


def test_a_cancel_that_comes_while_closing_is_not_lost() -> None:
    """A turn that closes the answer and is interrupted in that moment must still end as interrupted."""

    async def close_after_one_piece(completer: RemoteCompleter) -> str:
        async with aclosing(completer.complete(PROMPT)) as deltas:
            await anext(deltas)
        return "went on"

    async def scenario() -> None:
        bus = OtherBus(pause_s={"voice.cancel.": 0.5})
        pool = Pool(bus, said("一"))
        async with pool.served():
            turn = asyncio.create_task(close_after_one_piece(remote(bus)))
            await asyncio.sleep(0.3)
            turn.cancel()
            await asyncio.wait([turn])
            assert turn.cancelled()
        assert len(pool.cancels) == 1

    run(scenario())


def test_a_cancel_that_cannot_be_handed_over_is_given_up() -> None:
    async def scenario() -> None:
        bus = OtherBus(pause_s={"voice.cancel.": 60})
        pool = Pool(bus, [])
        async with pool.served():
            with pytest.raises(CloudUnreachableError, match="nothing heard"):
                await ask(remote(bus, silence_s=2.0))
            assert asyncio.get_running_loop().time() == pytest.approx(MAX_TRIES * (wire.FIRST_SIGN_S + CANCEL_S))

    run(scenario())


def test_a_cancel_on_a_bus_that_is_gone_hides_no_error() -> None:
    async def scenario() -> None:
        bus = OtherBus(fails=lambda subject: subject.startswith("voice.cancel."))
        async with Pool(bus, said("一")).served():
            with pytest.raises(CloudUnreachableError, match="nothing heard"):
                await ask(remote(bus))

    run(scenario())


def test_a_stranger_on_the_answer_s_subject_cannot_crash_the_reader() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [(0.1, wire.AnswerEnd(seq=0))])
        async with pool.served():
            asking = asyncio.create_task(ask(remote(bus)))
            await asyncio.sleep(0.05)
            await pool.say(b"\x91" * 50_000)
            with pytest.raises(CloudUnreachableError, match="unreadable"):
                await asking

    run(scenario())


# One ear for all


def inbox_lines(bus: MemoryBus) -> int:
    return sum(line.subject.startswith("voice.answer.") for line in bus._lines)


def test_many_questions_share_one_subscription_and_get_each_their_own_answer() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [*said("一"), (0.1, wire.AnswerEnd(seq=1))])
        async with pool.served(), Asker.open(bus, "edge-1") as asker:
            asking = [asyncio.create_task(ask(remote(bus, asker))) for _ in range(3)]
            await asyncio.sleep(0)
            assert asker.waiting == 3
            assert inbox_lines(bus) == 1
            answers = await asyncio.gather(*asking)
            assert [[delta.text for delta in answer] for answer in answers] == [["一", ""]] * 3
            assert len(set(pool.replies)) == 3
            assert asker.waiting == 0
        assert inbox_lines(bus) == 0

    run(scenario())


def test_what_comes_for_a_cancelled_question_is_never_heard() -> None:
    """The fence: tokens of a worker that has not heard of the cancel yet, while the next question is answered."""

    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [])
        async with pool.served(), Asker.open(bus, "edge-1") as asker:
            first = asyncio.create_task(ask(remote(bus, asker)))
            await asyncio.sleep(0.1)
            await pool.say(wire.AnswerDelta(seq=0, text="old"))
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(ask(remote(bus, asker)))
            await asyncio.sleep(0.1)
            old, new = pool.replies
            await bus.publish(old, wire.encode(wire.AnswerDelta(seq=0, text="old")))
            await bus.publish(old, wire.encode(wire.AnswerEnd(seq=1)))
            await bus.publish(new, wire.encode(wire.AnswerEnd(seq=0, text="new")))
            assert [delta.text for delta in await second] == ["new", ""]

    run(scenario())


def test_an_asker_whose_bus_closes_ends_all_its_questions_and_takes_no_more() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with Pool(bus, []).served(), Asker.open(bus, "edge-1") as asker:
            asking = [asyncio.create_task(ask(remote(bus, asker))) for _ in range(2)]
            await asyncio.sleep(0.1)
            for line in bus._lines:
                if line.subject.startswith("voice.answer."):
                    line.end()
            for task in asking:
                with pytest.raises(CloudUnreachableError, match="the bus closed"):
                    await task
            with pytest.raises(CloudUnreachableError, match="the bus closed"):
                await ask(remote(bus, asker))

    run(scenario())


def test_an_asker_beats_to_who_answers_it_and_to_nobody_else() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [(0.1, wire.AnswerBeat(seq=0, worker_id="w1"))])
        async with (
            pool.served(),
            bus.subscribe("voice.asking.>") as beats,
            Asker.open(bus, "edge-1") as asker,
        ):
            asking = [asyncio.create_task(ask(remote(bus, asker))) for _ in range(5)]
            await asyncio.sleep(1.9)
            heard = [await anext(aiter(beats)) for _ in range(beats._waiting.qsize())]  # type: ignore[attr-defined]  # the line's own
            assert [(beat.subject, wire.decode_asker_beat(beat.payload).asker_id) for beat in heard] == [
                (wire.asker_beat_subject(POOL, "edge-1", "w1"), asker.id)
            ]
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
            await asyncio.sleep(5)
            assert not beats._waiting.qsize()  # type: ignore[attr-defined]  # as above

    run(scenario())


def test_a_known_worker_is_cancelled_by_name_and_the_others_are_left_alone() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [(0.1, wire.AnswerDelta(seq=0, worker_id="w1", text="一"))])
        async with pool.served(), bus.subscribe(wire.cancel_subject(POOL, "edge-1", "w1")) as cancels:
            async with aclosing(remote(bus).complete(PROMPT)) as deltas:
                await anext(deltas)
            cancel = wire.decode_cancel((await anext(aiter(cancels))).payload)
            assert [cancel.request_id] == [request.request_id for request in pool.requests]
        assert pool.cancels == []

    run(scenario())


# Lost workers


class Crew:
    """Workers of one pool by name, of whom some take requests and say nothing."""

    def __init__(self, bus: MemoryBus, names: Sequence[str], dead: set[str]) -> None:
        self.asked: list[str] = []
        self.dead = dead
        self._bus = bus
        self._names = names

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None, None]:
        async with asyncio.TaskGroup() as tasks:
            serving = [tasks.create_task(self._serve(name, kind)) for name in self._names for kind in (True, False)]
            await asyncio.sleep(0)
            yield
            for task in serving:
                task.cancel()

    async def _serve(self, name: str, is_shared: bool) -> None:  # a test's own
        subject = wire.complete_subject(POOL, "*", "" if is_shared else name)
        async with self._bus.subscribe(subject, queue=POOL if is_shared else "") as requests:
            async for request in requests:
                self.asked.append(name)
                if name not in self.dead:
                    await self._bus.publish(
                        request.reply, wire.encode(wire.AnswerEnd(seq=0, worker_id=name, text=name))
                    )


async def answered_by(completer: RemoteCompleter) -> str:
    return "".join([delta.text for delta in await ask(completer)])


def test_a_request_its_worker_lost_is_answered_by_another_one_in_time() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        crew = Crew(bus, ["w1", "w2"], {"w1"})
        async with crew.served(), Asker.open(bus, "edge-1") as asker:
            assert await answered_by(remote(bus, asker)) == "w2"
            assert crew.asked == ["w1", "w2"]
            assert asyncio.get_running_loop().time() == pytest.approx(wire.FIRST_SIGN_S)

    run(scenario())


def test_while_a_worker_seems_lost_only_those_heard_since_are_asked() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        crew = Crew(bus, ["w1", "w2", "w3"], {"w1"})
        async with crew.served(), Asker.open(bus, "edge-1") as asker:
            completer = remote(bus, asker)
            lost = asyncio.create_task(answered_by(completer))
            await asyncio.sleep(0.5)
            assert [await answered_by(completer) for _ in range(2)] == ["w2", "w3"]
            await lost
            crew.asked.clear()
            assert {await answered_by(completer) for _ in range(20)} == {"w2", "w3"}
            assert "w1" not in crew.asked
            await asyncio.sleep(SUSPECT_S + 0.1)
            crew.dead.clear()
            assert {await answered_by(completer) for _ in range(3)} == {"w1", "w2", "w3"}, "and then anybody again"

    run(scenario())


def test_a_worker_asked_by_name_that_is_gone_is_replaced_at_once() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        crew = Crew(bus, ["w1", "w2"], set())
        async with crew.served(), Asker.open(bus, "edge-1") as asker:
            now_s = asyncio.get_running_loop().time()
            asker.workers.lose(POOL, "w9", now_s - 1, now_s)
            asker.workers.hear(POOL, "w3", now_s)
            assert await answered_by(remote(bus, asker)) in {"w1", "w2"}
            assert asyncio.get_running_loop().time() == now_s

    run(scenario())


def test_a_worker_lost_after_its_first_word_is_not_replaced() -> None:
    result, _, pool = outcome(said("一"))
    assert type(result) is CloudUnreachableError
    assert len(pool.requests) == 1


def test_second_tries_have_a_budget() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        crew = Crew(bus, ["w1"], {"w1"})
        async with crew.served(), Asker.open(bus, "edge-1") as asker:
            count = 100
            results = await asyncio.gather(*(ask(remote(bus, asker)) for _ in range(count)), return_exceptions=True)
            assert {type(result) for result in results} == {CloudUnreachableError}
            assert count + RETRY_BURST <= len(crew.asked) <= count + RETRY_BURST + 1 + RETRY_SHARE * 2 * count

    run(scenario())


def test_a_second_try_has_what_is_left_of_the_budget() -> None:
    prompt = Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=1_500)
    result, ended_s, pool = outcome([], prompt=prompt)
    assert type(result) is DeadlineError
    assert ended_s == pytest.approx(1.5)
    assert [request.prompt.budget_ms for request in pool.requests] == [1_500, 500]


def test_a_worker_is_told_who_asks_how_urgently_and_for_how_long() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [(0, wire.AnswerEnd(seq=0))])
        async with pool.served():
            completer = RemoteCompleter(
                bus,
                POOL,
                "edge-1",
                priority=wire.PRELOAD,
                first_token_ms=lambda: 1_200,
                now=asyncio.get_running_loop().time,
            )
            await ask(completer)
        (request,) = pool.requests
        assert (request.priority, request.first_token_ms) == (wire.PRELOAD, 1_200)

    run(scenario())


def test_a_process_that_stood_still_reads_what_came_before_it_gives_up() -> None:
    """Seen as a timer that is late: the clock jumps by more than a timer ever is on a live loop."""

    async def scenario() -> None:
        bus = MemoryBus()
        pool = Pool(bus, [(0.9, wire.AnswerBeat(seq=0)), (1.9, wire.AnswerEnd(seq=1, text="好"))])
        loop = asyncio.get_running_loop()
        async with pool.served():
            asking = asyncio.create_task(ask(remote(bus)))
            await asyncio.sleep(1.0)
            loop._jumping.now_s += 5  # type: ignore[attr-defined]  # the virtual clock's
            assert "".join(delta.text for delta in await asking) == "好"

    run(scenario())
