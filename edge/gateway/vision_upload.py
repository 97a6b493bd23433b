"""What a device's camera posts: a question and a JPEG as multipart/form-data (protocol §10.1); pure.

Firmware sends the parts ``question`` and ``file`` in this order; others may send them in any, and further parts are passed over.
"""

from __future__ import annotations

import re

import msgspec

from edge.gateway.vision_jpeg import Size, size_of
from models.errors import DeviceProtocolError

MAX_PARTS = 8
MAX_QUESTION_CHARS = 1_000
"""As long as a spoken question may be (``brain.conversation``)."""
_MAX_HEAD_BYTES = 1024
_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))""", re.IGNORECASE
)
_NAME = re.compile(
    rb"""^content-disposition:\s*form-data\s*;(?:.*;)?\s*name="([^"]{0,64})\"""", re.IGNORECASE | re.MULTILINE
)


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A picture and what is asked of it."""

    question: str
    jpeg: bytes
    size: Size


def read_upload(content_type: str, body: bytes) -> Upload:
    """Return what was posted; raise DeviceProtocolError saying what is missing or broken, never what it holds."""
    parts = _parts(content_type, body)
    if "question" not in parts or "file" not in parts:
        raise DeviceProtocolError("a part is missing: send question and file")
    try:
        question = parts["question"].decode().strip()
    except UnicodeDecodeError as error:
        raise DeviceProtocolError("the question is not UTF-8") from error
    if not question:
        raise DeviceProtocolError("the question is empty")
    if len(question) > MAX_QUESTION_CHARS:
        raise DeviceProtocolError(f"the question has {len(question)} characters, {MAX_QUESTION_CHARS} are allowed")
    return Upload(question=question, jpeg=parts["file"], size=size_of(parts["file"]))


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the contents by name."""
    found = _BOUNDARY.match(content_type.strip())
    if found is None:
        raise DeviceProtocolError("Content-Type must be multipart/form-data with a boundary")
    delimiter = b"\r\n--" + (found.group(1) or found.group(2)).encode("latin-1", "replace")
    before, *pieces = (b"\r\n" + body).split(delimiter, MAX_PARTS + 2)
    if before or len(pieces) > MAX_PARTS + 1:
        raise DeviceProtocolError(f"the body does not begin with its boundary, or has more than {MAX_PARTS} parts")
    if not pieces or not pieces[-1].startswith(b"--"):
        raise DeviceProtocolError("the body has no end: the upload was cut short")
    parts: dict[str, bytes] = {}
    for piece in pieces[:-1]:
        name, content = _part(piece)
        if name in parts:
            raise DeviceProtocolError("a part was sent twice")
        parts[name] = content
    return parts


def _part(piece: bytes) -> tuple[str, bytes]:
    head, blank, content = piece.partition(b"\r\n\r\n")
    if not blank or len(head) > _MAX_HEAD_BYTES or not head.startswith(b"\r\n"):
        raise DeviceProtocolError("a part has no proper head")
    found = _NAME.search(head)
    if found is None:
        raise DeviceProtocolError("a part has no name")
    return found.group(1).decode("latin-1"), content
