from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.fleet.tokens import TokenAuthenticator, mint
from edge.gateway.vision_tokens import MAX_TOKEN_CHARS, VisionOffers, VisionTokens
from models.errors import DeviceAuthError

SECRET = "a secret of the fleet"
DEVICE, CLIENT, SESSION = "aa:bb:cc:dd:ee:ff", "11111111-2222-3333-4444-555555555555", "0123456789abcdef" * 2


def tokens(at_s: float = 1e9, secret: str = SECRET) -> VisionTokens:
    return VisionTokens(secret, ttl_s=900, now=lambda: at_s)


TOKEN = tokens().mint(DEVICE, CLIENT, SESSION)


def test_token_is_good_for_its_device_and_names_its_session() -> None:
    assert tokens(1e9 + 899).check(DEVICE, CLIENT, TOKEN) == SESSION
    assert tokens().check(DEVICE.upper(), CLIENT, TOKEN) == SESSION
    assert len(TOKEN) <= MAX_TOKEN_CHARS
    assert " " not in TOKEN


@pytest.mark.parametrize(
    ("device", "client", "token"),
    [
        ("aa:bb:cc:dd:ee:00", CLIENT, TOKEN),
        (DEVICE, "", TOKEN),
        (DEVICE, CLIENT, ""),
        (DEVICE, CLIENT, "x" * 500),
        (DEVICE, CLIENT, TOKEN.replace(SESSION, "f" * 32)),
        (DEVICE, CLIENT, TOKEN.replace("1000000900", "1000009999")),
        (DEVICE, CLIENT, TOKEN[:-1]),
        (DEVICE, CLIENT, tokens(secret="another secret").mint(DEVICE, CLIENT, SESSION)),
        (DEVICE, CLIENT, mint(SECRET, DEVICE, CLIENT, 2_000_000_000)),
        (DEVICE, CLIENT, "\u00b2.a.b"),
    ],
)
def test_any_other_token_is_refused(device: str, client: str, token: str) -> None:
    with pytest.raises(DeviceAuthError):
        tokens().check(device, client, token)


def test_token_expires() -> None:
    with pytest.raises(DeviceAuthError, match="expired"):
        tokens(1e9 + 900).check(DEVICE, CLIENT, TOKEN)


def test_token_of_a_picture_opens_no_websocket() -> None:
    with pytest.raises(DeviceAuthError):
        TokenAuthenticator(SECRET, now=lambda: 1e9).check(DEVICE, CLIENT, TOKEN)


@given(st.text(max_size=80))
def test_no_token_breaks_it(token: str) -> None:
    with pytest.raises(DeviceAuthError):
        tokens().check(DEVICE, CLIENT, token)


def test_offer_has_the_address_and_a_token_of_the_session() -> None:
    offer = VisionOffers("http://edge:8003/xiaozhi/vision/", tokens())(DEVICE, CLIENT, SESSION)
    assert (offer.url, offer.token) == ("http://edge:8003/xiaozhi/vision/", TOKEN)
