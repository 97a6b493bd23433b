from __future__ import annotations

from benchmarks.load_sound import LEAD_FRAMES, SPEECH_MS, scripted_sound, sound_of
from edge.brain.opus import OpusDecoder
from models.scripted import loudness, tone


def test_a_device_hears_silence_then_a_tone_then_silence_again() -> None:
    sound = scripted_sound()
    decoder = OpusDecoder()
    heard = [loudness(decoder.decode(packet)) for packet in (*sound.lead, *sound.speech, sound.silence, sound.silence)]
    voiced = [number for number, loud in enumerate(heard) if loud > 0.02]
    assert len(sound.lead) == LEAD_FRAMES
    assert sound.voiced_packets == SPEECH_MS // 60
    assert voiced[0] == LEAD_FRAMES
    assert abs(voiced[-1] - (LEAD_FRAMES + sound.voiced_packets - 1)) <= 1  # the codec's delay may spill over


def test_silence_at_the_end_of_a_recording_is_not_speech() -> None:
    sound = sound_of(tone(590, 16_000) + bytes(2 * 16_000))
    assert sound.voiced_packets == 10
