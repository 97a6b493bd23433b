from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.object_store import ObjectStoreTier, unwrap, wrap
from models.errors import CacheError, ConfigError
from tests.real_time import run


@given(st.binary(max_size=500))
def test_what_is_wrapped_comes_back(value: bytes) -> None:
    assert unwrap(wrap(value, 100.0), 99.9) == value


def test_an_old_value_is_a_miss() -> None:
    assert unwrap(wrap(b"v", 100.0), 100.0) is None


@given(st.binary(max_size=60), st.data())
def test_a_damaged_or_cut_value_is_a_miss(value: bytes, data: st.DataObject) -> None:
    stored = wrap(value, 100.0)
    cut = data.draw(st.integers(0, len(stored) - 1))
    assert unwrap(stored[:cut], 0.0) is None
    damaged = bytearray(stored)
    damaged[cut] ^= data.draw(st.integers(1, 255))
    assert unwrap(bytes(damaged), 0.0) is None


@pytest.mark.parametrize("url", ["", "127.0.0.1:9000", "ftp://x", "http://", "http://host:1/path"])
def test_a_bad_address_names_itself(url: str) -> None:
    async def scenario() -> None:
        async with ObjectStoreTier.connect(url, "bucket", access_key="a", secret_key="b"):
            pass

    with pytest.raises(ConfigError, match="not an S3 address"):
        run(scenario())


def test_a_store_that_is_away_is_a_cache_error(unused_tcp_port: int) -> None:
    async def scenario() -> None:
        url = f"http://127.0.0.1:{unused_tcp_port}"
        async with ObjectStoreTier.connect(url, "bucket", access_key="a", secret_key="b") as tier:
            with pytest.raises(CacheError):
                await tier.get("answer:k")
            with pytest.raises(CacheError):
                await tier.put("answer:k", b"v")

    run(scenario())


@pytest.mark.parametrize("bucket", ["", "ab", "Upper-case", "under_score", "-dash", "x" * 64])
def test_a_bad_bucket_name_names_itself(bucket: str) -> None:
    async def scenario() -> None:
        async with ObjectStoreTier.connect("http://127.0.0.1:1", bucket, access_key="a", secret_key="b"):
            pass

    with pytest.raises(ConfigError, match="not an S3 bucket name"):
        run(scenario())
