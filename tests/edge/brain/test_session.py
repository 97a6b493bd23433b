from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.brain.barge_in import BargeInRules
from edge.brain.groups import DeviceGroup
from edge.brain.segmenter import Endpointing
from edge.brain.session import SessionOptions
from edge.seam import (
    Aborted,
    AudioUp,
    Heard,
    ListenStopped,
    Played,
    SessionClosed,
    SpeechDown,
    SpeechHeld,
    SpeechResumed,
    TurnEnded,
    WakeWordHeard,
)
from models.errors import DeadlineError, StageError
from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer
from models.speech import Utterance
from tests.edge.brain.talking import ANSWER, SPOKEN, Engines, Talk, packets, talk
from tests.virtual_time import run

FIRST, SECOND, THIRD = "好的。", "今天天气很好很好。", "我们一起去公园吧。"
ANSWERED = [
    "heard 你好", "felt neutral", f"sentence {FIRST}", "speech", f"sentence {SECOND}", "speech", f"sentence {THIRD}", "speech",
    "answered",
]  # fmt: skip


def quick(**changes: Any) -> Engines:
    engines = {
        "recognizer": ScriptedRecognizer(),
        "completer": ScriptedCompleter(unknown=ANSWER),
        "synthesizer": ScriptedSynthesizer(),
    }
    return Engines(**(engines | changes))


def one_turn(engines: Engines, options: SessionOptions | None = None) -> Talk:
    async def scene() -> Talk:
        async with talk(engines, options) as talking:
            talking.listen()
            talking.say()
            await talking.until_records()
            return talking

    return run(scene())


@pytest.mark.parametrize(
    ("engines", "expected", "outcome", "code", "answer"),
    [
        (quick(), ANSWERED, "answered", "", FIRST + SECOND + THIRD),
        (quick(recognizer=ScriptedRecognizer([""])), ["silent"], "silent", "", ""),
        (quick(recognizer=ScriptedRecognizer(failures=[0])), ["failed asr-failed"], "failed", "asr-failed", ""),
        (
            quick(completer=ScriptedCompleter(fail_at_token=0)),
            ["heard 你好", "failed llm-failed"], "failed", "llm-failed", "",
        ),
        (
            quick(completer=ScriptedCompleter(unknown=ANSWER, fail_at_token=5, error=DeadlineError)),
            ["heard 你好", "felt neutral", f"sentence {FIRST}", "speech", "failed llm-deadline"], "failed", "llm-deadline", "",
        ),
        (
            quick(synthesizer=ScriptedSynthesizer(failures=[0])),
            ["heard 你好", "felt neutral", f"sentence {FIRST}", f"sentence {SECOND}", "speech", f"sentence {THIRD}", "speech",
             "answered"], "answered", "", SECOND + THIRD,
        ),
        (
            quick(synthesizer=ScriptedSynthesizer(failures=[1])),
            [*ANSWERED[:4], f"sentence {SECOND}", f"sentence {THIRD}", "speech", "answered"], "answered", "", FIRST + THIRD,
        ),
        (
            quick(synthesizer=ScriptedSynthesizer(failures=range(3))),
            ["heard 你好", "felt neutral", f"sentence {FIRST}", f"sentence {SECOND}", f"sentence {THIRD}", "failed tts-failed"],
            "failed", "tts-failed", "",
        ),
    ],
    ids=["answered", "silent", "asr-failed", "llm-failed-before-first-word", "llm-failed-after", "tts-failed", "tts-failed-later", "tts-failed-always"],
)  # fmt: skip
def test_turn_tells_its_story(engines: Engines, expected: list[str], outcome: str, code: str, answer: str) -> None:
    talking = one_turn(engines)
    assert talking.story == expected
    (record,) = talking.records
    assert (record.outcome, record.code, record.answer) == (outcome, code, answer)
    assert (record.session_id, record.device_id, record.edge_id) == ("s", "d", "e")


