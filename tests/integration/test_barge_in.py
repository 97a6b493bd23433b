"""Interrupted anywhere, a turn leaves nothing behind: no task, no slot, no request upstream, no late word at the device."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from cloud.upstream import OpenAIUpstream
from coordinator.memory_bus import MemoryBus
from edge.seam import ListenMode
from edge.simulator.device import Device
from edge.simulator.firmware import State
from edge.simulator.turn import TurnLog
from models.prompts import Prompt
from models.scripted import ScriptedCompleter, ScriptedRecognizer, ScriptedSynthesizer, tone
from tests import virtual_time
from tests.integration.node import (
    ANSWER,
    CLOUD_FIRST,
    EDGE_ONLY,
    SPEECH,
    LaggingBus,
    Node,
    Plan,
    RealNode,
    Wire,
    node,
    quiet_node,
    squeezed,
)
from tests.real_time import run

_log = structlog.get_logger()

SHORT, LONG = "好的。", ANSWER
PROMPT_S = 0.1
"""From the interruption to the end of all work, and to ``tts/stop``: the promise of the platform."""


class Says:
    """What the models answer from now on."""

    text = LONG

    def __call__(self, _prompt: Prompt) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Moment:
    """A node in the middle of a turn."""

    here: Node
    device: Device
    wire: Wire
    says: Says = field(default_factory=Says)

    @property
    def frames(self) -> int:
        """Packets the device has begun to play."""
        return self.device.firmware.playback.sound.frames


@dataclass(frozen=True, slots=True)
class Point:
    """Where a turn is interrupted: once ``is_there`` holds, and ``after_s`` later."""

    is_there: Callable[[Moment], object]
    after_s: float = 0.0
    edge: dict[str, Any] = field(default_factory=dict)
    cloud: dict[str, Any] | None = None
    recognizer: dict[str, Any] = field(default_factory=dict)
    synthesizer: dict[str, Any] = field(default_factory=dict)
    is_speaking: bool = False
    """Whether the device's loudspeaker is open at that point."""

    def plan(self, says: Says | None = None) -> Plan:
        """Return the plan of a node whose turns pass this point slowly."""
        answers = says or Says()
        return Plan(
            recognizer=ScriptedRecognizer(**{"delay_s": 0.05, **self.recognizer}),
            edge=ScriptedCompleter(answers, **{"first_token_s": 0.05, **self.edge}),
            cloud=None if self.cloud is None else ScriptedCompleter(answers, **self.cloud),
            synthesizer=ScriptedSynthesizer(**{"delay_s": 0.05, "ms_per_character": 100, **self.synthesizer}),
            threshold=EDGE_ONLY if self.cloud is None else CLOUD_FIRST,
        )


def calls(moment: Moment, part: str) -> Any:
    return getattr(moment.here.plan, part).calls


def is_opening(moment: Moment) -> bool:
    return moment.device.firmware.log.started_ms is not None


LAST_MS = 1_500
"""Of the 1.8 s that LONG takes to say."""

