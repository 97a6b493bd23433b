"""JPEGs made by hand: right in all their markers, without a picture in them."""

from __future__ import annotations


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def jpeg(width: int = 320, height: int = 240, *, data: bytes = b"\x12\x34", thumbnail: bytes = b"") -> bytes:
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    app = segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0" + thumbnail)
    return b"\xff\xd8" + app + segment(0xC0, frame) + segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + data + b"\xff\xd9"