def test_record_of_an_answered_turn_holds_words_model_and_marks() -> None:
    (record,) = one_turn(Engines()).records
    assert (record.heard, record.language, record.model) == ("你好", "zh", "scripted")
    marks = record.marks
    assert marks.endpoint_wait_ms == 600
    assert marks.transcript_ms == pytest.approx(500)
    assert marks.first_token_ms == pytest.approx(1500)
    assert marks.first_sentence_ms == pytest.approx(1700)
    assert marks.first_audio_ms == pytest.approx(2000)


ABORT_AT_S = {
    "before-asr": 0.0,
    "during-asr": 0.25,
    "as-asr-ends": 0.5,
    "waiting-for-first-token": 1.0,
    "mid-generation": 1.6,
    "first-synthesis": 1.8,
    "first-speech": 2.0,
    "between-sentences": 2.6,
    "second-synthesis": 2.9,
    "last-synthesis": 3.9,
    "all-sent": 4.2,
    "playing": 6.0,
}


@pytest.mark.parametrize("at_s", ABORT_AT_S.values(), ids=ABORT_AT_S.keys())
@pytest.mark.parametrize("times", [1, 2])
def test_abort_at_any_point_ends_the_turn_at_once_and_leaves_nothing(at_s: float, times: int) -> None:
    async def scene() -> None:
        engines = Engines()
        async with talk(engines) as talking:
            talking.listen()
            talking.say()
            await talking.until_thinking()
            await asyncio.sleep(at_s)
            for _ in range(times):
                talking.fence += 1
                talking.tell(Aborted)
            before_s = asyncio.get_running_loop().time()
            await talking.until_records()
            assert asyncio.get_running_loop().time() == before_s
            assert engines.running == 0
            assert talking.session.turn is None
            assert len(asyncio.all_tasks()) == 2  # this one and the session
            told = list(talking.down)
            await asyncio.sleep(60)
            assert talking.down == told
            last = told[-1]
            assert isinstance(last, TurnEnded)
            assert last.outcome == "interrupted"
            assert last.fence in {1, times}
            assert [record.outcome for record in talking.records] == ["interrupted"]

    run(scene())


@pytest.mark.parametrize("at_s", ABORT_AT_S.values(), ids=ABORT_AT_S.keys())
def test_disconnect_at_any_point_leaves_nothing_and_says_nothing(at_s: float) -> None:
    async def scene() -> None:
        engines = Engines()
        async with talk(engines) as talking:
            talking.listen()
            talking.say()
            await asyncio.sleep(at_s)
            talking.tell(SessionClosed)
            await asyncio.sleep(0.001)
            assert engines.running == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert "interrupted" not in talking.story

    run(scene())


@pytest.mark.parametrize("at_s", ABORT_AT_S.values(), ids=ABORT_AT_S.keys())
def test_cancelled_session_leaves_nothing(at_s: float) -> None:
    async def scene() -> None:
        talking = Talk(Engines())
        task = asyncio.create_task(talking.session.run())
        talking.listen()
        talking.say()
        await asyncio.sleep(at_s)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert talking.engines.running == 0

    run(scene())


def long_answer() -> Engines:
    return quick(completer=ScriptedCompleter(unknown="今天天气很好很好很好。" * 20))


def test_device_that_plays_nothing_gets_one_window_and_can_still_interrupt() -> None:
    async def scene() -> None:
        async with talk(long_answer()) as talking:
            talking.listen()
            talking.say()
            await asyncio.sleep(20)
            assert 29_000 < talking.speech_ms <= 30_000
            talking.fence = 1
            talking.tell(Aborted)
            await talking.until_records()
            assert talking.engines.running == 0
            assert talking.story[-1] == "interrupted"

    run(scene())


