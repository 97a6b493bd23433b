from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.brain.segmenter import (
    Endpoint,
    Endpointing,
    Segmenter,
    SegmentEvent,
    SilenceBegan,
    VoiceResumed,
    VoiceStarted,
)
from edge.seam import ListenMode
from models.speech import AudioFrame, Utterance


class Microphone:
    """Feeds frames whose samples hold their number, so that an utterance tells which frames it was made of."""

    def __init__(self, mode: ListenMode | None = "auto", frame_ms: int = 60) -> None:
        ids = count()
        self.segmenter = Segmenter("d", language="zh", new_id=lambda: f"t{next(ids)}")
        self.frame_ms, self.number, self.now_ms = frame_ms, 0, 0
        if mode:
            self.segmenter.start(mode)

    def hear(self, duration_ms: int, speech: float) -> list[SegmentEvent]:
        events: list[SegmentEvent] = []
        for _ in range(duration_ms // self.frame_ms):
            pcm = self.number.to_bytes(2, "little") * (16 * self.frame_ms)
            events += self.segmenter.feed(AudioFrame(pcm=pcm, start_ms=self.now_ms), speech)
            self.number, self.now_ms = self.number + 1, self.now_ms + self.frame_ms
        return events


def span(utterance: Utterance) -> tuple[int, int]:
    return utterance.start_ms, utterance.end_ms


def endpoint(events: list[SegmentEvent]) -> Endpoint:
    (found,) = [event for event in events if isinstance(event, Endpoint)]
    return found


def test_sentence_brings_started_hint_and_endpoint_with_the_same_utterance() -> None:
    mic = Microphone()
    events = mic.hear(1200, 0.0) + mic.hear(600, 0.9) + mic.hear(1200, 0.0)
    assert [type(event) for event in events] == [VoiceStarted, SilenceBegan, Endpoint]
    end = endpoint(events)
    assert isinstance(events[1], SilenceBegan)
    assert end.utterance is events[1].utterance
    assert span(end.utterance) == (900, 2040)  # 300 ms of padding, 600 ms of speech, 240 ms of silence
    assert end.wait_ms == 600
    assert (end.utterance.turn_id, end.utterance.device_id, end.utterance.language) == ("t0", "d", "zh")
    assert end.utterance.pcm[:2] == (15).to_bytes(2, "little")
    assert len(end.utterance.pcm) == 1140 * 32


def test_pause_shorter_than_the_rule_belongs_to_the_sentence() -> None:
    mic = Microphone()
    events = mic.hear(600, 0.9) + mic.hear(480, 0.0) + mic.hear(600, 0.9) + mic.hear(600, 0.0)
    assert [type(event) for event in events] == [VoiceStarted, SilenceBegan, VoiceResumed, SilenceBegan, Endpoint]
    assert span(endpoint(events).utterance) == (0, 1920)


@pytest.mark.parametrize(
    ("frame_ms", "speech_ms", "probability", "is_utterance"),
    [
        (60, 60, 1.0, False),
        (60, 120, 0.9, True),
        (60, 180, 0.95, True),
        (60, 180, 0.6, False),
        (60, 240, 0.6, False),
        (60, 300, 0.6, True),
        (20, 100, 1.0, False),
        (20, 120, 0.9, True),
        (20, 260, 0.55, True),
        (60, 1200, 0.45, False),
    ],
)
def test_short_words_pass_and_clicks_do_not(
    frame_ms: int, speech_ms: int, probability: float, is_utterance: bool
) -> None:
    mic = Microphone(frame_ms=frame_ms)
    events = mic.hear(600, 0.0) + mic.hear(speech_ms, probability) + mic.hear(900, 0.0)
    assert any(isinstance(event, Endpoint) for event in events) is is_utterance


def test_probability_between_the_thresholds_keeps_what_it_was() -> None:
    mic = Microphone()
    assert mic.hear(1200, 0.4) == []
    events = mic.hear(120, 0.9) + mic.hear(1200, 0.4)
    assert [type(event) for event in events] == [VoiceStarted]
    assert mic.segmenter.voiced_ms == 1320


def test_click_before_a_sentence_is_part_of_its_padding() -> None:
    mic = Microphone()
    events = mic.hear(60, 0.9) + mic.hear(600, 0.0) + mic.hear(600, 0.9) + mic.hear(600, 0.0)
    assert span(endpoint(events).utterance)[0] == 360


def test_stalled_network_does_not_end_a_sentence() -> None:
    mic = Microphone()
    mic.hear(600, 0.9)
    mic.hear(540, 0.0)  # then nothing arrives for as long as you like
    assert mic.hear(0, 0.0) == []
    assert [type(event) for event in mic.hear(60, 0.0)] == [Endpoint]


def test_wake_word_and_question_in_one_breath_are_one_utterance() -> None:
    mic = Microphone(mode=None)
    assert mic.hear(600, 0.0) + mic.hear(900, 0.9) == []
    mic.segmenter.start("auto")
    events = mic.hear(600, 0.9) + mic.hear(600, 0.0)
    assert span(endpoint(events).utterance) == (300, 2340)


def test_wake_word_alone_is_no_utterance() -> None:
    mic = Microphone(mode=None)
    mic.hear(900, 0.9)
    mic.segmenter.start("auto")
    assert mic.hear(3000, 0.0) == []


def test_pre_roll_longer_than_two_seconds_is_forgotten() -> None:
    mic = Microphone(mode=None)
    mic.hear(60_000, 0.9)
    mic.segmenter.start("auto")
    utterance = endpoint(mic.hear(600, 0.9) + mic.hear(600, 0.0)).utterance
    assert utterance.end_ms - utterance.start_ms <= 2000 + 600 + 240


def test_monologue_is_cut_at_thirty_seconds() -> None:
    mic = Microphone()
    end = endpoint(mic.hear(30_000, 0.9))
    assert end.utterance.end_ms - end.utterance.start_ms == 30_000
    assert end.wait_ms == 0


def test_auto_stops_listening_after_an_utterance_and_realtime_does_not() -> None:
    for mode, more in (("auto", 0), ("realtime", 1)):
        mic = Microphone(mode)
        mic.hear(600, 0.9)
        mic.hear(600, 0.0)
        assert mic.segmenter.is_listening is bool(more)
        events = mic.hear(600, 0.9) + mic.hear(600, 0.0)
        assert sum(isinstance(event, Endpoint) for event in events) == more


def test_repeated_start_keeps_the_utterance_being_spoken() -> None:
    mic = Microphone()
    mic.hear(600, 0.9)
    mic.segmenter.start("auto")
    assert span(endpoint(mic.hear(600, 0.9) + mic.hear(600, 0.0)).utterance) == (0, 1440)


def test_what_was_said_while_paused_runs_into_what_is_said_after() -> None:
    mic = Microphone()
    mic.hear(300, 0.9)
    mic.segmenter.pause()
    mic.hear(300, 0.9)
    mic.segmenter.start("auto")
    assert span(endpoint(mic.hear(300, 0.9) + mic.hear(600, 0.0)).utterance) == (0, 1140)


def test_manual_waits_for_stop_through_any_pause() -> None:
    mic = Microphone("manual")
    assert all(isinstance(e, VoiceStarted) for e in mic.hear(600, 0.9) + mic.hear(5000, 0.0) + mic.hear(60, 0.9))
    end = endpoint(mic.segmenter.stop())
    assert span(end.utterance) == (0, mic.now_ms)
    assert not mic.segmenter.is_listening


def test_manual_takes_any_speech_however_short() -> None:
    mic = Microphone("manual")
    mic.hear(60, 0.6)
    assert len(mic.segmenter.stop()) == 1


@pytest.mark.parametrize("mode", ["manual", "auto", None])
def test_stop_without_speech_brings_nothing(mode: ListenMode | None) -> None:
    mic = Microphone(mode)
    mic.hear(6000, 0.1)
    assert mic.segmenter.stop() == []


@given(st.lists(st.floats(0, 1), max_size=400), st.sampled_from(["auto", "manual", "realtime"]))
def test_any_probabilities_keep_memory_bounded_and_utterances_apart(speech: list[float], mode: ListenMode) -> None:
    mic = Microphone(mode)
    last_ms = 0
    for probability in speech:
        for event in mic.hear(60, probability):
            if isinstance(event, Endpoint):
                assert event.utterance.start_ms >= last_ms
                last_ms = event.utterance.end_ms
        kept = len(mic.segmenter._before) + len(mic.segmenter._recording)
        assert kept * 60 <= 30_000 + 2_000


def test_hours_of_silence_keep_two_seconds() -> None:
    mic = Microphone("realtime")
    mic.hear(600_000, 0.0)
    assert len(mic.segmenter._before) * 60 <= 2_000


def test_model_may_end_a_pause_and_only_a_pause() -> None:
    mic = Microphone()
    mic.hear(600, 0.9)
    assert mic.segmenter.conclude() == []
    mic.hear(300, 0.0)
    said = mic.segmenter.pause_after
    (end,) = mic.segmenter.conclude()
    assert isinstance(end, Endpoint)
    assert end.utterance is said
    assert end.wait_ms == 300
    assert mic.segmenter.conclude() == []
    assert not mic.segmenter.is_listening


def test_model_may_lengthen_a_pause_but_not_the_next() -> None:
    mic = Microphone()
    mic.hear(600, 0.9)
    mic.segmenter.wait_longer()
    mic.hear(240, 0.0)
    mic.segmenter.wait_longer()
    assert mic.hear(1200, 0.0) == []
    assert [type(event) for event in mic.hear(60, 0.9)] == [VoiceResumed]
    assert endpoint(mic.hear(600, 0.0)).wait_ms == 600


def test_pause_that_goes_on_ends_after_the_longer_wait() -> None:
    mic = Microphone()
    mic.hear(600, 0.9)
    mic.hear(240, 0.0)
    mic.segmenter.wait_longer()
    assert endpoint(mic.hear(1320, 0.0)).wait_ms == 1500


def test_beginning_of_an_utterance_is_part_of_it() -> None:
    mic = Microphone()
    assert mic.segmenter.so_far() is None
    mic.hear(120, 0.6)
    assert mic.segmenter.so_far() is None
    mic.hear(480, 0.9)
    so_far = mic.segmenter.so_far()
    assert so_far is not None
    assert (span(so_far), so_far.is_final, so_far.turn_id) == ((0, 600), False, mic.segmenter.turn_id)
    whole = endpoint(mic.hear(600, 0.0)).utterance
    assert whole.is_final
    assert whole.turn_id == so_far.turn_id
    assert whole.pcm.startswith(so_far.pcm)


def test_what_is_forgotten_belongs_to_nothing() -> None:
    mic = Microphone()
    mic.hear(600, 0.9)
    mic.segmenter.forget()
    assert not mic.segmenter.is_listening
    mic.segmenter.start("auto")
    assert span(endpoint(mic.hear(600, 0.9) + mic.hear(600, 0.0)).utterance) == (600, 1440)


@pytest.mark.parametrize(
    "rules",
    [
        {"speech_off": 0.6},
        {"turn_threshold": 1.5},
        {"hint_silence_ms": 700},
        {"hint_silence_ms": 0},
        {"turn_wait_ms": 500},
        {"max_utterance_ms": 31_000},
    ],
)
def test_rules_that_contradict_each_other_are_refused(rules: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Endpointing(**rules)  # type: ignore[arg-type]  # a table of some of its fields