POINTS = {
    "asr": Point(
        lambda at: at.here.brain.turns and calls(at, "recognizer").running, recognizer={"delay_s": 2.0}, after_s=0.5
    ),
    "first-word-on-the-edge": Point(
        lambda at: calls(at, "edge").running, after_s=1.0, edge={"first_token_s": 3.0}, is_speaking=True
    ),
    "generation-on-the-edge": Point(
        lambda at: calls(at, "edge").running, after_s=0.5, edge={"per_token_s": 0.4}, is_speaking=True
    ),
    "request-just-sent-to-the-cloud": Point(is_opening, cloud={"first_token_s": 1.0}, is_speaking=True),
    "first-word-in-the-cloud": Point(
        lambda at: at.here.worker and at.here.worker.running,
        after_s=1.0,
        cloud={"first_token_s": 3.0},
        is_speaking=True,
    ),
    "generation-in-the-cloud": Point(
        lambda at: calls(at, "cloud").running, after_s=0.5, cloud={"per_token_s": 0.4}, is_speaking=True
    ),
    "edge-instead-of-the-cloud": Point(
        lambda at: calls(at, "edge").running,
        after_s=0.2,
        cloud={"first_token_s": 60.0},
        edge={"first_token_s": 1.0},
        is_speaking=True,
    ),
    "synthesis-of-the-first-sentence": Point(
        lambda at: calls(at, "synthesizer").running, after_s=0.2, synthesizer={"delay_s": 2.0}, is_speaking=True
    ),
    "speech-while-generating": Point(
        lambda at: at.frames > 3 and calls(at, "edge").running, edge={"per_token_s": 0.1}, is_speaking=True
    ),
    "speech-while-the-cloud-generates": Point(
        lambda at: at.frames > 3 and calls(at, "cloud").running, cloud={"per_token_s": 0.1}, is_speaking=True
    ),
    "synthesis-while-speaking": Point(
        lambda at: at.frames > 1 and calls(at, "synthesizer").running,
        synthesizer={"delay_s": 0.5},
        is_speaking=True,
    ),
    "speech-all-generated": Point(
        lambda at: at.frames > 3 and not calls(at, "synthesizer").running, after_s=0.5, is_speaking=True
    ),
    "last-packets": Point(lambda at: at.frames * 60 >= LAST_MS and at.here.brain.turns, is_speaking=True),
}
"""Thirteen in all; the waiting for a slot, the stuck writer and the cached answer have tests of their own."""


Interrupt = Callable[[Moment], Awaitable[None]]


async def by_button(moment: Moment) -> None:
    interruption = await moment.device.interrupt()
    assert interruption.stop_ms is not None
    assert interruption.stop_ms <= PROMPT_S * 1000
    assert (interruption.packets_before_stop, interruption.packets_after_stop) == (0, 0)


async def by_wake_word(moment: Moment) -> None:
    interruption = await moment.device.interrupt(by_wake_word=True)
    assert interruption.stop_ms is not None
    assert interruption.stop_ms <= PROMPT_S * 1000


@asynccontextmanager
async def in_a_turn(point: Point, mode: ListenMode = "auto") -> AsyncGenerator[tuple[Moment, asyncio.Task[Any]], None]:
    """Give a node whose device is at ``point`` of a turn, and the task that holds the turn."""
    says = Says()
    async with quiet_node(point.plan(says)) as here, here.device() as (device, wire):
        moment = Moment(here, device, wire, says)
        turn = asyncio.create_task(device.ask(SPEECH, mode=mode), name="asking")
        try:
            await here.until(lambda: point.is_there(moment) or turn.done(), 60)
            await asyncio.sleep(point.after_s)
            assert not turn.done(), "the turn never got there"
            assert (device.firmware.state == "speaking") == point.is_speaking
            yield moment, turn
        finally:
            turn.cancel()
            await asyncio.wait([turn])


def tasks() -> set[asyncio.Task[Any]]:
    """Return every task that is not a test's own."""
    return {task for task in asyncio.all_tasks() if task.get_name() != "asking"}


def names(left: set[asyncio.Task[Any]]) -> list[str]:
    return sorted(task.get_name() for task in left)


async def is_quiet_at_once(here: Node) -> None:
    """All work of the turn ends within the promised time."""
    await here.until(lambda: not here.work, PROMPT_S)


