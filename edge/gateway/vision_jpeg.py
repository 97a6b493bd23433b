"""Whether bytes are a whole JPEG, and how large; reads markers only, decodes nothing (ITU-T T.81, annex B); pure."""

from __future__ import annotations

from typing import NamedTuple

from models.errors import DeviceProtocolError

MAX_SIDE = 8192
MAX_PIXELS = 16_000_000
"""Larger ones are no camera's of a device but a bomb for whoever unpacks them."""
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_START_OF_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers; the three left out are tables and a reserved one."""
_FRAME_BYTES = 8
"""What a frame's segment holds before the components: its length, a depth, height, width, their count."""


class Size(NamedTuple):
    """Of a picture in pixels."""

    width: int
    height: int


def size_of(data: bytes) -> Size:
    """Return the picture's size; raise DeviceProtocolError when it is no JPEG, is cut short, or too large to be shown to a model."""
    if not data.startswith(_SOI):
        raise DeviceProtocolError("the picture is no JPEG")
    size: Size | None = None
    place = len(_SOI)
    while True:
        marker, place = _marker(data, place)
        length = int.from_bytes(data[place : place + 2], "big")
        if length < 2 or place + length > len(data):  # noqa: PLR2004 - a length counts its own two bytes
            raise DeviceProtocolError("the picture is broken: a segment of it is not whole")
        if marker in _FRAMES and length >= _FRAME_BYTES:
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (3, 5))
            size = Size(width, height)
        place += length
        if marker == _START_OF_SCAN:
            break
    if size is None or data.find(_EOI, place) < 0:
        raise DeviceProtocolError("the picture is broken: it has no size or no end")
    if not (1 <= size.width <= MAX_SIDE and 1 <= size.height <= MAX_SIDE) or size.width * size.height > MAX_PIXELS:
        raise DeviceProtocolError("the picture has too many pixels, or none")
    return size


def _marker(data: bytes, place: int) -> tuple[int, int]:
    """Return the marker at ``place`` and where its segment begins."""
    if data[place : place + 1] != b"\xff":
        raise DeviceProtocolError("the picture is broken: a marker is missing")
    while data[place : place + 1] == b"\xff":
        place += 1
    if place >= len(data) or data[place] == 0:
        raise DeviceProtocolError("the picture is broken: it ends before its first line")
    return data[place], place + 1
