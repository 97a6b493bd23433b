from __future__ import annotations

import msgspec
import pytest

from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from edge.brain.known_speech import KnownSpeech
from models.scripted import ScriptedRecognizer
from models.speech import Utterance
from tests.virtual_time import run

SAID = Utterance(turn_id="t1", device_id="d", pcm=bytes(range(200)) * 10, start_ms=0, end_ms=100, language="zh")


def made(ladder: Ladder, version: str = "v") -> tuple[KnownSpeech, ScriptedRecognizer]:
    recognizer = ScriptedRecognizer(["你好", "再见", "别的"])
    return KnownSpeech(recognizer, ladder, version, lambda device: device == "private"), recognizer


def test_the_very_same_sound_is_recognised_once() -> None:
    async def scenario() -> None:
        known, recognizer = made(Ladder(MemoryTier()))
        first = await known.transcribe(SAID)
        again = await known.transcribe(msgspec.structs.replace(SAID, turn_id="t2", device_id="another"))
        assert (first.text, again.text, again.turn_id) == ("你好", "你好", "t2")
        assert recognizer.calls.started == 1

    run(scenario())


@pytest.mark.parametrize(
    "other",
    [
        {"pcm": SAID.pcm[:-2] + b"\x00\x01"},
        {"language": "en"},
        {"sample_rate_hz": 8_000},
        {"is_final": False},
        {"device_id": "private"},
    ],
)
def test_anything_else_is_recognised(other: dict[str, object]) -> None:
    async def scenario() -> None:
        known, recognizer = made(Ladder(MemoryTier()))
        await known.transcribe(SAID)
        await known.transcribe(msgspec.structs.replace(SAID, **other))
        assert recognizer.calls.started == 2

    run(scenario())


def test_nothing_of_a_private_device_is_kept_and_another_model_remembers_for_itself() -> None:
    async def scenario() -> None:
        memory = MemoryTier()
        ladder = Ladder(memory)
        known, _ = made(ladder)
        await known.transcribe(msgspec.structs.replace(SAID, device_id="private"))
        assert len(memory) == 0
        await known.transcribe(SAID)
        other, recognizer = made(ladder, "another")
        await other.transcribe(SAID)
        assert recognizer.calls.started == 1

    run(scenario())


@pytest.mark.parametrize("value", [b"", b"\xc1", msgspec.msgpack.encode({"text": 5})])
def test_what_cannot_be_read_is_recognised_anew(value: bytes) -> None:
    async def scenario() -> None:
        ladder = Ladder(MemoryTier())
        known, recognizer = made(ladder)
        ladder.put(known._key(SAID), value)
        assert (await known.transcribe(SAID)).text == "你好"
        assert recognizer.calls.started == 1

    run(scenario())
