from __future__ import annotations

import pytest

from coordinator.openai_api.access import Access, keys_from
from models.errors import ConfigError

KEYS = ("first-key-of-sixteen", "second-key-of-sixteen")
HERE = {"host": "localhost:8002"}


@pytest.mark.parametrize(
    ("authorization", "may"),
    [
        ("Bearer first-key-of-sixteen", True),
        ("bearer  second-key-of-sixteen ", True),
        ("Bearer first-key-of-sixteen2", False),
        ("Bearer first-key-of-sixtee", False),
        ("Bearer \udcff", False),
        ("Bearer ", False),
        ("Basic first-key-of-sixteen", False),
        ("first-key-of-sixteen", False),
        ("", False),
    ],
)
def test_only_a_known_key_opens(authorization: str, may: bool) -> None:
    refusal = Access(KEYS).refusal(HERE | {"authorization": authorization}, "127.0.0.1")
    assert (refusal is None) is may


@pytest.mark.parametrize(
    ("peer", "headers", "may"),
    [
        ("127.0.0.1", {"host": "localhost:8002"}, True),
        ("127.0.0.1", {"host": "127.0.0.1"}, True),
        ("::1", {"host": "[::1]:8002"}, True),
        ("127.0.0.1", {"host": "LOCALHOST"}, True),
        ("10.0.0.7", {"host": "localhost"}, False),
        ("", {"host": "localhost"}, False),
        ("testclient", {"host": "localhost"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"host": "rebound.example:8002"}, False),
        ("127.0.0.1", {"host": "localhost.example"}, False),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=127.0.0.1"}, False),
        ("127.0.0.1", {"host": "localhost", "via": "1.1 proxy"}, False),
    ],
)
def test_without_keys_only_this_machine_may_ask(peer: str, headers: dict[str, str], may: bool) -> None:
    refusal = Access(()).refusal(headers, peer)
    assert (refusal is None) is may
    if refusal is not None:
        assert (refusal.status, refusal.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", ()), (" , ", ()), ("a" * 16, ("a" * 16,)), (f" {'a' * 16} ,{'b' * 20},", ("a" * 16, "b" * 20))],
)
def test_keys_stand_between_commas(text: str, keys: tuple[str, ...]) -> None:
    assert keys_from(text) == keys


@pytest.mark.parametrize("text", ["short", f"{'a' * 16},short", "钥匙" * 10, "a key of sixteen letters"])
def test_key_that_can_be_guessed_or_not_be_sent_is_refused_unrepeated(text: str) -> None:
    with pytest.raises(ConfigError, match="COORDINATOR_API_KEYS") as refused:
        keys_from(text)
    assert text not in str(refused.value)