def test_device_that_never_plays_ends_the_turn_after_the_budget() -> None:
    async def scene() -> None:
        async with talk(long_answer()) as talking:
            talking.listen()
            talking.say()
            await talking.until_records()
            assert asyncio.get_running_loop().time() == pytest.approx(30, abs=0.1)
            assert talking.story[-1] == "failed device-too-slow"

    run(scene())


def test_long_answer_outlives_the_budget_while_it_is_being_played() -> None:
    async def scene() -> None:
        async with talk(long_answer()) as talking:
            talking.plays()
            talking.listen()
            talking.say()
            await talking.until_records()
            assert talking.records[0].outcome == "answered"
            assert talking.speech_ms >= 20 * 2000
            assert asyncio.get_running_loop().time() == pytest.approx(talking.speech_ms / 1000, abs=0.1)

    run(scene())


def test_engine_that_hangs_ends_the_turn_after_the_budget() -> None:
    talking = one_turn(quick(completer=ScriptedCompleter(first_token_s=1e6)), SessionOptions(budget_s=5))
    assert talking.story == ["heard 你好", "failed llm-deadline"]
    assert talking.engines.completer.prompts[0].budget_ms == 5000
    assert talking.engines.running == 0


@pytest.mark.parametrize(("patterns", "private"), [((), False), (("d*",), True), (("e*",), False)])
def test_the_questions_of_private_devices_are_marked(patterns: tuple[str, ...], private: bool) -> None:
    talking = one_turn(quick(), SessionOptions(private_devices=patterns))
    assert talking.engines.completer.prompts[0].is_private is private


def test_interrupted_answer_is_remembered_as_far_as_it_was_heard() -> None:
    async def scene() -> None:
        engines = quick()
        async with talk(engines) as talking:
            talking.listen()
            talking.say()
            await talking.until_sent(TurnEnded)
            talking.tell(Played, turn_id=talking.down[-1].turn_id, played_ms=480 + 780)  # type: ignore[union-attr]
            await asyncio.sleep(1)
            talking.fence = 1
            talking.tell(Aborted)
            talking.listen()
            talking.say()
            await talking.until_records(2)
            assert talking.records[0].answer == "好的。今天天气"
            assert [m.text for m in engines.completer.prompts[1].messages[1:]] == ["你好", "好的。今天天气", "你好"]

    run(scene())


def test_stale_report_of_another_turn_changes_nothing() -> None:
    async def scene() -> None:
        async with talk(quick()) as talking:
            talking.listen()
            talking.say()
            await talking.until_sent(TurnEnded)
            talking.tell(Played, turn_id="other", played_ms=99_999)
            talking.fence = 1
            talking.tell(Aborted)
            await talking.until_records()
            assert talking.records[0].answer == ""

    run(scene())


@pytest.mark.parametrize(("left_ms", "outcome"), [(600, "answered"), (660, "interrupted")])
def test_device_that_leaves_after_the_last_word_was_answered(left_ms: int, outcome: str) -> None:
    async def scene() -> None:
        async with talk(quick()) as talking:
            talking.listen()
            talking.say()
            await talking.until_sent(TurnEnded)
            turn_id = talking.down[-1].turn_id  # type: ignore[union-attr]  # it is a TurnEnded
            talking.tell(Played, turn_id=turn_id, played_ms=talking.speech_ms - left_ms)
        assert [record.outcome for record in talking.records] == [outcome]

    run(scene())


def test_raised_fence_interrupts_even_if_the_abort_was_lost() -> None:
    async def scene() -> None:
        async with talk() as talking:
            talking.listen()
            talking.say()
            await asyncio.sleep(1)
            talking.fence = 4
            talking.listen()
            await talking.until_records()
            assert talking.story == ["heard 你好", "interrupted"]
            talking.say()
            await talking.until_sent(Heard, 2)
            assert [message.fence for message in talking.down] == [0, 4, 4]

    run(scene())


