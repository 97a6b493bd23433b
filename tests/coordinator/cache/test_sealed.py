from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache import sealed
from coordinator.cache.sealed import MAX_VALUE_BYTES, Sealed, seal, unseal
from models.errors import CacheError

KEY = "speech:00ff"


def stored(value: bytes, *, compress: bool = False) -> bytes:
    return seal(KEY, value, made_at_s=10.0, expires_at_s=100.0, compress=compress)


@given(st.binary(max_size=2000), st.booleans())
def test_what_is_sealed_comes_back(value: bytes, compress: bool) -> None:
    assert unseal(KEY, stored(value, compress=compress), 99.9) == Sealed(
        value=value, made_at_s=10.0, expires_at_s=100.0
    )


def test_an_old_value_is_not_there_any_more() -> None:
    assert unseal(KEY, stored(b"v"), 100.0) is None


@given(st.binary(max_size=60), st.booleans(), st.data())
def test_a_damaged_or_cut_value_is_known_for_what_it_is(value: bytes, compress: bool, data: st.DataObject) -> None:
    whole = stored(value * 20, compress=compress)
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= data.draw(st.integers(1, 255))
    for wrong in (whole[:place], bytes(damaged), whole + b"x"):
        with pytest.raises(CacheError, match="damaged"):
            unseal(KEY, wrong, 0.0)


@given(st.text(max_size=20).filter(lambda key: key != KEY))
def test_a_value_of_another_key_is_not_this_ones(key: str) -> None:
    with pytest.raises(CacheError, match="another"):
        unseal(key, stored(b"v"), 0.0)


@given(st.binary(max_size=200))
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(CacheError):
        unseal(KEY, junk, 0.0)


def test_text_is_shortened_and_packets_are_not() -> None:
    text = "北京是中国的首都，历史悠久。".encode() * 30
    assert len(stored(text, compress=True)) < 0.5 * len(stored(text))
    noise = bytes((number * 7919 + number**3) % 251 for number in range(2000))
    assert len(stored(noise, compress=True)) <= len(stored(noise))
    assert len(stored(text[:400], compress=True)) == len(stored(text[:400]))


def test_a_value_that_unpacks_to_more_than_any_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "COMPRESS_FROM_BYTES", 0)
    bomb = stored(bytes(MAX_VALUE_BYTES + 1), compress=True)
    with pytest.raises(CacheError, match="larger"):
        unseal(KEY, bomb, 0.0)


def test_a_value_that_says_it_is_packed_and_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "compress", lambda _value, _level: b"not packed")
    with pytest.raises(CacheError, match="unpacked"):
        unseal(KEY, stored(bytes(600), compress=True), 0.0)
