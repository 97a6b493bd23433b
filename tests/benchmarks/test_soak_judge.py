from __future__ import annotations

import json

import pytest

from benchmarks.soak_engines import sung
from benchmarks.soak_judge import Moment, Note, NoteTaker, is_answered, moment_of, stale, stop_ms
from edge.brain.opus import SpeechEncoder
from models.speech import SpeechChunk


def notes(line: str) -> list[Note]:
    """Return notes from e.g. "transcript1 start packet1": one every 10 ms, from 0."""
    found = []
    for place, word in enumerate(line.split()):
        kind = word.rstrip("0123456789")
        number = word[len(kind) :]
        found.append(Note(10.0 * place, kind, int(number) if number else None))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("line", "moment"),
    [
        ("", "listening"),
        ("transcript1", "thinking"),
        ("transcript1 start sentence1", "thinking"),
        ("transcript1 start sentence1 packet1", "first audio"),
        ("transcript1 start" + " packet1" * 6, "mid audio"),
        ("transcript1 start packet1 stop", "end"),
    ],
)
def test_the_moment_is_where_the_turn_is(line: str, moment: Moment) -> None:
    assert moment_of(notes(line)) == moment


@pytest.mark.parametrize(
    ("line", "is_so"),
    [
        ("transcript2 start sentence2 packet2 packet2 stop", True),
        ("transcript1 start packet1 stop transcript2 start packet2 stop", True),
        ("transcript2 start packet2", False),
        ("transcript2 start stop", False),
        ("transcript2 start packet1 stop", False),
        ("transcript1 start packet2 stop", False),
        ("packet2 stop transcript2 start", False),
        ("", False),
    ],
)
def test_a_question_is_answered_when_its_own_sound_came_and_ended(line: str, is_so: bool) -> None:
    assert is_answered(notes(line), 2) == is_so


@pytest.mark.parametrize(
    ("line", "since_ms", "count"),
    [
        # Obeyed at once, the next answer is its own.
        ("transcript1 start packet1 stop transcript2 start sentence2 packet2 stop", 25, 0),
        # What came before the stop was on its way.
        ("transcript1 start packet1 packet1 stop", 25, 0),
        # A packet after the stop.
        ("transcript1 start packet1 stop packet1", 25, 1),
        # A packet outside of any speech is out of place whoever sings.
        ("transcript1 start packet1 stop packet2 transcript2 start packet2 stop", 25, 1),
        # The old turn's words and sound inside the new one.
        ("transcript1 start stop transcript2 start sentence1 packet1 packet2 stop", 15, 2),
        # A new question replaced the old one without a stop.
        ("transcript1 transcript2 start packet1 packet2 stop", 5, 1),
        # The interrupted turn had ended before.
        ("transcript1 start packet1 stop stop transcript2 start packet2 stop", 35, 0),
        # Its own transcript is no cut: the voice over it was not understood yet.
        ("transcript1 start packet1 stop transcript2 start packet2 stop", 0, 0),
    ],
)
def test_what_is_heard_of_an_interrupted_turn_after_its_end_is_counted(line: str, since_ms: float, count: int) -> None:
    assert stale(notes(line), since_ms, 1) == count


def test_the_stop_is_the_first_after_the_interruption() -> None:
    assert stop_ms(notes("stop packet1 stop stop"), 5) == 15
    assert stop_ms(notes("stop packet1"), 5) is None


def test_messages_become_notes_with_the_number_of_the_sound() -> None:
    encoder = SpeechEncoder()
    encoder.begin(16_000, 5)
    packets = list(encoder.encode(SpeechChunk(pcm=sung(4, 180, 24_000), sample_rate_hz=24_000)))
    taker = NoteTaker()
    taker.text(json.dumps({"type": "hello", "session_id": "s"}), 0)
    taker.text(json.dumps({"type": "stt", "text": "4号的问题"}), 1)
    taker.text(json.dumps({"type": "tts", "state": "start"}), 2)
    taker.text(json.dumps({"type": "llm", "emotion": "happy"}), 3)
    taker.text(json.dumps({"type": "tts", "state": "sentence_start", "text": "给4号的回答。"}), 4)
    for packet in packets:
        taker.packet(packet, 5)
    taker.text(json.dumps({"type": "tts", "state": "stop"}), 6)
    taker.text(json.dumps({"type": "alert", "status": "x", "message": "y", "emotion": "z"}), 7)
    told = [(note.kind, note.number) for note in taker.notes]
    assert told == [
        ("transcript", 4),
        ("start", None),
        ("sentence", 4),
        *[("packet", 4)] * 3,
        ("stop", None),
        ("alert", None),
    ]
    assert is_answered(taker.notes, 4)