def test_early_transcription_saves_the_wait_for_the_endpoint() -> None:
    async def scene() -> float:
        engines = Engines(recognizer=ScriptedRecognizer(delay_s=0.3))
        async with talk(engines) as talking:
            talking.listen()
            for packet in SPOKEN:
                talking.say([packet])
                await asyncio.sleep(0.06)
            await talking.until_records()
            assert engines.recognizer.calls.started == 1
            return talking.records[0].marks.transcript_ms or 0.0

    assert run(scene()) == pytest.approx(0.0, abs=1)


def test_speech_that_resumes_stops_the_early_transcription() -> None:
    async def scene() -> None:
        engines = Engines()
        async with talk(engines) as talking:
            talking.listen()
            for packet in packets(600, 360) + packets(600, 720):
                talking.say([packet])
                await asyncio.sleep(0.06)
            await talking.until_records()
            assert (engines.recognizer.calls.cancelled, engines.recognizer.calls.finished) == (1, 1)
            assert talking.story[0] == "heard 你好"

    run(scene())


@pytest.mark.parametrize("broken", [[""], None])
def test_device_told_of_no_answer_is_still_listening_after_the_turn(broken: list[str] | None) -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer(["", "你好"]) if broken else ScriptedRecognizer(failures=[0])
        async with talk(quick(recognizer=recognizer)) as talking:
            talking.listen()
            talking.say()
            await talking.until_records()
            talking.say()
            await talking.until_records(2)
            assert talking.story == [*(["silent"] if broken else ["failed asr-failed"]), *ANSWERED]

    run(scene())


def test_auto_hears_nothing_between_answer_and_next_listen() -> None:
    async def scene() -> None:
        async with talk(quick()) as talking:
            talking.listen()
            talking.say()
            talking.say()
            await talking.until_records()
            talking.say()
            await asyncio.sleep(10)
            assert talking.story == ANSWERED
            talking.listen()
            talking.say()
            await talking.until_records(2)
            assert talking.story == ANSWERED * 2

    run(scene())


def test_listening_again_ends_the_wait_for_playing() -> None:
    async def scene() -> None:
        async with talk(quick()) as talking:
            talking.listen()
            talking.say()
            await talking.until_sent(TurnEnded)
            talking.listen()
            talking.say()
            await talking.until_sent(TurnEnded, 2)
            assert asyncio.get_running_loop().time() == 0
            assert talking.story == ANSWERED * 2
            assert talking.records[0].answer == FIRST + SECOND + THIRD

    run(scene())


def test_repeated_listen_during_a_turn_changes_nothing() -> None:
    async def scene() -> None:
        async with talk() as talking:
            talking.listen()
            talking.say()
            await asyncio.sleep(1)
            talking.listen()
            await talking.until_records()
            assert talking.story == ANSWERED

    run(scene())


def test_manual_answers_when_the_button_is_released() -> None:
    async def scene() -> None:
        async with talk(quick()) as talking:
            talking.listen("manual")
            talking.say(packets(600, 3000))
            await asyncio.sleep(5)
            assert talking.down == []
            talking.tell(ListenStopped)
            await talking.until_records()
            assert talking.story == ANSWERED

    run(scene())


def test_button_pressed_while_thinking_starts_anew() -> None:
    async def scene() -> None:
        async with talk() as talking:
            for _ in range(2):
                talking.listen("manual")
                talking.say()
                talking.tell(ListenStopped)
                await asyncio.sleep(1)
            await talking.until_records(2)
            assert talking.story == ["heard 你好", "interrupted", *ANSWERED]

    run(scene())


def over_answer(*texts: str, asr_s: float = 0.1, question: str = "你好") -> Engines:
    """Engines that hear ``question`` and then each text, and answer for 40 s."""
    return quick(
        recognizer=ScriptedRecognizer([question, *texts], delay_s=asr_s),
        completer=ScriptedCompleter(unknown="今天天气很好很好很好。" * 20),
    )


