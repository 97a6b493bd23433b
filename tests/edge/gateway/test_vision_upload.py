from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gateway.vision_upload import MAX_QUESTION_CHARS, read_upload
from models.errors import DeviceProtocolError
from tests.edge.gateway.jpegs import jpeg

KIND = "multipart/form-data; boundary=----ESP32_CAMERA_BOUNDARY"
EDGE = b"------ESP32_CAMERA_BOUNDARY"
JPEG = jpeg()


def part(name: str, content: bytes, more: str = "") -> bytes:
    return EDGE + f'\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


def posted(*parts: bytes) -> bytes:
    return b"".join(parts) + EDGE + b"--\r\n"


QUESTION, FILE = part("question", "这是什么？".encode()), part("file", JPEG, '; filename="camera.jpg"')


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (KIND, posted(QUESTION, FILE)),
        (KIND, posted(FILE, QUESTION)),
        (KIND, posted(part("extra", b"x"), QUESTION, FILE)),
        (KIND, posted(QUESTION, FILE) + b"trailing words"),
        ('Multipart/Form-Data; charset=utf-8; boundary="----ESP32_CAMERA_BOUNDARY"', posted(QUESTION, FILE)),
        (KIND, posted(QUESTION, FILE.replace(b"\r\n\r\n", b"\r\nContent-Type: image/jpeg\r\n\r\n", 1))),
    ],
)
def test_picture_and_question_are_read(kind: str, body: bytes) -> None:
    upload = read_upload(kind, body)
    assert (upload.question, upload.jpeg, upload.size) == ("这是什么？", JPEG, (320, 240))


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("", posted(QUESTION, FILE), "boundary"),
        ("application/json", posted(QUESTION, FILE), "boundary"),
        ("multipart/form-data", posted(QUESTION, FILE), "boundary"),
        ("multipart/form-data; boundary=" + "x" * 71, posted(QUESTION, FILE), "boundary"),
        ("multipart/form-data; boundary=other", posted(QUESTION, FILE), "begin with its boundary"),
        (KIND, b"", "begin with its boundary"),
        (KIND, b"preamble\r\n" + posted(QUESTION, FILE), "begin with its boundary"),
        (KIND, posted(QUESTION), "a part is missing"),
        (KIND, posted(FILE), "a part is missing"),
        (KIND, posted(), "a part is missing"),
        (KIND, posted(part("question", b"  "), FILE), "question is empty"),
        (KIND, posted(part("question", b"\xff"), FILE), "not UTF-8"),
        (KIND, posted(part("question", b"x" * (MAX_QUESTION_CHARS + 1)), FILE), "are allowed"),
        (KIND, posted(QUESTION, QUESTION, FILE), "twice"),
        (KIND, posted(*[part(f"p{n}", b"") for n in range(9)]), "more than 8 parts"),
        (KIND, posted(QUESTION, FILE)[:-4], "cut short"),
        (KIND, QUESTION + FILE, "cut short"),
        (KIND, posted(QUESTION, part("file", JPEG[:-2])), "no end"),
        (KIND, posted(QUESTION, part("file", b"GIF89a")), "no JPEG"),
        (KIND, posted(EDGE + b"\r\nX: y\r\n\r\nz\r\n", FILE), "no name"),
        (KIND, posted(EDGE + b"\r\nno blank line\r\n", FILE), "proper head"),
        (KIND, posted(EDGE + b"\r\n" + b"X" * 2000 + b"\r\n\r\n\r\n", FILE), "proper head"),
    ],
)
def test_broken_upload_is_refused_in_words(kind: str, body: bytes, words: str) -> None:
    with pytest.raises(DeviceProtocolError, match=words):
        read_upload(kind, body)


WHOLE = posted(QUESTION, FILE)


@given(end=st.integers(0, len(WHOLE) - 5))
def test_upload_cut_anywhere_is_refused(end: int) -> None:
    with pytest.raises(DeviceProtocolError):
        read_upload(KIND, WHOLE[:end])


@given(
    kind=st.text(max_size=20).map(lambda rest: f"multipart/form-data;{rest}") | st.just(KIND) | st.text(max_size=20),
    body=st.lists(st.sampled_from([EDGE, b"\r\n", b"--", b"\r\n\r\n", QUESTION, FILE]) | st.binary(max_size=8)).map(
        b"".join
    ),
)
def test_no_upload_breaks_it(kind: str, body: bytes) -> None:
    try:
        upload = read_upload(kind, body)
    except DeviceProtocolError:
        return
    assert upload.jpeg == JPEG
