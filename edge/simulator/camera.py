"""The device's camera: shows its picture to the server with a question, as firmware posts it (protocol §10.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx

from edge.gateway.vision_tokens import VisionOffer
from edge.simulator.bootstrap import HTTP_TIMEOUT_S, Identity
from models.errors import DeviceError

BOUNDARY = "----ESP32_CAMERA_BOUNDARY"
CHUNK_BYTES = 512
"""The encoder hands its picture over in pieces of this size, each written as a chunk of its own."""


class Camera:
    """Always sees the same ``jpeg``."""

    def __init__(self, identity: Identity, jpeg: bytes, *, timeout_s: float = HTTP_TIMEOUT_S) -> None:
        self._identity = identity
        self._jpeg = jpeg
        self._timeout_s = timeout_s

    async def explain(self, offer: VisionOffer, question: str) -> str:
        """Post the picture and return the server's answer as it is; raise DeviceError where firmware's tool would fail."""
        headers = {
            "Device-Id": self._identity.device_id,
            "Client-Id": self._identity.uuid,
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        }
        if offer.token:
            headers["Authorization"] = f"Bearer {offer.token}"
        try:
            async with httpx.AsyncClient(timeout=self._timeout_s, trust_env=False) as http:
                answer = await http.post(offer.url, headers=headers, content=self._body(question))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DeviceError(f"cannot show the picture to {offer.url} ({type(error).__name__})") from error
        if answer.status_code != httpx.codes.OK:
            raise DeviceError(f"{offer.url} answers {answer.status_code}; a device takes 200 only")
        return answer.text

    async def _body(self, question: str) -> AsyncGenerator[bytes, None]:
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="question"\r\n\r\n{question}\r\n'.encode()
        head = 'Content-Disposition: form-data; name="file"; filename="camera.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        yield f"--{BOUNDARY}\r\n{head}".encode()
        for start in range(0, len(self._jpeg), CHUNK_BYTES):
            yield self._jpeg[start : start + CHUNK_BYTES]
        yield f"\r\n--{BOUNDARY}--\r\n".encode()
