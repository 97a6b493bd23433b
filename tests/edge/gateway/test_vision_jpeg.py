from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gateway.vision_jpeg import MAX_SIDE, size_of
from models.errors import DeviceProtocolError
from tests.edge.gateway.jpegs import jpeg, segment

GOOD = jpeg()


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (jpeg(640, 480), (640, 480)),
        (jpeg(1, 1), (1, 1)),
        (jpeg(MAX_SIDE, 1), (MAX_SIDE, 1)),
        (jpeg(thumbnail=jpeg(8, 8)), (320, 240)),
        (GOOD + b"\0" * 100, (320, 240)),
        (b"\xff\xd8\xff\xff" + GOOD[3:], (320, 240)),
    ],
)
def test_size_of_a_whole_jpeg_is_read(data: bytes, size: tuple[int, int]) -> None:
    assert size_of(data) == size


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_a_real_encoder_is_whole(progressive: bool) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    written = io.BytesIO()
    image.effect_noise((64, 48), 90).save(written, "JPEG", quality=80, progressive=progressive)
    assert size_of(written.getvalue()) == (64, 48)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JPEG"),
        (b"\x89PNG\r\n\x1a\n", "no JPEG"),
        (b"\xff\xd8", "marker is missing"),
        (b"\xff\xd8\xff", "ends before"),
        (b"\xff\xd8\xff\x00", "ends before"),
        (b"\xff\xd8\xff\xe0", "not whole"),
        (b"\xff\xd8\xff\xe0\x00\x01", "not whole"),
        (b"\xff\xd8\xff\xe0\xff\xff", "not whole"),
        (b"\xff\xd8" + segment(0xDA, b"\0\0\0\0\0\0") + b"\xff\xd9", "no size"),
        (b"\xff\xd8" + segment(0xC0, b"\x08") + segment(0xDA, b"") + b"\xff\xd9", "no size"),
        (GOOD[:-2], "no end"),
        (jpeg(0, 5), "pixels"),
        (jpeg(5, 0), "pixels"),
        (jpeg(MAX_SIDE + 1, 1), "pixels"),
        (jpeg(5000, 5000), "pixels"),
    ],
)
def test_broken_or_monstrous_picture_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(DeviceProtocolError, match=words):
        size_of(data)


@given(st.integers(0, len(GOOD) - 3))
def test_picture_cut_anywhere_is_refused(end: int) -> None:
    with pytest.raises(DeviceProtocolError):
        size_of(GOOD[:end])


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda rest: b"\xff\xd8\xff" + rest))
def test_no_bytes_break_it(data: bytes) -> None:
    try:
        size = size_of(data)
    except DeviceProtocolError:
        return
    assert min(size) >= 1
