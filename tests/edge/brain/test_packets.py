from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from edge.brain.packets import SpeechKey, SpeechMemory
from tests.virtual_time import run

KEY = SpeechKey(voice="v", language="zh", quality="32k-c5", words="你好。")
PACKETS = (b"\x58abc", b"\x58def")


def test_a_sentence_is_known_under_the_first_of_several_keys() -> None:
    memory = SpeechMemory(Ladder(MemoryTier()))
    worse = msgspec.structs.replace(KEY, quality="16k-c1")
    memory.put(worse, PACKETS)
    assert memory.known([KEY]) is None
    assert memory.known([KEY, worse]) == PACKETS
    memory.put(KEY, PACKETS[:1])
    assert memory.known([KEY, worse]) == PACKETS[:1]


@pytest.mark.parametrize("other", [{"voice": "w"}, {"language": "en"}, {"quality": "24k-c1"}, {"words": "您好。"}])
def test_another_voice_language_quality_or_sentence_is_another_key(other: dict[str, str]) -> None:
    memory = SpeechMemory(Ladder(MemoryTier()))
    memory.put(KEY, PACKETS)
    assert memory.known([msgspec.structs.replace(KEY, **other)]) is None


@given(st.tuples(*[st.text(max_size=4)] * 4), st.tuples(*[st.text(max_size=4)] * 4))
def test_two_keys_have_one_name_only_if_they_are_the_same(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    names = [SpeechKey(voice=v, language=n, quality=q, words=w).name for v, n, q, w in (one, other)]
    assert (names[0] == names[1]) is (one == other)
    assert all(name.startswith("speech:") for name in names)


@pytest.mark.parametrize("value", [b"", b"\xc1", msgspec.msgpack.encode(["text"]), msgspec.msgpack.encode({"a": 1})])
def test_what_cannot_be_read_is_not_known(value: bytes) -> None:
    ladder = Ladder(MemoryTier())
    ladder.put(KEY.name, value)
    assert SpeechMemory(ladder).known([KEY]) is None


def test_without_far_tiers_nothing_is_found_there() -> None:
    async def scenario() -> None:
        assert await SpeechMemory(Ladder(MemoryTier())).find(KEY) is None

    run(scenario())
