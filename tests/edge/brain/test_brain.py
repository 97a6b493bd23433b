from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from coordinator import wire
from coordinator.memory_bus import MemoryBus
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord, decode_turn
from edge import seam
from edge.brain.brain import Brain, stages_of
from edge.brain.observer import DeafObserver
from edge.brain.pipeline import Pipeline
from edge.brain.session import SessionOptions
from edge.brain.speaker import Speaker
from edge.seam import AudioUp, ListenStarted, SessionClosed, SessionOpened, SessionRefused, TurnEnded, Up
from models.errors import CloudUnreachableError, StageError
from models.prompts import Prompt
from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer
from models.speech import AudioFrame
from tests.edge.brain.talking import SPOKEN, Engines, story
from tests.virtual_time import run


class Notes(DeafObserver):
    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []
        self.counts: list[int] = []
        self.outcomes: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()

    def turn_ended(self, record: TurnRecord) -> None:
        self.outcomes[record.outcome] += 1

    def stage_seconds(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages[stage] += 1

    def error(self, stage: str, code: str) -> None:
        self.errors.append((stage, code))

    def sessions(self, count: int) -> None:
        self.counts.append(count)


class Node:
    """A brain on a bus, and the gateway's end of it."""

    def __init__(self, engines: Engines, bus: MemoryBus, **options: object) -> None:
        self.engines = engines
        self.bus = bus
        self.notes = Notes()
        self.down: dict[str, list[seam.DownMessage]] = {}
        self.turns: list[TurnRecord] = []
        self.beats: list[seam.BrainBeat] = []
        values: dict[str, object] = {"detector": ScriptedDetector(), "pipeline": engines.pipeline} | options
        self.brain = Brain(
            bus,
            node_id="n",
            edge_id="e",
            brain_id="b",
            observer=self.notes,
            now=asyncio.get_running_loop().time,
            **values,  # type: ignore[arg-type]  # whatever a test wants changed
        )

    async def listen(self) -> None:
        async with (
            self.bus.subscribe(seam.down_subject("n"), max_pending=100_000) as down,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._note_turns())
            group.create_task(self._note_beats())
            async for message in down:
                told = seam.decode_down(message.payload)
                self.down.setdefault(told.session_id, []).append(told)

    async def _note_turns(self) -> None:
        async with self.bus.subscribe(wire.turn_subject("*")) as turns:
            async for message in turns:
                self.turns.append(decode_turn(message.payload))

    async def _note_beats(self) -> None:
        async with self.bus.subscribe(seam.beat_subject("n")) as beats:
            async for message in beats:
                self.beats.append(seam.decode_beat(message.payload))

    async def tell(self, kind: type[Up], session_id: str = "s", **fields: object) -> None:
        await self.bus.publish(seam.up_subject("n"), seam.encode(kind(session_id=session_id, **fields)))

    async def ask(self, session_id: str = "s") -> None:
        """Open a session and say one sentence."""
        await self.tell(SessionOpened, session_id, device_id=f"d-{session_id}")
        await self.tell(ListenStarted, session_id)
        for seq, packet in enumerate(SPOKEN):
            await self.tell(AudioUp, session_id, seq=seq, packet=packet)

    def story(self, session_id: str = "s") -> list[str]:
        return story(self.down.get(session_id, []))


@asynccontextmanager
async def node(
    engines: Engines | None = None, bus: MemoryBus | None = None, **options: object
) -> AsyncGenerator[Node, None]:
    there = Node(engines or Engines(), bus or MemoryBus(), **options)
    ears = asyncio.create_task(there.listen())
    await asyncio.sleep(0.001)
    serving = asyncio.create_task(there.brain.run())
    await there.brain.ready.wait()
    try:
        yield there
    finally:
        for task in (serving, ears):
            task.cancel()
            await asyncio.wait([task])
    assert serving.cancelled(), serving
    assert there.engines.running == 0
    assert there.brain.sessions == 0


def test_turn_crosses_the_bus_and_leaves_a_record_with_its_decisions() -> None:
    async def scene() -> None:
        def decide(prompt: Prompt) -> str:
            for tier, reason in ((Tier.CLOUD, "complex"), (Tier.EDGE, "cloud-unreachable")):
                there.brain.observe_decision(RoutingDecision(turn_id=prompt.turn_id, tier=tier, reason=reason))
            return "好的。"

        async with node(Engines(completer=ScriptedCompleter(decide))) as there:
            await there.ask()
            await asyncio.sleep(10)
            assert there.story() == ["heard 你好", "felt neutral", "sentence 好的。", "speech", "answered"]
            (record,) = there.turns
            assert there.brain.records == (record,)
            assert [d.reason for d in record.decisions] == ["complex", "cloud-unreachable"]
            assert (record.edge_id, record.device_id, record.model) == ("e", "d-s", "scripted")
            assert there.notes.stages == {"vad": len(SPOKEN), "asr": 1, "llm": 1, "tts": 1}
            assert there.notes.outcomes == {"answered": 1}

    run(scene())


def test_twenty_devices_talk_at_once_and_none_hears_another() -> None:
    async def scene() -> None:
        engines = Engines(
            recognizer=ScriptedRecognizer(lambda utterance: f"我是{utterance.device_id}"),
            completer=ScriptedCompleter(lambda prompt: f"你好{prompt.question}。", first_token_s=0.5, per_token_s=0.05),
        )
        async with node(engines) as there:
            names = [f"s{number}" for number in range(20)]
            for name in names:
                await there.ask(name)
            await asyncio.sleep(60)
            assert there.brain.sessions == 20
            for name in names:
                assert there.story(name)[0] == f"heard 我是d-{name}"
                assert there.story(name)[2] == f"sentence 你好我是d-{name}。"
                assert there.story(name)[-1] == "answered"
            assert there.notes.outcomes == {"answered": 20}
            for name in names:
                await there.tell(SessionClosed, name)
            await asyncio.sleep(1)
            assert there.brain.sessions == 0
            assert there.notes.counts[-1] == 0

    run(scene())


class OneBadDevice:
    """Breaks for the loudest frames only of the session that asks second."""

    def __init__(self) -> None:
        self.listeners = 0

    def listen(self):
        self.listeners += 1
        return BrokenStream() if self.listeners == 2 else ScriptedDetector().listen()


class BrokenStream:
    async def detect(self, frame: AudioFrame) -> float:
        raise ZeroDivisionError

    def reset(self) -> None:
        pass


def test_session_that_breaks_ends_alone() -> None:
    async def scene() -> None:
        async with node(detector=OneBadDevice()) as there:
            for name in ("a", "b", "c"):
                await there.ask(name)
            await asyncio.sleep(30)
            assert there.story("b") == ["refused stage"]
            assert there.story("a")[-1] == there.story("c")[-1] == "answered"
            assert there.notes.errors == [("session", "stage")]
            assert there.brain.sessions == 2

    run(scene())


def test_device_too_many_is_refused() -> None:
    async def scene() -> None:
        async with node(max_sessions=1) as there:
            await there.tell(SessionOpened, "a", device_id="a")
            await there.tell(SessionOpened, "b", device_id="b")
            await there.tell(SessionOpened, "a", device_id="a")
            await asyncio.sleep(1)
            assert there.down.keys() == {"b"}
            assert there.story("b") == ["refused llm-overloaded"]

    run(scene())


def test_overloaded_brain_refuses_newcomers_serves_the_others_and_recovers() -> None:
    async def scene() -> None:
        load = {"is over": False}
        async with node(is_overloaded=lambda: load["is over"]) as there:
            await there.ask("early")
            await asyncio.sleep(0.1)
            load["is over"] = True
            await there.ask("late")
            await asyncio.sleep(30)
            assert there.story("late") == ["refused llm-overloaded"] * 2  # opening, and listening all the same
            assert there.story("early")[-1] == "answered"
            load["is over"] = False
            await there.ask("later")
            await asyncio.sleep(30)
            assert there.story("later")[-1] == "answered"

    run(scene())


def test_flood_of_sound_from_one_device_costs_only_its_own_words() -> None:
    async def scene() -> None:
        detector = CountingDetector()
        async with node(detector=detector) as there:
            await there.tell(SessionOpened, "flood", device_id="flood")
            await there.tell(ListenStarted, "flood")
            for seq in range(5000):
                await there.tell(AudioUp, "flood", seq=seq, packet=SPOKEN[0])
            await there.ask("good")
            await asyncio.sleep(30)
            assert there.story("good")[-1] == "answered"
            assert detector.frames["flood"] < 5000
            assert there.brain.sessions == 2

    run(scene())


class CountingDetector:
    """Counts the frames of the sessions "flood" and "good", which listen in this order."""

    def __init__(self) -> None:
        self.frames: Counter[str] = Counter()
        self._names = iter(("flood", "good"))

    def listen(self):
        return CountingStream(self.frames, next(self._names))


class CountingStream:
    def __init__(self, frames: Counter[str], name: str) -> None:
        self._frames, self._name = frames, name
        self._stream = ScriptedDetector().listen()

    async def detect(self, frame: AudioFrame) -> float:
        self._frames[self._name] += 1
        return await self._stream.detect(frame)

    def reset(self) -> None:
        pass


def test_session_a_restarted_brain_does_not_know_is_refused_when_it_listens() -> None:
    async def scene() -> None:
        async with node() as there:
            await there.tell(AudioUp, seq=0, packet=b"")
            await there.tell(ListenStarted)
            await there.tell(SessionClosed)
            await asyncio.sleep(1)
            assert there.story() == ["refused stage"]

    run(scene())


def test_flood_of_control_messages_ends_that_session() -> None:
    async def scene() -> None:
        async with node() as there:
            await there.ask("good")
            await asyncio.sleep(0.1)
            await there.tell(SessionOpened, "bad", device_id="bad")
            for _ in range(400):
                await there.tell(ListenStarted, "bad")
            await asyncio.sleep(30)
            assert there.story("bad")[0] == "refused device-protocol"
            assert there.story("good")[-1] == "answered"
            assert there.brain.sessions == 1

    run(scene())


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81\xa4kind\xa4what", b"{}", b"\x00" * 1000])
def test_message_nobody_can_read_is_counted_and_passed_over(payload: bytes) -> None:
    async def scene() -> None:
        async with node() as there:
            await there.bus.publish(seam.up_subject("n"), payload)
            await there.ask()
            await asyncio.sleep(30)
            assert there.brain.lost_messages == 1
            assert there.story()[-1] == "answered"

    run(scene())


def test_brain_beats_every_second() -> None:
    async def scene() -> None:
        async with node() as there:
            await there.tell(SessionOpened, device_id="d")
            await asyncio.sleep(5.5)
            assert [beat.sessions for beat in there.beats] == [0, 1, 1, 1, 1, 1]
            assert {beat.brain_id for beat in there.beats} == {"b"}

    run(scene())


class CutBus(MemoryBus):
    """Delivers nothing of what the brain says while it is cut."""

    is_cut = False

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        if self.is_cut and subject != seam.up_subject("n"):
            raise CloudUnreachableError("not connected")
        await super().publish(subject, payload, reply=reply)


def test_bus_that_is_cut_loses_messages_but_no_session() -> None:
    async def scene() -> None:
        bus = CutBus()
        async with node(bus=bus) as there:
            bus.is_cut = True
            await there.ask()
            await asyncio.sleep(30)
            assert there.brain.lost_messages > 5
            assert there.turns == []
            assert there.brain.records[0].outcome == "answered"
            bus.is_cut = False
            await there.tell(ListenStarted)
            for seq, packet in enumerate(SPOKEN):
                await there.tell(AudioUp, seq=seq, packet=packet)
            await asyncio.sleep(30)
            assert there.story()[-1] == "answered"

    run(scene())


def test_drain_refuses_newcomers_and_waits_for_turns() -> None:
    async def scene() -> None:
        async with node() as there:
            loop = asyncio.get_running_loop()
            await there.ask()
            await asyncio.sleep(1)
            draining = asyncio.create_task(there.brain.drain(60))
            await asyncio.sleep(0.1)
            await there.tell(SessionOpened, "late", device_id="late")
            await draining
            assert 5 < loop.time() < 20
            assert there.story("late") == ["refused llm-overloaded"]
            assert any(isinstance(m, TurnEnded) and m.outcome == "answered" for m in there.down["s"])

    run(scene())


def test_drain_gives_up_in_time() -> None:
    async def scene() -> None:
        async with node(Engines(completer=ScriptedCompleter(first_token_s=1000))) as there:
            await there.ask()
            await asyncio.sleep(1)
            await there.brain.drain(5)
            assert asyncio.get_running_loop().time() == pytest.approx(6, abs=0.1)

    run(scene())


@pytest.mark.parametrize("at_s", [0.0, 0.3, 1.0, 1.7, 2.1, 4.0, 6.0])
def test_brain_cancelled_at_any_time_leaves_nothing(at_s: float) -> None:
    async def scene() -> None:
        async with node() as there:
            for name in ("a", "b"):
                await there.ask(name)
            await asyncio.sleep(at_s)

    run(scene())


def test_decisions_of_turns_that_never_end_are_bounded() -> None:
    async def scene() -> None:
        brain = Brain(
            MemoryBus(), node_id="n", edge_id="e", brain_id="b", detector=ScriptedDetector(),
            pipeline=Pipeline(ScriptedRecognizer(), ScriptedCompleter(), Speaker(ScriptedSynthesizer())),
        )  # fmt: skip
        for number in range(5000):
            brain.observe_decision(RoutingDecision(turn_id=str(number), tier=Tier.EDGE, reason="x"))
        assert len(brain._decisions) == 1024

    run(scene())


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (Marks(), {}),
        (Marks(transcript_ms=500.0), {"asr": 0.5}),
        (Marks(transcript_ms=500.0, first_token_ms=1500.0), {"asr": 0.5, "llm": 1.0}),
        (
            Marks(transcript_ms=0.0, first_token_ms=10.0, first_sentence_ms=100.0, first_audio_ms=400.0),
            {"asr": 0.0, "llm": 0.01, "tts": 0.3},
        ),
    ],
)
def test_stages_are_the_times_between_marks(marks: Marks, expected: dict[str, float]) -> None:
    record = TurnRecord(turn_id="t", session_id="s", device_id="d", edge_id="e", outcome="answered", marks=marks)
    assert stages_of(record) == pytest.approx(expected)


