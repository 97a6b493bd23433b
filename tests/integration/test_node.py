"""Whole turns through a whole node: real sockets and Opus, every mode and framing, and every way a turn can go wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from coordinator.turns import Tier
from edge.gateway.framing import VERSIONS
from edge.gateway.notices import notice
from edge.seam import ListenMode
from edge.simulator.device import Device
from edge.simulator.firmware import State
from edge.simulator.turn import TurnResult
from models.errors import CloudUnreachableError, OverloadedError
from models.scripted import ScriptedCompleter, ScriptedRecognizer, ScriptedSynthesizer
from tests import virtual_time
from tests.integration.node import (
    ANSWER,
    CLOUD_FIRST,
    OPTIONS,
    SPEECH,
    Plan,
    RealNode,
    SingingSynthesizer,
    answers_numbers,
    hears_voices,
    mac,
    node,
    number_of,
    quiet_node,
    squeezed,
    voice,
)
from tests.real_time import run

MODES: tuple[ListenMode, ...] = ("auto", "manual", "realtime")
MEMORABLE = "法国的首都是哪个城市"


def singing(**options: Any) -> Plan:
    """Return a plan in which everybody hears and speaks with a voice of their own."""
    return Plan(
        recognizer=hears_voices(),
        edge=answers_numbers(first_token_s=0.05),
        synthesizer=SingingSynthesizer(),
        **options,
    )


def answers_to(number: int, turn: TurnResult) -> bool:
    """Whether words and sound of the turn are this device's, and nobody else's."""
    return (turn.heard, turn.answer, number_of(turn.pcm, turn.rate_hz)) == (
        f"{number}号的问题",
        f"给{number}号的回答。",
        number,
    )


async def ask(here: RealNode, number: int, **options: Any) -> None:
    """Hold one turn as device ``number`` and see that it was its own."""
    version = options.pop("version", 1)
    async with here.device(number, version) as device:
        turn = await device.ask(voice(number), **options)
    assert here.is_well(turn), turn
    assert answers_to(number, turn), turn


# Turns that go well


def test_every_mode_in_every_framing_is_answered_each_with_its_own_voice() -> None:
    async def work() -> None:
        async with node(singing()) as here, asyncio.TaskGroup() as tasks:
            for number, (mode, version) in enumerate((mode, version) for mode in MODES for version in VERSIONS):
                tasks.create_task(ask(here, number, mode=mode, version=version))
        assert len(here.records("answered")) == 9
        assert here.seen.violations == []

    run(work())


def test_twenty_devices_at_once_get_their_own_answers() -> None:
    async def work() -> None:
        async with node(singing()) as here, asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(ask(here, number))
        heard = {record.device_id: record.heard for record in here.records("answered")}
        assert heard == {mac(number): f"{number}号的问题" for number in range(20)}

    run(work(), timeout_s=60)


def test_three_turns_share_a_connection() -> None:
    async def work() -> None:
        async with node(singing()) as here, here.device() as device:
            for number in (3, 1, 2):
                turn = await device.ask(voice(number))
                assert here.is_well(turn), turn
                assert answers_to(number, turn), turn
        dialogue = here.plan.edge.prompts[-1].messages
        assert [message.role for message in dialogue][1:] == ["user", "assistant", "user", "assistant", "user"]
        assert here.seen.ends == ["device-gone"]

    run(work())


def test_what_was_said_with_the_wake_word_belongs_to_the_question() -> None:
    async def work() -> None:
        lengths_ms: list[int] = []
        plan = singing()
        plan.recognizer = ScriptedRecognizer(
            lambda utterance: lengths_ms.append(utterance.end_ms - utterance.start_ms) or "7号的问题"
        )
        async with node(plan) as here, here.device() as device:
            turn = await device.ask(voice(7), wake_word="你好小智", preroll=bytes(32 * 900) + voice(7))
            assert here.is_well(turn), turn
            assert turn.heard == "7号的问题"
        assert len(here.records()) == 1, "the wake word alone is no turn"
        assert lengths_ms[-1] >= 600 + 600

    run(work())


def test_words_typed_by_a_client_are_answered() -> None:
    async def work() -> None:
        async with quiet_node() as here, here.device() as (device, wire):
            await device.listen(wake_word="讲一讲大海")
            await device.until(lambda: device.firmware.log.stopped_ms is not None, 20)
            assert device.firmware.log.heard == "讲一讲大海"
            assert squeezed(wire.sent)[:5] == ["hello", "mcp", "mcp", "stt", "tts/start"]

    virtual_time.run(work())


def test_silence_is_no_turn() -> None:
    async def work() -> None:
        async with quiet_node() as here, here.device() as (device, wire):
            turn = await device.ask(bytes(32 * 3000), timeout_s=3)
            assert (turn.outcome, turn.problems) == ("unanswered", ())
            assert squeezed(wire.sent) == ["hello", "mcp", "mcp"]
        assert not here.records()

    virtual_time.run(work())


def test_an_utterance_nobody_understands_leaves_the_device_listening() -> None:
    async def work() -> None:
        plan = Plan(recognizer=ScriptedRecognizer(["", "你好"]))
        async with quiet_node(plan) as here, here.device() as (device, wire):
            turn = await device.ask(SPEECH, timeout_s=3)
            assert turn.outcome == "unanswered"
            assert squeezed(wire.sent) == ["hello", "mcp", "mcp"]
            assert (await device.ask(SPEECH)).outcome == "answered"
        assert [record.outcome for record in here.records()] == ["silent", "answered"]

    virtual_time.run(work())


@pytest.mark.parametrize(("mode", "version"), list(zip(MODES, VERSIONS, strict=True)))
def test_pacing_is_perfect_when_the_machine_is(mode: ListenMode, version: int) -> None:
    async def work() -> None:
        long = ANSWER * 3
        plan = Plan(
            edge=ScriptedCompleter(unknown=long, first_token_s=0.3, per_token_s=0.02),
            synthesizer=ScriptedSynthesizer(delay_s=0.1),
        )
        async with quiet_node(plan) as here, here.device(version=version) as (device, _):
            turn = await device.ask(SPEECH, mode=mode)
        assert (turn.outcome, turn.problems, turn.gaps_ms) == ("answered", (), ())
        assert turn.answer.replace(" ", "") == long
        assert here.seen.violations == []

    virtual_time.run(work())


# Where answers come from


def test_the_cloud_answers_through_the_bus() -> None:
    async def work() -> None:
        plan = singing(threshold=CLOUD_FIRST)
        plan.edge, plan.cloud = ScriptedCompleter(unknown="不该是我。"), answers_numbers(model="qwen-14b")
        async with node(plan) as here:
            await ask(here, 5)
        (record,) = here.records("answered")
        assert ([decision.tier for decision in record.decisions], record.model) == ([Tier.CLOUD], "qwen-14b")
        assert (plan.edge.calls.started, plan.cloud.calls.finished) == (0, 1)

    run(work())


@pytest.mark.parametrize(
    ("cloud", "reason"),
    [
        (None, "cloud-unreachable"),
        (ScriptedCompleter(fail_at_token=0, error=OverloadedError), "llm-overloaded"),
        (ScriptedCompleter(unknown=""), "llm-failed"),
        (ScriptedCompleter(first_token_s=60), "llm-deadline"),
    ],
)
def test_the_edge_answers_when_the_cloud_does_not(cloud: Any, reason: str) -> None:
    async def work() -> None:
        plan = Plan(cloud=cloud, threshold=CLOUD_FIRST)
        async with quiet_node(plan) as here, here.device() as (device, _):
            turn = await device.ask(SPEECH)
            assert (turn.outcome, turn.problems, turn.alerts) == ("answered", (), ())
        (record,) = here.records()
        assert [(decision.tier, decision.reason) for decision in record.decisions] == [
            (Tier.CLOUD, "complex"),
            (Tier.EDGE, reason),
        ]
        assert record.model == "scripted"

    virtual_time.run(work())


def test_a_question_another_device_asked_before_is_answered_from_memory() -> None:
    async def work() -> None:
        plan = Plan(recognizer=ScriptedRecognizer([MEMORABLE]))
        async with node(plan) as here:
            answers = []
            for number in (1, 2):
                async with here.device(number) as device:
                    turn = await device.ask(SPEECH)
                assert here.is_well(turn), turn
                answers.append(turn.answer)
        assert answers[0] == answers[1]
        assert plan.edge.calls.started == 1
        assert [record.decisions[-1].tier for record in here.records()] == [Tier.EDGE, Tier.CACHE]

    run(work())


# Turns that go wrong


BREAKS: dict[str, tuple[Callable[[], Plan], str, bool]] = {
    "asr": (lambda: Plan(recognizer=ScriptedRecognizer(failures={0})), "asr-failed", False),
    "edge-before-first-word": (
        lambda: Plan(edge=ScriptedCompleter(unknown=ANSWER, fail_at_token=0, failures={0})),
        "llm-failed",
        True,
    ),
    "edge-before-first-sentence": (
        lambda: Plan(edge=ScriptedCompleter(unknown=ANSWER, fail_at_token=1, failures={0})),
        "llm-failed",
        True,
    ),
    "edge-after-first-sentence": (
        lambda: Plan(edge=ScriptedCompleter(unknown=ANSWER, fail_at_token=9, failures={0})),
        "llm-failed",
        True,
    ),
    "tts-every-sentence": (lambda: Plan(synthesizer=ScriptedSynthesizer(failures={0, 1, 2})), "tts-failed", True),
}
"""How the first turn of a node breaks, the code the device is shown, and whether it was told to expect an answer by then."""


async def break_and_mend(device: Device, code: str, *, is_answering: bool, mode: ListenMode) -> TurnResult:
    """Hold the turn that fails and return the next one on the same connection."""
    broken = await device.ask(SPEECH, mode=mode)
    status, message, _ = notice(code)
    assert (broken.outcome, broken.alerts) == ("failed", (f"{status}: {message}",))
    assert (broken.started_ms is not None, broken.stopped_ms is not None) == (is_answering, is_answering)
    assert not [problem for problem in broken.problems if "gaps" not in problem], "nothing came after tts/stop"
    assert device.firmware.state is (State.IDLE if mode == "manual" else State.LISTENING)
    return await device.ask(SPEECH, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", BREAKS)
def test_a_broken_stage_is_told_and_the_device_talks_on(where: str, mode: ListenMode) -> None:
    make, code, is_answering = BREAKS[where]

    async def work() -> None:
        async with quiet_node(make()) as here, here.device() as (device, _):
            again = await break_and_mend(device, code, is_answering=is_answering, mode=mode)
            assert (again.outcome, again.problems) == ("answered", ())
        assert [(record.outcome, record.code) for record in here.records()] == [("failed", code), ("answered", "")]

    virtual_time.run(work())


@pytest.mark.parametrize("sentence", [0, 1, 2])
def test_a_sentence_that_cannot_be_spoken_is_left_out_and_the_others_are_heard(sentence: int) -> None:
    async def work() -> None:
        async with (
            quiet_node(Plan(synthesizer=ScriptedSynthesizer(failures={sentence}))) as here,
            here.device() as (device, _),
        ):
            turn = await device.ask(SPEECH)
            assert (turn.outcome, turn.alerts) == ("answered", ())
        (record,) = here.records()
        spoken = [part for number, part in enumerate(re.findall("[^。]+。", ANSWER)) if number != sentence]
        assert (record.outcome, record.answer) == ("answered", "".join(spoken))

    virtual_time.run(work())


@pytest.mark.parametrize(("token", "spoken"), [(5, "好的。"), (2, "")])
def test_a_cloud_that_dies_in_mid_answer_is_finished_by_the_edge(token: int, spoken: str) -> None:
    async def work() -> None:
        plan = Plan(
            cloud=ScriptedCompleter(unknown=ANSWER, fail_at_token=token, error=CloudUnreachableError),
            edge=ScriptedCompleter(unknown="剩下的我来说。"),
            threshold=CLOUD_FIRST,
        )
        async with quiet_node(plan) as here, here.device() as (device, _):
            turn = await device.ask(SPEECH)
            assert (turn.outcome, turn.alerts) == ("answered", ())
        (record,) = here.records()
        assert record.answer == spoken + "剩下的我来说。"
        assert [decision.tier for decision in record.decisions] == [Tier.CLOUD, Tier.EDGE]

    virtual_time.run(work())


def test_broken_stages_are_told_on_real_sockets_too() -> None:
    async def one(where: str) -> None:
        make, code, is_answering = BREAKS[where]
        async with node(make()) as here, here.device() as device:
            again = await break_and_mend(device, code, is_answering=is_answering, mode="auto")
            assert here.is_well(again), (where, again)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            for where in ("asr", "edge-after-first-sentence", "tts-every-sentence"):
                tasks.create_task(one(where))

    run(work(), timeout_s=60)


def test_a_model_that_thinks_for_ever_is_given_up() -> None:
    async def work() -> None:
        plan = Plan(edge=ScriptedCompleter(unknown=ANSWER, first_token_s=3600))
        async with quiet_node(plan) as here, here.device() as (device, _):
            turn = await device.ask(SPEECH)
            assert turn.outcome == "failed"
            assert turn.alerts
            assert turn.stopped_ms is not None
            assert turn.stopped_ms < (OPTIONS.budget_s + 5) * 1000
            assert not here.work

    virtual_time.run(work())


def test_a_device_that_is_gone_leaves_no_turn_running() -> None:
    async def work() -> None:
        plan = Plan(edge=ScriptedCompleter(unknown=ANSWER * 9, first_token_s=0.05, per_token_s=0.05))
        async with node(plan) as here:
            async with here.device() as device:
                await device.listen()
                device.microphone.say(SPEECH)
                await device.until(lambda: device.firmware.playback.sound.frames > 2, 20)
                assert here.work
            await here.until(lambda: not here.work and not here.gateway.active_devices and not here.brain.sessions)
        (record,) = here.records()
        assert (record.outcome, plan.edge.calls.cancelled) == ("interrupted", 1)

    run(work())


def test_a_device_that_comes_again_takes_its_own_place() -> None:
    async def work() -> None:
        async with node() as here, here.device(1) as old:
            await old.listen()
            async with here.device(1) as new:
                turn = await new.ask(SPEECH, interrupt_after_ms=100)
                assert turn.outcome == "interrupted"
                assert old.is_closed
        assert sorted(here.seen.ends) == ["device-gone", "replaced"]

    run(work())
