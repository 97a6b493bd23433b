"""Pictures inside a request: data URLs, checked; pure. Nothing is ever fetched for a stranger, so other addresses are refused."""

from __future__ import annotations

import base64
import binascii
import re

from models.prompts import Image

_DATA_URL = re.compile(r"data:(image/(?:jpeg|jpg|png));base64,", re.IGNORECASE)
_MAGIC = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n"}
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NOT_FETCHED = "pictures are not fetched from other servers: send the picture itself as data:image/jpeg;base64,..."
_NO_DATA_URL = "must be data:image/jpeg;base64,... or data:image/png;base64,..."


def picture(url: str, max_bytes: int) -> Image | str:
    """Return the picture of a data URL, or why it is none, in words."""
    found = _DATA_URL.match(url)
    if found is None:
        return _NOT_FETCHED if _REMOTE.match(url) else _NO_DATA_URL
    media_type = found.group(1).lower().replace("/jpg", "/jpeg")
    encoded = url[found.end() :]
    too_large = f"the picture is larger than {max_bytes} bytes: send a smaller one"
    if len(encoded) > (max_bytes + 2) // 3 * 4:
        return too_large
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return "the picture is not base64"
    if not data.startswith(_MAGIC[media_type]):
        return f"the picture is no {media_type}"
    return too_large if len(data) > max_bytes else Image(media_type=media_type, data=data)