@pytest.mark.parametrize(
    ("mode", "interrupt"),
    [("auto", by_button), ("manual", by_button), ("realtime", by_button), ("auto", by_wake_word)],
)
@pytest.mark.parametrize("point", POINTS)
def test_an_interrupted_turn_ends_everywhere_at_once_and_the_next_one_goes_well(
    point: str, mode: ListenMode, interrupt: Interrupt
) -> None:
    async def work() -> None:
        where = POINTS[point]
        async with quiet_node(where.plan()) as idle, idle.device():
            await idle.until(lambda: idle.brain.sessions)
            usual = len(tasks())
        async with in_a_turn(where, mode) as (moment, turn):
            here, device, wire = moment.here, moment.device, moment.wire
            said = len(wire.sent)
            await interrupt(moment)
            await is_quiet_at_once(here)
            assert len(tasks()) == usual, names(tasks())
            cut = await turn
            assert cut.outcome == "interrupted"
            assert squeezed(wire.sent[said:]) == ["tts/stop"], "nothing of the turn comes after"
            moment.says.text = SHORT
            again = await device.ask(SPEECH, mode=mode)
            assert (again.outcome, again.problems, again.answer) == ("answered", (), SHORT), again
        assert [record.outcome for record in here.records()] == ["interrupted", "answered"]

    virtual_time.run(work())


@pytest.mark.parametrize("point", POINTS)
def test_a_device_that_hangs_up_ends_its_turn_everywhere_at_once(point: str) -> None:
    async def work() -> None:
        async with in_a_turn(POINTS[point]) as (moment, turn):
            moment.wire.up.put_nowait(None)
            await is_quiet_at_once(moment.here)
            await moment.here.until(lambda: not moment.here.brain.sessions, PROMPT_S)
            assert (await turn).outcome == "closed"
        # What is on its way to the loudspeaker when the line is cut counts as heard.
        outcome = "answered" if point == "last-packets" else "interrupted"
        assert [record.outcome for record in moment.here.records()] == [outcome]

    virtual_time.run(work())


@pytest.mark.parametrize(
    "point", [name for name, point in POINTS.items() if point.is_speaking and name != "last-packets"]
)
def test_a_voice_interrupts_an_answer_in_realtime_mode_and_is_answered_itself(point: str) -> None:
    async def work() -> None:
        async with in_a_turn(POINTS[point], "realtime") as (moment, turn):
            here, device = moment.here, moment.device
            device.microphone.say(SPEECH)
            await here.until(lambda: here.records("interrupted"), 2.0)
            moment.says.text = SHORT
            await turn
            await here.until(lambda: here.records("answered"), 20)
            assert device.firmware.log.heard == "你好"
            assert device.firmware.log.packets_after_stop == 0
        assert [record.outcome for record in here.records()] == ["interrupted", "answered"]

    virtual_time.run(work())


# What is said over an answer in realtime mode

STORY = "".join(f"第{number}句话说得很长很长很长。" for number in "一二三四五六七八九")
SHORT_WORD = tone(240, 16_000)


def over(word: str, **device_options: Any) -> Plan:
    """Return a node whose person asks for a long story and then says ``word`` over it."""
    texts = ["讲个故事", word]
    return Plan(
        recognizer=ScriptedRecognizer(texts, delay_s=0.05),
        edge=ScriptedCompleter(lambda prompt: STORY if prompt.question == "讲个故事" else SHORT),
        synthesizer=ScriptedSynthesizer(delay_s=0.05, ms_per_character=60),
        **device_options,
    )


@asynccontextmanager
async def in_a_story(plan: Plan) -> AsyncGenerator[tuple[Moment, asyncio.Task[Any]], None]:
    """Give a node whose device plays a long answer in realtime mode."""
    async with quiet_node(plan) as here, here.device() as (device, wire):
        turn = asyncio.create_task(device.ask(SPEECH, mode="realtime", timeout_s=60), name="asking")
        try:
            moment = Moment(here, device, wire)
            await here.until(lambda: moment.frames > 10, 20)
            yield moment, turn
        finally:
            turn.cancel()
            await asyncio.wait([turn])


