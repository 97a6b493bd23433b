from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.openai_api.pictures import picture
from models.prompts import Image

JPEG, PNG = b"\xff\xd8\xff\xe0abc", b"\x89PNG\r\n\x1a\nabc"


def url(data: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("address", "media_type"),
    [
        (url(JPEG), "image/jpeg"),
        (url(JPEG, "image/jpg"), "image/jpeg"),
        (url(PNG, "image/png"), "image/png"),
        (url(PNG, "IMAGE/PNG"), "image/png"),
    ],
)
def test_picture_of_a_data_url_is_read(address: str, media_type: str) -> None:
    shown = picture(address, 100)
    assert isinstance(shown, Image)
    assert shown.media_type == media_type


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://example.com/a.png", "not fetched"),
        ("http://169.254.169.254/latest", "not fetched"),
        ("file:///etc/passwd", "not fetched"),
        ("FTP://a/b", "not fetched"),
        ("", "must be data:"),
        ("data:image/gif;base64,R0lG", "must be data:"),
        ("data:image/svg+xml;base64,PHN2", "must be data:"),
        ("data:image/jpeg,abc", "must be data:"),
        ("data:image/jpeg;base64,@@@", "not base64"),
        ("data:image/jpeg;base64,你", "not base64"),
        (url(PNG), "no image/jpeg"),
        (url(b""), "no image/jpeg"),
        (url(JPEG + bytes(100)), "larger than 100 bytes"),
        (url(JPEG + bytes(94)), "larger than 100 bytes"),
    ],
)
def test_anything_else_is_refused_in_words(address: str, words: str) -> None:
    shown = picture(address, 100)
    assert isinstance(shown, str)
    assert words in shown


@given(st.text(max_size=50).map(lambda rest: f"data:image/jpeg;base64,{rest}") | st.text(max_size=50))
def test_no_address_breaks_it(address: str) -> None:
    assert isinstance(picture(address, 100), str | Image)