async def speak(talking: Talk, spoken: list[bytes]) -> None:
    """Say packets as fast as a person does."""
    for packet in spoken:
        talking.say([packet])
        await asyncio.sleep(0.06)


async def in_an_answer(talking: Talk, turns: int = 1) -> None:
    """Have the device ask in realtime mode, and the answer begin to sound."""
    talking.listen("realtime")
    talking.say()
    await talking.until_sent(SpeechDown, turns)
    await asyncio.sleep(1)


def turning(talking: Talk) -> list[str]:
    """Return who had the floor when: the story without sentences and faces."""
    return [word for word in talking.story if not word.startswith(("sentence", "felt", "speech"))]


@pytest.mark.parametrize(
    ("voice_ms", "texts", "expected"),
    [
        (300, ["嗯。"], ["heard 你好", "held", "resumed"]),
        (120, ["嗯"], ["heard 你好"]),
        (120, ["停"], ["heard 你好", "interrupted", "silent"]),
        (300, ["停！"], ["heard 你好", "held", "interrupted", "silent"]),
        (300, [""], ["heard 你好", "held", "resumed"]),
        (300, ["不对"], ["heard 你好", "held", "interrupted", "heard 不对"]),
        (720, ["嗯嗯", "嗯嗯嗯"], ["heard 你好", "held", "resumed"]),
        (840, ["别说了"], ["heard 你好", "held", "interrupted", "silent"]),
        (1200, ["换一首", "换一首歌"], ["heard 你好", "held", "interrupted", "heard 换一首歌"]),
        (2400, ["嗯", "", "嗯", "嗯对"], ["heard 你好", "held", "resumed"]),
    ],
)
def test_only_who_wants_the_floor_gets_it(voice_ms: int, texts: list[str], expected: list[str]) -> None:
    async def scene() -> None:
        engines = over_answer(*texts)
        async with talk(engines) as talking:
            await in_an_answer(talking)
            await speak(talking, packets(voice_ms))
            await asyncio.sleep(0.5)
            assert turning(talking) == expected
            assert (talking.session.turn is None) == (expected[-1] == "silent")

    run(scene())


def test_long_speech_interrupts_before_its_words_are_known() -> None:
    async def scene() -> None:
        async with talk(over_answer("换一首歌", asr_s=5)) as talking:
            await in_an_answer(talking)
            began_s = asyncio.get_running_loop().time()
            await speak(talking, packets(1200, 0))
            assert turning(talking)[1:] == ["held", "interrupted"]
            assert asyncio.get_running_loop().time() - began_s < 1.3

    run(scene())


def test_answer_goes_on_after_two_seconds_of_silence_and_late_words_still_count() -> None:
    async def scene() -> None:
        async with talk(over_answer("不对", asr_s=3)) as talking:
            await in_an_answer(talking)
            began_s = asyncio.get_running_loop().time()
            await speak(talking, packets(300))
            await talking.until_sent(SpeechResumed)
            assert asyncio.get_running_loop().time() - began_s == pytest.approx(2.24, abs=0.1)
            await talking.until_sent(Heard, 2)
            assert turning(talking) == ["heard 你好", "held", "resumed", "interrupted", "heard 不对"]

    run(scene())


def test_answer_goes_on_though_the_microphone_falls_silent_or_recognising_fails() -> None:
    async def scene() -> None:
        engines = over_answer()
        engines.recognizer = ScriptedRecognizer(delay_s=0.1, failures=[1])
        async with talk(engines) as talking:
            await in_an_answer(talking)
            await speak(talking, packets(300))
            await talking.until_sent(SpeechResumed)
            await speak(talking, packets(300, 0))
            await talking.until_sent(SpeechResumed, 2)
            assert turning(talking) == ["heard 你好", "held", "resumed", "held", "resumed"]

    run(scene())