@pytest.mark.parametrize("word", ["嗯。", "Uh-huh.", ""])
def test_a_backchannel_makes_the_answer_wait_and_go_on_with_every_packet_of_it(word: str) -> None:
    async def work() -> None:
        quiet = over(word)
        async with in_a_story(quiet) as (moment, turn):
            alone = await turn
        async with in_a_story(over(word)) as (moment, turn):
            here, device = moment.here, moment.device
            device.microphone.say(SHORT_WORD)
            await asyncio.sleep(0.45)
            before = moment.frames
            await asyncio.sleep(0.06)
            held = moment.frames - before
            told = await turn
            assert held <= 1
            assert (told.outcome, told.sentences) == ("answered", alone.sentences)
            assert told.played_ms == alone.played_ms, "nothing of the answer was lost or said twice"
            assert device.firmware.log.packets_after_stop == 0
            assert quiet.edge.calls.started == here.plan.edge.calls.started == 1
        assert [record.outcome for record in here.records()] == ["answered"]
        assert here.records()[0].answer == STORY

    virtual_time.run(work())


@pytest.mark.parametrize("word", ["停！", "等一下", "Stop."])
def test_a_stop_word_ends_the_answer_and_is_not_answered(word: str) -> None:
    async def work() -> None:
        async with in_a_story(over(word)) as (moment, turn):
            here, device = moment.here, moment.device
            device.microphone.say(SHORT_WORD)
            await here.until(lambda: device.firmware.state is State.LISTENING, 1.0)
            told = await turn
            await is_quiet_at_once(here)
            await asyncio.sleep(5)
            first, *rest = here.records()
            assert (first.outcome, [record.outcome for record in rest]) == ("interrupted", ["silent"])
            assert STORY.startswith(first.answer)
            said_ms = len(first.answer) * 12 * 60 / 13  # twelve characters and a full stop take 720 ms
            assert told.played_ms - 120 <= said_ms <= told.played_ms, "just what was heard is remembered"
            assert here.plan.edge.calls.started == 1

    virtual_time.run(work())


@pytest.mark.parametrize("lag_s", [0.0, 0.05])
def test_words_over_an_answer_are_the_next_question(lag_s: float) -> None:
    async def work() -> None:
        bus = LaggingBus(lag_s, random.Random(1)) if lag_s else MemoryBus()
        async with in_a_story(over("换一首", bus=bus)) as (moment, turn):
            here, device = moment.here, moment.device
            device.microphone.say(SHORT_WORD)
            await here.until(lambda: len(here.records()) == 2, 10)
            await turn
            await asyncio.sleep(1)
            assert [record.outcome for record in here.records()] == ["interrupted", "answered"]
            assert here.records()[1].heard == "换一首"
            assert device.firmware.log.packets_after_stop == 0

    virtual_time.run(work())


def test_an_abort_while_the_answer_waits_ends_it_as_ever() -> None:
    async def work() -> None:
        plan = over("嗯")
        plan.recognizer = ScriptedRecognizer(["讲个故事", "嗯"], delay_s=0.5)
        async with in_a_story(plan) as (moment, turn):
            moment.device.microphone.say(SHORT_WORD)
            await asyncio.sleep(0.6)
            await by_button(moment)
            await is_quiet_at_once(moment.here)
            assert (await turn).outcome == "interrupted"
            await asyncio.sleep(5)
            assert [record.outcome for record in moment.here.records()] == ["interrupted"]

    virtual_time.run(work())


def test_a_backchannel_on_real_sockets_lets_the_answer_go_on() -> None:
    async def work() -> None:
        async with node(over("嗯")) as here, here.device() as device:
            turn = asyncio.create_task(device.ask(SPEECH, mode="realtime", timeout_s=60), name="asking")
            await device.until(lambda: device.firmware.playback.sound.frames > 10, 20)
            device.microphone.say(SHORT_WORD)
            assert (await turn).outcome == "answered"
            await here.until(lambda: here.records("answered"), 5)
            assert here.plan.recognizer.calls.started == 2
        assert [record.outcome for record in here.records()] == ["answered"]

    run(work())


