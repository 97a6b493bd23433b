from __future__ import annotations

import array
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.brain.opus import MAX_PACKET_BYTES, OpusDecoder, OpusEncoder, SpeechEncoder
from models.errors import ConfigError
from models.scripted import loudness, tone
from models.speech import SpeechChunk


def uplink(frame_ms: int = 60) -> OpusEncoder:
    return OpusEncoder(16_000, frame_ms, bitrate=16_000, complexity=0)


@pytest.mark.parametrize("frame_ms", [5, 10, 20, 40, 60, 120])
def test_tone_of_any_frame_length_comes_back_as_long_and_loud(frame_ms: int) -> None:
    encoder, decoder = uplink(frame_ms), OpusDecoder()
    pcm = tone(960, 16_000)
    size = encoder.frame_bytes
    heard = b"".join(decoder.decode(encoder.encode(pcm[at : at + size])) for at in range(0, len(pcm), size))
    assert len(heard) == len(pcm)
    assert loudness(heard) > 0.5 * loudness(pcm)
    assert decoder.concealed == 0


def test_silent_packet_of_one_byte_keeps_its_length() -> None:
    encoder, decoder = uplink(), OpusDecoder()
    toc = encoder.encode(tone(60, 16_000))[:1]
    assert len(decoder.decode(toc)) == 1920
    assert decoder.concealed == 0


@pytest.mark.parametrize("packet", [b"", b"\xff" * (MAX_PACKET_BYTES + 1), b"\x03", b"\x0b\xff\xff"])
def test_undecodable_packet_is_concealed_and_counted(packet: bytes) -> None:
    decoder = OpusDecoder()
    assert len(decoder.decode(packet)) == 1920
    assert decoder.concealed == 1


def test_stereo_packet_is_mixed_down() -> None:
    import opuslib_next

    stereo = opuslib_next.Encoder(16_000, 2, "voip")
    pcm = array.array("h", (sample for value in array.array("h", tone(60, 16_000)) for sample in (value, value)))
    assert len(OpusDecoder().decode(stereo.encode(pcm.tobytes(), 960))) == 1920


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_random_packets_never_raise_and_stay_within_120_ms(packets: list[bytes]) -> None:
    decoder = OpusDecoder()
    for packet in packets:
        assert 0 < len(decoder.decode(packet)) <= 2 * 1920


def test_frame_of_another_length_raises_value_error() -> None:
    with pytest.raises(ValueError, match="2880 bytes"):
        OpusEncoder().encode(b"\0\0")


@pytest.mark.parametrize("make", [lambda: OpusDecoder(44_100), lambda: OpusEncoder(44_100)])
def test_rate_opus_does_not_know_raises_config_error(make) -> None:
    with pytest.raises(ConfigError, match="44100"):
        make()


def test_missing_library_raises_config_error_that_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opuslib_next", None)
    with pytest.raises(ConfigError, match="pip install opuslib-next-bundled"):
        OpusDecoder()


def test_missing_resampler_raises_config_error_that_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ConfigError, match="pip install soxr"):
        list(SpeechEncoder().encode(SpeechChunk(pcm=b"\0\0", sample_rate_hz=22_050)))


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("chunk_bytes", [2, 1000, 100_000])
def test_sentence_of_any_rate_and_chunking_lasts_as_long_as_it_should(rate_hz: int, chunk_bytes: int) -> None:
    duration_ms = 150 if chunk_bytes == 2 else 1000
    pcm = tone(duration_ms, rate_hz)
    encoder = SpeechEncoder()
    packets: list[bytes] = []
    for at in range(0, len(pcm), chunk_bytes):
        packets += encoder.encode(SpeechChunk(pcm=pcm[at : at + chunk_bytes], sample_rate_hz=rate_hz))
    packets += encoder.flush()
    assert len(packets) == -(-duration_ms // 60)
    decoder = OpusDecoder(24_000)
    assert loudness(b"".join(map(decoder.decode, packets))) > 0.08


def test_rate_that_changes_within_a_stream_loses_nothing() -> None:
    encoder = SpeechEncoder()
    packets = [
        *encoder.encode(SpeechChunk(pcm=tone(600, 22_050), sample_rate_hz=22_050)),
        *encoder.encode(SpeechChunk(pcm=tone(600, 24_000), sample_rate_hz=24_000)),
        *encoder.encode(SpeechChunk(pcm=tone(600, 16_000), sample_rate_hz=16_000)),
        *encoder.flush(),
    ]
    assert len(packets) == 30


def test_flush_of_nothing_yields_nothing() -> None:
    assert list(SpeechEncoder().flush()) == []


def sentence_of(encoder: SpeechEncoder, duration_ms: int, bitrate: int = 32_000) -> list[bytes]:
    """Return a spoken sentence as voices give it out: a little silence before and after the sound."""
    pcm = bytes(2400) + tone(duration_ms, 24_000) + bytes(3840)
    encoder.begin(bitrate, 5)
    return [*encoder.encode(SpeechChunk(pcm=pcm, sample_rate_hz=24_000)), *encoder.flush()]


def test_begun_sentence_is_the_same_packets_whatever_was_encoded_before() -> None:
    encoder = SpeechEncoder()
    alone = sentence_of(encoder, 700)
    encoder.begin(16_000, 1)
    list(encoder.encode(SpeechChunk(pcm=tone(1010, 22_050), sample_rate_hz=22_050)))
    assert sentence_of(encoder, 700) == alone
    assert sum(map(len, sentence_of(encoder, 700, 16_000))) < 0.7 * sum(map(len, alone))


def test_sentence_sounds_the_same_behind_another_as_alone() -> None:
    encoder = SpeechEncoder()
    first, second = sentence_of(encoder, 1000), sentence_of(encoder, 700)
    alone, behind = OpusDecoder(24_000), OpusDecoder(24_000)
    for packet in first:
        behind.decode(packet)
    for packet in second:
        heard = [array.array("h", decoder.decode(packet)) for decoder in (alone, behind)]
        assert max(abs(one - other) for one, other in zip(*heard, strict=True)) <= 32  # 60 dB below full scale


def test_encoder_cannot_be_tuned_to_what_opus_refuses() -> None:
    with pytest.raises(ConfigError, match="complexity 11"):
        OpusEncoder().tune(32_000, 11)


def test_decoded_sound_lags_by_the_lookahead() -> None:
    encoder, decoder = OpusEncoder(application="restricted_lowdelay"), OpusDecoder(24_000)
    pcm = bytes(2880 - 480) + tone(10, 24_000)
    heard = array.array("h", decoder.decode(encoder.encode(pcm)) + decoder.decode(encoder.encode(bytes(2880))))
    loud = [at for at, sample in enumerate(heard) if abs(sample) > 3000]
    assert loud[0] == pytest.approx(1440 - 240 + encoder.lookahead, abs=24)


def test_silence_with_dtx_is_mostly_packets_of_one_byte() -> None:
    encoder, decoder = OpusEncoder(16_000, 60, complexity=0, dtx=True), OpusDecoder()
    packets = [encoder.encode(bytes(1920)) for _ in range(30)]
    assert sum(len(packet) <= 2 for packet in packets) > 15
    assert all(len(decoder.decode(packet)) == 1920 for packet in packets)
    assert decoder.concealed == 0