def test_yes_to_the_question_an_answer_ends_with_is_a_turn() -> None:
    async def scene() -> None:
        engines = over_answer("好的")
        engines.completer = ScriptedCompleter(unknown="要我放首歌吗？")
        async with talk(engines) as talking:
            await in_an_answer(talking)
            talking.tell(Played, turn_id=talking.down[-1].turn_id, played_ms=talking.speech_ms - 120)  # type: ignore[union-attr]
            await speak(talking, packets(300))
            await talking.until_sent(Heard, 2)
            assert "heard 好的" in talking.story

    run(scene())


def test_voice_while_thinking_holds_the_answer_before_it_sounds() -> None:
    async def scene() -> None:
        engines = over_answer("嗯")
        engines.completer = ScriptedCompleter(unknown=ANSWER, first_token_s=1.0)
        engines.recognizer = ScriptedRecognizer(["你好", "嗯"], delay_s=0.8)
        async with talk(engines) as talking:
            talking.listen("realtime")
            talking.say()
            await talking.until_thinking()
            await speak(talking, packets(300))
            await talking.until_sent(SpeechResumed)
            assert talking.story[:3] == ["heard 你好", "held", "resumed"]

    run(scene())


def test_abort_while_held_ends_the_turn_and_nothing_is_left() -> None:
    async def scene() -> None:
        engines = over_answer("嗯", asr_s=1)
        async with talk(engines) as talking:
            await in_an_answer(talking)
            await speak(talking, packets(300, 480))
            talking.fence = 1
            talking.tell(Aborted)
            await talking.until_records()
            await asyncio.sleep(0)
            assert engines.running == 0
            assert len(asyncio.all_tasks()) == 2
            await asyncio.sleep(10)
            assert turning(talking) == ["heard 你好", "held", "interrupted"]

    run(scene())


def test_interrupted_after_a_hold_remembers_what_was_played_until_then() -> None:
    async def scene() -> None:
        async with talk(over_answer("不对")) as talking:
            await in_an_answer(talking)
            on_send = talking.on_send

            def report(message: Any) -> None:
                if isinstance(message, SpeechHeld):
                    talking.tell(Played, turn_id=message.turn_id, played_ms=1000)
                on_send(message)

            talking.on_send = report
            await speak(talking, packets(300))
            await talking.until_records()
            assert talking.records[0].answer == "今天天气很"

    run(scene())


def test_held_turn_outlives_its_budget_and_the_wait_for_its_end() -> None:
    async def scene() -> None:
        class Slow(ScriptedRecognizer):
            async def transcribe(self, utterance):
                await asyncio.sleep(60 if self.calls.started else 0)
                return await super().transcribe(utterance)

        completer = ScriptedCompleter(unknown="今天天气很好很好很好。")
        engines = quick(recognizer=Slow(), completer=completer)
        async with talk(engines, SessionOptions(barge_in=BargeInRules(resume_s=20))) as talking:
            talking.listen("realtime")
            talking.say()
            await talking.until_sent(TurnEnded)
            await speak(talking, packets(300))
            await asyncio.sleep(10)
            assert talking.records == []
            await talking.until_sent(SpeechResumed)
            await talking.until_records()
            assert talking.records[0].outcome == "answered"

    run(scene())


def test_words_so_far_are_asked_for_one_at_a_time_and_never_delay_the_last() -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer(lambda utterance: "你好" if utterance.is_final else "你", delay_s=1.0)
        async with talk(quick(recognizer=recognizer), SessionOptions(partials_always=True)) as talking:
            talking.listen()
            await speak(talking, packets(3000))
            await talking.until_sent(Heard)
            calls = recognizer.calls
            # At 0.6 and, the first having taken until 1.6, at 1.62 and 2.64 s; the pause at 3.24 s drops the last.
            assert (calls.started, calls.finished, calls.cancelled) == (4, 3, 1)
            assert talking.records[0:] == [] or talking.records[0].marks.transcript_ms == pytest.approx(640, abs=70)

    run(scene())


