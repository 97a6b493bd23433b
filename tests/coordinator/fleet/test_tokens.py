from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.fleet.tokens import TokenAuthenticator, mint
from models.errors import DeviceAuthError

DEVICE, CLIENT = "aa:bb:cc:dd:ee:ff", "0f3c"
DOOR = TokenAuthenticator("secret", now=lambda: 1000.0)


def test_a_fresh_token_opens_the_door_whatever_the_case_of_the_mac() -> None:
    DOOR.check(DEVICE.upper(), CLIENT, mint("secret", DEVICE, CLIENT, 1001))


@pytest.mark.parametrize(
    ("device", "client", "token"),
    [
        (DEVICE, CLIENT, mint("secret", DEVICE, CLIENT, 1000)),
        (DEVICE, CLIENT, mint("other", DEVICE, CLIENT, 2000)),
        ("aa:bb:cc:dd:ee:00", CLIENT, mint("secret", DEVICE, CLIENT, 2000)),
        (DEVICE, "ffff", mint("secret", DEVICE, CLIENT, 2000)),
        (DEVICE, CLIENT, mint("secret", DEVICE, CLIENT, 2000).replace("2000", "9000")),
        (DEVICE, CLIENT, ""),
        (DEVICE, CLIENT, "2000"),
        (DEVICE, CLIENT, "٢.x"),
    ],
)
def test_an_old_foreign_or_forged_token_does_not(device: str, client: str, token: str) -> None:
    with pytest.raises(DeviceAuthError) as caught:
        DOOR.check(device, client, token)
    assert not token or token not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_refused_with_the_same_error(token: str) -> None:
    with pytest.raises(DeviceAuthError):
        DOOR.check(DEVICE, CLIENT, token)


def test_a_token_fits_a_header_without_spaces() -> None:
    token = mint("secret", DEVICE, CLIENT, 2_000_000_000)
    assert " " not in token
    assert len(token) < 64