def test_a_turn_that_waits_for_a_slot_leaves_the_line() -> None:
    async def work() -> None:
        plan = Point(lambda _: True, edge={"per_token_s": 0.5}).plan()
        plan.slots = 1
        async with quiet_node(plan) as here, here.device(1) as (first, _), here.device(2) as (second, wire):
            llm = here.engines.slots[1]
            one = asyncio.create_task(first.ask(SPEECH, timeout_s=120))
            await here.until(lambda: llm.busy, 10)
            two = asyncio.create_task(second.ask(SPEECH))
            await here.until(lambda: llm.waiting, 10)
            said = len(wire.sent)
            await by_button(Moment(here, second, wire))
            await here.until(lambda: not llm.waiting and here.brain.turns == 1, PROMPT_S)
            assert (await two).outcome == "interrupted"
            assert squeezed(wire.sent[said:]) == ["tts/stop"]
            assert llm.busy == 1, "the other device's turn goes on"
            assert (await one).outcome == "answered"

    virtual_time.run(work())


def test_a_remembered_answer_is_interrupted_as_any_other() -> None:
    async def work() -> None:
        plan = Point(lambda _: True, recognizer={"texts": ["法国的首都是哪个城市"]}).plan()
        async with quiet_node(plan) as here:
            async with here.device(2) as (first, _):
                assert (await first.ask(SPEECH)).outcome == "answered"
            async with here.device() as (device, wire):
                turn = asyncio.create_task(device.ask(SPEECH))
                await here.until(lambda: device.firmware.playback.sound.frames > 3, 20)
                said = len(wire.sent)
                await by_button(Moment(here, device, wire))
                await is_quiet_at_once(here)
                assert (await turn).outcome == "interrupted"
                assert squeezed(wire.sent[said:]) == ["tts/stop"]
        assert plan.edge.calls.started == 1

    virtual_time.run(work())


# Before the end of the question is sure


@pytest.mark.parametrize("mode", ["auto", "realtime"])
def test_an_interruption_while_silence_is_awaited_withdraws_the_question(mode: ListenMode) -> None:
    async def work() -> None:
        early = Point(lambda at: calls(at, "recognizer").running and not at.here.brain.turns, recognizer={"delay_s": 2})
        async with in_a_turn(early, mode) as (moment, turn):
            said = len(moment.wire.sent)
            await by_button(moment)
            await is_quiet_at_once(moment.here)
            assert (await turn).outcome == "interrupted"
            assert squeezed(moment.wire.sent[said:]) == ["tts/stop"]
            again = await moment.device.ask(SPEECH, mode=mode)
            assert again.outcome == "answered"
        assert len(moment.here.records()) == 1

    virtual_time.run(work())


@pytest.mark.parametrize("mode", ["auto", "manual", "realtime"])
def test_an_interruption_that_crosses_the_transcript_leaves_the_device_heard(mode: ListenMode) -> None:
    async def work() -> None:
        plan = Plan(bus=LaggingBus(0.3, random.Random(3)))
        async with quiet_node(plan) as here, here.device() as (device, wire):
            turn = asyncio.create_task(device.ask(SPEECH, mode=mode))
            await here.until(lambda: here.brain.turns and plan.recognizer.calls.finished, 10)
            assert not device.firmware.log.heard, "it is on its way"
            said = len(wire.sent)
            await by_button(Moment(here, device, wire))
            assert (await turn).outcome == "interrupted"
            assert squeezed(wire.sent[said:]) == ["tts/stop"]
            again = await device.ask(SPEECH, mode=mode, timeout_s=10)
            assert again.outcome == "answered"

    virtual_time.run(work())


# A stuck writer