class Says:
    """A turn detector that says one thing after a while."""

    def __init__(self, probability: float | None, delay_s: float = 0.05) -> None:
        self.probability, self.delay_s, self.asked = probability, delay_s, 0

    async def finished(self, utterance: Utterance) -> float:
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        if self.probability is None:
            raise StageError("planned")
        return self.probability


@pytest.mark.parametrize(
    ("detector", "end_by", "wait_ms"),
    [
        (Says(0.9), "model", 240),
        (Says(0.1), "model", 1500),
        (Says(None), "model", 600),
        (Says(0.9, delay_s=5), "model", 600),
        (Says(0.9), "silence", 600),
        (None, "model", 600),
    ],
)
def test_model_ends_a_turn_sooner_or_later_than_silence_does(detector: Says | None, end_by: Any, wait_ms: int) -> None:
    async def scene() -> None:
        options = SessionOptions(endpointing=Endpointing(end_by=end_by))
        async with talk(quick(), options, turn_detector=detector) as talking:
            talking.listen()
            await speak(talking, packets(600, 1800))
            await talking.until_records()
            assert talking.records[0].marks.endpoint_wait_ms == pytest.approx(wait_ms, abs=1)
            assert detector is None or detector.asked == (end_by == "model")

    run(scene())


def test_model_is_asked_again_in_each_pause() -> None:
    async def scene() -> None:
        detector = Says(0.1)
        async with talk(quick(), turn_detector=detector) as talking:
            talking.listen()
            await speak(talking, packets(600, 900))
            detector.probability = 0.9
            await speak(talking, packets(600, 420))
            await talking.until_records()
            assert detector.asked == 2
            assert talking.records[0].marks.endpoint_wait_ms == pytest.approx(240, abs=1)

    run(scene())


def test_group_of_a_device_decides_how_it_is_listened_to() -> None:
    async def scene() -> None:
        groups = (DeviceGroup(devices="D*", endpointing=Endpointing(end_silence_ms=1020)),)
        async with talk(quick(), SessionOptions(groups=groups)) as talking:
            talking.listen()
            await speak(talking, packets(600, 1200))
            await talking.until_records()
            assert talking.records[0].marks.endpoint_wait_ms == 1020

    run(scene())


def test_question_begun_is_forgotten_when_the_device_is_woken_meanwhile() -> None:
    async def scene() -> None:
        utterances: list[Utterance] = []
        recognizer = ScriptedRecognizer(lambda utterance: utterances.append(utterance) or "你好")
        async with talk(quick(recognizer=recognizer)) as talking:
            talking.listen()
            talking.say(packets(900, 0))
            talking.fence = 1
            talking.tell(Aborted, reason="wake_word_detected")
            talking.say(packets(600, 900))
            await asyncio.sleep(5)
            assert talking.down == [], "nobody listens before the device says so"
            talking.tell(Aborted, reason="wake_word_detected")
            talking.listen()
            talking.say(packets(600, 720))
            await talking.until_records()
            (heard,) = utterances
            assert heard.end_ms - heard.start_ms == 600 + 60 + 240, "with what Opus rings on, and no padding"

    run(scene())


def test_wake_word_is_remembered_and_not_answered() -> None:
    async def scene() -> None:
        async with talk() as talking:
            talking.tell(WakeWordHeard, text="你好，小智！")
            await asyncio.sleep(5)
            assert talking.down == []
            assert talking.session.wake_word == "你好，小智！"

    run(scene())


@pytest.mark.parametrize("mode", ["auto", "realtime"])
def test_typed_text_is_answered_without_recognising(mode: str) -> None:
    async def scene() -> None:
        engines = quick()
        async with talk(engines) as talking:
            talking.listen(mode)  # type: ignore[arg-type]  # the table's words are modes
            talking.tell(WakeWordHeard, text="今天星期几")
            await talking.until_records()
            assert talking.story == ["heard 今天星期几", *ANSWERED[1:]]
            assert engines.recognizer.calls.started == 0
            talking.listen() if mode == "auto" else None
            talking.say()
            await talking.until_records(2)

    run(scene())


