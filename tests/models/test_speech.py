from __future__ import annotations

import msgspec
import pytest

from models.speech import AudioFrame, SpeechChunk, Transcript, Utterance

NOUNS = [
    AudioFrame(pcm=b"\x01\x00" * 960, start_ms=60),
    Utterance(turn_id="t", device_id="d", pcm=b"\x00\x01", start_ms=0, end_ms=60, language="zh"),
    Transcript(turn_id="t", text="你好", language="zh", confidence=0.5),
    SpeechChunk(pcm=b"\x00\x01", sample_rate_hz=24_000),
]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: type(noun).__name__)
def test_a_noun_round_trips(noun: msgspec.Struct):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(noun), type=type(noun)) == noun


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: type(noun).__name__)
def test_a_noun_tolerates_an_unknown_field(noun: msgspec.Struct):
    wire = msgspec.msgpack.encode({**msgspec.structs.asdict(noun), "from_the_future": 1})
    assert msgspec.msgpack.decode(wire, type=type(noun)) == noun


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: type(noun).__name__)
def test_a_noun_is_frozen(noun: msgspec.Struct):
    with pytest.raises(AttributeError, match="immutable"):
        setattr(noun, noun.__struct_fields__[0], None)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "duration_ms"),
    [(960, 16_000, 60.0), (320, 16_000, 20.0), (1440, 24_000, 60.0), (0, 16_000, 0.0)],
)
def test_a_frame_knows_its_length(samples: int, rate_hz: int, duration_ms: float):
    assert AudioFrame(pcm=bytes(2 * samples), sample_rate_hz=rate_hz, start_ms=0).duration_ms == duration_ms