def test_work_ends_at_once_though_the_writer_is_stuck_and_nothing_stale_follows() -> None:
    async def work() -> None:
        async with in_a_turn(POINTS["speech-while-generating"]) as (moment, turn):
            here, device, wire = moment.here, moment.device, moment.wire
            wire.is_read.clear()
            await asyncio.sleep(1.0)
            said = len(wire.sent)
            device.firmware.interrupt(device.now_ms)
            await device._settle()
            await is_quiet_at_once(here)
            await asyncio.sleep(1.0)
            wire.is_read.set()
            cut = await turn
            assert cut.outcome == "interrupted"
            stuck, stop = squeezed(wire.sent[said:])
            assert (stuck in {"audio", "tts/sentence_start"}, stop) == (True, "tts/stop"), (
                "what was stuck, then the stop"
            )
            moment.says.text = SHORT
            assert (await device.ask(SPEECH)).answer == SHORT

    virtual_time.run(work())


def test_a_device_that_never_reads_again_is_dropped_with_its_turn() -> None:
    async def work() -> None:
        async with in_a_turn(POINTS["speech-while-generating"]) as (moment, turn):
            moment.wire.is_read.clear()
            await moment.here.until(lambda: not moment.here.brain.sessions and not moment.here.work, 10)
            assert (await turn).outcome == "closed"
        assert moment.here.seen.ends == ["device-too-slow"]

    virtual_time.run(work())


# Anywhere


SPOKEN_S, ENDPOINT_S = 0.73, 0.97
"""After ``listen``: 120 ms until the microphone is warm and 600 ms of speech; then 240 ms of silence."""
KINDS = ("button", "button", "wake word", "hang up")


@dataclass(frozen=True, slots=True)
class Chance:
    """One interruption that nobody thought of."""

    at_s: float
    kind: str
    mode: ListenMode
    is_cloud: bool
    edge: dict[str, float]
    asr_s: float
    tts_s: float
    lag_s: float
    seed: int

    @classmethod
    def draw(cls, dice: random.Random) -> Chance:
        """Return an interruption somewhere from the last word of a question to past the end of its answer."""
        return cls(
            at_s=SPOKEN_S + dice.triangular(0.0, 3.0, 0.0),
            kind=dice.choice(KINDS),
            mode=dice.choice(["auto", "manual", "realtime"]),
            is_cloud=dice.random() < 0.5,
            edge={"first_token_s": dice.choice([0.0, 0.2]), "per_token_s": dice.choice([0.0, 0.03, 0.1])},
            asr_s=dice.choice([0.0, 0.05, 0.4]),
            tts_s=dice.choice([0.0, 0.05, 0.3]),
            lag_s=dice.choice([0.0, 0.002, 0.015]),
            seed=dice.randrange(2**32),
        )

    def plan(self, says: Says) -> Plan:
        """Return a node for it."""
        return Plan(
            recognizer=ScriptedRecognizer(delay_s=self.asr_s),
            edge=ScriptedCompleter(says, **self.edge),
            cloud=ScriptedCompleter(says, **self.edge),
            synthesizer=ScriptedSynthesizer(delay_s=self.tts_s, ms_per_character=100),
            threshold=CLOUD_FIRST if self.is_cloud else EDGE_ONLY,
            bus=LaggingBus(self.lag_s, random.Random(self.seed)) if self.lag_s else MemoryBus(),
        )


async def interrupted_by_chance(chance: Chance) -> None:
    says = Says()
    async with quiet_node(chance.plan(says)) as here, here.device() as (device, wire):
        await here.until(lambda: here.brain.sessions)
        await device.listen(chance.mode)
        usual = len(tasks())
        turn = asyncio.create_task(device.ask(SPEECH, mode=chance.mode, timeout_s=20), name="asking")
        await asyncio.sleep(chance.at_s)
        if chance.kind == "hang up":
            wire.up.put_nowait(None)
            await here.until(lambda: not here.work and not here.brain.sessions, PROMPT_S)
            await turn
            return
        said = len(wire.sent)
        is_over = turn.done()
        # Of a wake word that comes while the device listens the simulated firmware tells only half: the abort, and no listen/start.
        is_woken = chance.kind == "wake word" and device.firmware.state is State.SPEAKING
        await (by_wake_word if is_woken else by_button)(Moment(here, device, wire))
        await is_quiet_at_once(here)
        assert len(tasks()) == usual, names(tasks())
        await turn
        if is_over:
            device.firmware.log = TurnLog()  # the interruption of nothing is no part of the next turn
        assert set(squeezed(wire.sent[said:])) == {"tts/stop"}
        says.text = SHORT
        again = await device.ask(SPEECH, mode=chance.mode)
        assert (again.outcome, again.answer) == ("answered", SHORT), again
        assert not [problem for problem in again.problems if "gaps" not in problem], again.problems