def test_typed_text_interrupts_the_turn_before_it() -> None:
    async def scene() -> None:
        async with talk() as talking:
            talking.listen()
            talking.say()
            await asyncio.sleep(1)
            talking.tell(WakeWordHeard, text="别说了")
            await talking.until_records(2)
            assert talking.story[:3] == ["heard 你好", "interrupted", "heard 别说了"]

    run(scene())


def test_emoji_becomes_a_face() -> None:
    talking = one_turn(quick(completer=ScriptedCompleter(unknown="哈哈哈😂真好笑。")))
    assert talking.story == ["heard 你好", "felt laughing", "sentence 哈哈哈真好笑。", "speech", "answered"]


def test_answer_without_words_is_an_answer() -> None:
    talking = one_turn(quick(completer=ScriptedCompleter(unknown="😊")))
    assert talking.story == ["heard 你好", "answered"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=120), max_size=40))
def test_random_packets_never_end_a_session(noise: list[bytes]) -> None:
    async def scene() -> None:
        async with talk(quick()) as talking:
            talking.listen()
            talking.say(noise)
            await asyncio.sleep(30)
            talking.fence += 1
            talking.tell(Aborted)
            talking.listen()
            talking.say(packets(0, 900) + SPOKEN)
            await talking.until(lambda: "answered" in talking.story)

    run(scene())


def test_engine_shut_down_under_a_turn_fails_that_turn_only() -> None:
    class Closing(ScriptedRecognizer):
        async def transcribe(self, utterance):
            if self.calls.started == 0:
                with self.calls.one():
                    raise asyncio.CancelledError
            return await super().transcribe(utterance)

    async def scene() -> None:
        async with talk(quick(recognizer=Closing())) as talking:
            talking.listen()
            talking.say()
            await talking.until_records()
            talking.say()
            await talking.until_records(2)
            assert talking.story == ["failed asr-failed", *ANSWERED]

    run(scene())


def test_bug_in_a_detector_ends_the_session_with_its_error() -> None:
    async def scene() -> None:
        class Broken:
            async def detect(self, frame):
                raise ZeroDivisionError

            def reset(self):
                pass

        talking = Talk(quick(), voice=Broken())
        talking.listen()
        talking.say()
        with pytest.raises(ExceptionGroup):
            await talking.session.run()

    run(scene())


def test_flood_of_audio_is_bounded_and_counted() -> None:
    async def scene() -> None:
        async with talk(quick()) as talking:
            for _ in range(500):
                talking.tell(AudioUp, seq=0, packet=b"")
            assert talking.session.inbox.dropped_audio == 400

    run(scene())


@pytest.mark.parametrize(("failures", "survives"), [(10, True), (50, False)])
def test_detector_may_fail_for_a_moment_but_not_for_seconds(failures: int, *, survives: bool) -> None:
    class Overloaded:
        def __init__(self) -> None:
            self.left, self.stream = failures, ScriptedDetector().listen()

        async def detect(self, frame):
            self.left -= 1
            if self.left >= 0:
                raise StageError("full")
            return await self.stream.detect(frame)

        def reset(self):
            pass

    async def scene() -> None:
        talking = Talk(quick(), voice=Overloaded())
        talking.listen()
        talking.say(packets(0, 60 * failures)[:failures] + SPOKEN)
        if survives:
            task = asyncio.create_task(talking.session.run())
            await talking.until_records()
            talking.tell(SessionClosed)
            await task
            assert talking.story == ANSWERED
        else:
            with pytest.raises(ExceptionGroup):
                await talking.session.run()

    run(scene())
