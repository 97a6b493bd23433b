from __future__ import annotations

import pytest

from coordinator.cache.object_store import ObjectStoreTier
from models.errors import CacheError, ConfigError
from tests.real_time import run


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
            for call in (
                tier.get("answer:k"),
                tier.put("answer:k", b"v", 60),
                tier.drop("answer:k"),
                tier.ping(),
                tier.size(),
            ):
                with pytest.raises(CacheError):
                    await call

    run(scenario())


@pytest.mark.parametrize("bucket", ["", "ab", "Upper-case", "under_score", "-dash", "x" * 64])
def test_a_bad_bucket_name_names_itself(bucket: str) -> None:
    async def scenario() -> None:
        async with ObjectStoreTier.connect("http://127.0.0.1:1", bucket, access_key="a", secret_key="b"):
            pass

    with pytest.raises(ConfigError, match="not an S3 bucket name"):
        run(scenario())