@pytest.mark.parametrize("seed", range(4))
def test_a_conversation_full_of_interruptions_goes_on(seed: int) -> None:
    async def work() -> None:
        dice, says = random.Random(seed), Says()
        chance = Chance.draw(dice)
        mode: ListenMode = dice.choice(["auto", "manual", "realtime"])
        async with quiet_node(chance.plan(says)) as here, here.device() as (device, wire):
            for _ in range(20):
                says.text = LONG
                turn = asyncio.create_task(device.ask(SPEECH, mode=mode), name="asking")
                await asyncio.sleep(ENDPOINT_S + dice.uniform(0, 1.0))
                for _ in range(dice.choice([1, 1, 3])):
                    await by_button(Moment(here, device, wire))
                await is_quiet_at_once(here)
                assert (await turn).outcome == "interrupted"
            says.text = SHORT
            assert (await device.ask(SPEECH, mode=mode)).answer == SHORT
        outcomes = [record.outcome for record in here.records()]
        assert outcomes == ["interrupted"] * 20 + ["answered"]

    virtual_time.run(work())


@pytest.mark.parametrize("seed", range(8))
def test_two_hundred_interruptions_at_random_leave_nothing(seed: int) -> None:
    dice = random.Random(seed)
    for number in range(25):
        chance = Chance.draw(dice)
        try:
            virtual_time.run(interrupted_by_chance(chance))
        except BaseException as error:
            error.add_note(f"number {number} of seed {seed}: {chance}")
            raise


async def talked_over_by_chance(dice: random.Random) -> None:
    """Say this and that over answers, interrupt some, and see that the device is answered all the same."""
    asr_s, words = dice.choice([0.0, 0.1, 0.7, 3.0]), ["嗯", "", "停", "不对", "好的。", "uh-huh"]
    plan = Plan(
        recognizer=ScriptedRecognizer(lambda _: dice.choice(words), delay_s=asr_s),
        edge=ScriptedCompleter(lambda _: STORY, per_token_s=dice.choice([0.0, 0.03])),
        synthesizer=ScriptedSynthesizer(delay_s=0.05, ms_per_character=60),
        bus=LaggingBus(0.01, random.Random(dice.randrange(2**32))),
    )
    async with quiet_node(plan) as here, here.device() as (device, wire):
        await device.listen("realtime")
        for _ in range(12):
            device.microphone.say(tone(dice.choice([60, 120, 240, 400, 700, 1500]), 16_000))
            await asyncio.sleep(dice.uniform(0, 3))
            if dice.random() < 0.2:
                await by_button(Moment(here, device, wire))
        words[:] = ["停"]
        device.microphone.say(SHORT_WORD)
        await asyncio.sleep(25)
        assert not here.work, "nothing is held or waits for ever"
        words[:] = ["讲个故事"]
        device.firmware.log = TurnLog()
        told = await device.ask(SPEECH, mode="realtime", timeout_s=60)
        assert (told.outcome, "".join(told.sentences)) == ("answered", STORY)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_said_over_answers_no_session_gets_stuck(seed: int) -> None:
    for number in range(10):
        try:
            virtual_time.run(talked_over_by_chance(random.Random(100 * seed + number)))
        except BaseException as error:
            error.add_note(f"number {number} of seed {seed}")
            raise


