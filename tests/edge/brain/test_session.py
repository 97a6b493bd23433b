from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.brain.session import SessionOptions
from edge.seam import (
    Aborted,
    AudioUp,
    Heard,
    ListenStopped,
    Played,
    SessionClosed,
    TurnEnded,
    WakeWordHeard,
)
from models.errors import DeadlineError, StageError
from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer
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
            ["heard 你好", "felt neutral", f"sentence {FIRST}", "failed tts-failed"], "failed", "tts-failed", "",
        ),
        (
            quick(synthesizer=ScriptedSynthesizer(failures=[1])),
            [*ANSWERED[:4], f"sentence {SECOND}", "failed tts-failed"], "failed", "tts-failed", "",
        ),
    ],
    ids=["answered", "silent", "asr-failed", "llm-failed-before-first-word", "llm-failed-after", "tts-failed", "tts-failed-later"],
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


@pytest.mark.parametrize(("voice_ms", "interrupts"), [(600, True), (180, False)])
@pytest.mark.parametrize("at_s", [1.0, 2.2, 5.0])
def test_realtime_is_interrupted_by_speech_but_not_by_a_short_word(
    voice_ms: int, at_s: float, *, interrupts: bool
) -> None:
    async def scene() -> None:
        async with talk() as talking:
            talking.listen("realtime")
            talking.say()
            await asyncio.sleep(at_s)
            talking.say(packets(voice_ms))
            await talking.until_records(2 if interrupts else 1)
            outcomes = [record.outcome for record in talking.records]
            assert outcomes == (["interrupted", "answered"] if interrupts else ["answered"])
            ends = [m for m in talking.down if isinstance(m, TurnEnded)]
            assert ends[-1].outcome == "answered"
            assert ("interrupted" in [m.outcome for m in ends]) is interrupts

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
        talking = Talk(quick())

        class Broken:
            async def detect(self, frame):
                raise ZeroDivisionError

            def reset(self):
                pass

        talking.session._voice = Broken()
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
        talking = Talk(quick())
        talking.session._voice = Overloaded()
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