def test_refusal_holds_whatever_the_fence() -> None:
    async def scene() -> None:
        async with node(max_sessions=0) as there:
            await there.tell(SessionOpened, device_id="d", fence=9)
            await asyncio.sleep(1)
            (refused,) = there.down["s"]
            assert isinstance(refused, SessionRefused)
            assert refused.fence > 9

    run(scene())


def test_session_that_cannot_begin_is_refused() -> None:
    class Full:
        def listen(self):
            raise StageError("no more streams")

    async def scene() -> None:
        async with node(detector=Full()) as there:
            await there.ask()
            await asyncio.sleep(1)
            assert there.story()[0] == "refused stage"

    run(scene())


def test_failed_turn_is_counted_by_its_code() -> None:
    async def scene() -> None:
        async with node(Engines(recognizer=ScriptedRecognizer(failures=[0]))) as there:
            await there.ask()
            await asyncio.sleep(10)
            assert there.notes.errors == [("turn", "asr-failed")]
            assert there.turns[0].code == "asr-failed"

    run(scene())


@pytest.mark.parametrize(("patterns", "words"), [((), True), (("d-*",), False), (("other-*",), True)])
def test_a_private_devices_record_leaves_without_its_words(patterns: tuple[str, ...], words: bool) -> None:
    async def scene() -> None:
        records = MemoryBus()
        async with (
            node(options=SessionOptions(private_devices=patterns), records=records) as there,
            records.subscribe(wire.turn_subject("e")) as told,
        ):
            await there.ask()
            record = decode_turn((await anext(aiter(told))).payload)
            assert (bool(record.heard), bool(record.answer)) == (words, words)
            assert record.outcome == "answered"
            assert there.turns == [], "it is told on the road to the hub alone"
            (kept,) = there.brain.records
            assert kept.heard

    run(scene())