# On real sockets, up to the server of the model


class ModelServer:
    """An OpenAI-compatible server that streams for ever, and sees its clients go."""

    def __init__(self, first_token_s: float) -> None:
        self.asked = 0
        self.open = 0
        self.first_token_s = first_token_s

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[str, None]:
        """Serve on a free port and give the base address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/chat/completions ")
        size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(size.partition(b":")[2]))
        self.asked += 1
        self.open += 1
        writing = asyncio.create_task(self._stream(writer), name="asking")
        await reader.read()  # returns when the client hangs up
        self.open -= 1
        writing.cancel()
        await asyncio.wait([writing])
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(self.first_token_s)
        while True:
            writer.write('data: {"choices":[{"delta":{"content":"很好很好。"}}]}\n\n'.encode())
            await asyncio.sleep(0.05)


async def cut_off(first_token_s: float, how: str) -> None:
    """Interrupt a turn while its request waits in, or streams from, the model server."""
    models = ModelServer(first_token_s)
    async with models.serving() as url, OpenAIUpstream.connect(url, "qwen") as upstream:
        plan = Plan(cloud=upstream, threshold=CLOUD_FIRST)
        async with node(plan) as here:
            async with here.device() as device:
                await device.listen()
                device.microphone.say(SPEECH)
                await here.until(lambda: models.open, 10)
                if not first_token_s:
                    await device.until(lambda: device.firmware.playback.sound.frames > 2, 10)
                if how == "button":
                    assert (await device.interrupt()).stop_ms is not None
                    await here.until(lambda: not models.open and not here.work)
            await here.until(lambda: not models.open and not here.work)
        assert models.asked == 1
        assert plan.edge.calls.started == 0, "nobody asks the edge for what nobody waits for"


def test_the_request_to_the_model_server_is_cut_when_the_device_interrupts() -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            for first_token_s in (0.0, 60.0):
                for how in ("button", "hang up"):
                    tasks.create_task(cut_off(first_token_s, how), name=f"{how} after {first_token_s:g} s")

    run(work())


def test_answers_are_interrupted_on_real_sockets() -> None:
    async def one(here: RealNode, number: int, after_ms: float, by: str) -> None:
        async with here.device(number) as device:
            if by == "button":
                turn = await device.ask(SPEECH, interrupt_after_ms=after_ms)
            else:
                asking = asyncio.create_task(device.ask(SPEECH))
                await device.until(lambda: device.firmware.playback.sound.frames * 60 > after_ms, 20)
                await device.interrupt(by_wake_word=True)
                turn = await asking
            assert turn.outcome == "interrupted"
            assert turn.interruption is not None
            _log.info("stopped", by=by, after_ms=after_ms, stop_ms=turn.interruption.stop_ms)
            assert turn.interruption.stop_ms is not None
            assert turn.interruption.packets_after_stop == 0
            again = await device.ask(SPEECH, interrupt_after_ms=60)
            assert again.outcome == "interrupted"

    async def all_of(threshold: float) -> None:
        says = Says()
        says.text = LONG * 3
        plan = Plan(
            edge=ScriptedCompleter(says, per_token_s=0.02),
            cloud=ScriptedCompleter(says, per_token_s=0.02),
            synthesizer=ScriptedSynthesizer(delay_s=0.05),
            threshold=threshold,
        )
        async with node(plan) as here, asyncio.TaskGroup() as tasks:
            for number, (after_ms, by) in enumerate(
                [(100, "button"), (500, "button"), (100, "wake word"), (800, "wake word")]
            ):
                tasks.create_task(one(here, number, after_ms, by))
        assert [record.outcome for record in here.records()] == ["interrupted"] * 8

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            for threshold in (EDGE_ONLY, CLOUD_FIRST):
                tasks.create_task(all_of(threshold))

    run(work())
