from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.redis_tier import RedisTier, _escaped
from models.errors import CacheError, ConfigError
from tests.real_time import run


@pytest.mark.parametrize("url", ["", "127.0.0.1:6379", "http://127.0.0.1:6379"])
def test_a_bad_address_names_itself(url: str) -> None:
    async def scenario() -> None:
        async with RedisTier.connect(url):
            pass

    with pytest.raises(ConfigError, match="not a Redis address"):
        run(scenario())


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_server_that_is_away_is_a_cache_error(unused_tcp_port: int, scheme: str) -> None:
    async def scenario() -> None:
        async with RedisTier.connect(f"{scheme}://127.0.0.1:{unused_tcp_port}") as tier:
            for call in (
                tier.get("k"),
                tier.put("k", b"v", 60),
                tier.drop("k"),
                tier.ping(),
                tier.size(),
                tier.lease("k", 1),
                tier.release("k", "token"),
            ):
                with pytest.raises(CacheError):
                    await call

    run(scenario())


@given(st.text(max_size=20))
def test_an_escaped_text_has_no_wildcard_left(text: str) -> None:
    escaped = _escaped(text)
    for place, character in enumerate(escaped):
        if character in "*?[":
            assert escaped[place - 1] == "\\"
