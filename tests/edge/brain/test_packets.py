from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.brain.packets import PacketCache, SpeechKey


def key(words: str, quality: str = "q") -> SpeechKey:
    return SpeechKey(voice="v", language="zh", quality=quality, words=words)


def test_what_was_put_comes_back_under_its_own_key_only() -> None:
    cache = PacketCache()
    cache.put(key("甲"), (b"1", b"2"))
    cache.put(key("空"), ())
    assert cache.get(key("甲")) == (b"1", b"2")
    assert cache.get(key("空")) == ()
    assert cache.get(key("甲", "other")) is None


def test_the_one_used_longest_ago_makes_way() -> None:
    cache = PacketCache(max_entries=2)
    cache.put(key("a"), (b"1",))
    cache.put(key("b"), (b"2",))
    cache.get(key("a"))
    cache.put(key("c"), (b"3",))
    assert [cache.get(key(words)) for words in "abc"] == [(b"1",), None, (b"3",)]


def test_sentence_larger_than_the_cache_is_not_kept_and_drives_nobody_out() -> None:
    cache = PacketCache(max_bytes=2000)
    cache.put(key("a"), (b"1",))
    cache.put(key("b"), (bytes(3000),))
    assert cache.get(key("a")) == (b"1",)
    assert cache.get(key("b")) is None


def test_cache_of_no_bytes_holds_nothing() -> None:
    cache = PacketCache(max_bytes=0)
    cache.put(key("a"), (b"1",))
    assert len(cache) == cache.bytes == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), max_size=200))
def test_bytes_and_entries_stay_bounded_and_counted(puts: list[tuple[int, int]]) -> None:
    cache = PacketCache(max_bytes=20_000, max_entries=8)
    for words, packets in puts:
        cache.put(key(str(words)), (bytes(200),) * packets)
        assert 0 <= cache.bytes <= 20_000
        assert len(cache) <= 8
    largest = PacketCache(max_bytes=20_000)
    for entry, packets in cache._entries.items():
        largest.put(entry, packets)
    assert largest.bytes == cache.bytes
