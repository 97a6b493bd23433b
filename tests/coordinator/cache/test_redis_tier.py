from __future__ import annotations

import pytest

from coordinator.cache.redis_tier import RedisTier
from models.errors import CacheError, ConfigError
from tests.real_time import run


@pytest.mark.parametrize("url", ["", "127.0.0.1:6379", "http://127.0.0.1:6379"])
def test_a_bad_address_names_itself(url: str) -> None:
    async def scenario() -> None:
        async with RedisTier.connect(url):
            pass

    with pytest.raises(ConfigError, match="not a Redis address"):
        run(scenario())


def test_a_server_that_is_away_is_a_cache_error(unused_tcp_port: int) -> None:
    async def scenario() -> None:
        async with RedisTier.connect(f"redis://127.0.0.1:{unused_tcp_port}/0") as tier:
            with pytest.raises(CacheError):
                await tier.get("k")
            with pytest.raises(CacheError):
                await tier.put("k", b"v")

    run(scenario())
