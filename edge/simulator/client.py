"""The device's WebSocket, opened as the firmware opens it; the one module of the client side that imports websockets."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from edge.simulator.bootstrap import Address, Identity, boot
from edge.simulator.camera import Camera
from edge.simulator.device import Device, Framing, running
from edge.simulator.firmware import Firmware
from models.errors import DeviceAuthError, DeviceError

CONNECT_TIMEOUT_S = 10.0
"""How long a device waits for ``101`` (protocol §4.1)."""
MAX_MESSAGE_BYTES = 64 * 1024
"""A device would run out of memory long before; larger messages close the connection."""
_REFUSED = (401, 403)


class _Connection(ClientConnection):
    """A connection whose ``Host`` header has no port, as the firmware's (protocol §4.1)."""

    def __init__(self, protocol: Any, **options: Any) -> None:
        protocol.uri = replace(protocol.uri, port=443 if protocol.uri.secure else 80)
        super().__init__(protocol, **options)


class WebSocket:
    """An open WebSocket as a ``device.Socket``."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, message: str | bytes) -> None:
        """Send one message; once the socket is gone ``receive`` tells, not this."""
        try:
            await self._connection.send(message)
        except ConnectionClosed:
            return

    async def receive(self) -> str | bytes | None:
        """Return the next message, None once the socket is gone."""
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None


@asynccontextmanager
async def connect(
    ota_url: str = "",
    *,
    url: str = "",
    token: str = "",
    version: int = 1,
    identity: Identity | None = None,
    photo: bytes = b"",
    now: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Device, None]:
    """Boot at ``ota_url``, or take ``url`` and ``token`` as given, and yield a device that has said hello.

    ``version`` is the binary framing when ``url`` is given; the boot answer names its own. A device with a ``photo``, a JPEG, has a
    camera that always sees it. Leaving closes TCP without a Close frame, as
    devices do. Raises DeviceError, or a subclass, in one line that names the address.
    """
    identity = identity or Identity()
    address = Address(url=url, token=token, version=version) if url else await boot(ota_url, identity)
    camera = Camera(identity, photo) if photo else None
    async with (
        _websocket(address, identity) as socket,
        running(_device(socket, address.version, camera, now)) as device,
    ):
        await device.greet()
        yield device


@asynccontextmanager
async def _websocket(address: Address, identity: Identity) -> AsyncGenerator[WebSocket, None]:
    connection = await _opened(address, identity)
    try:
        yield WebSocket(connection)
    finally:
        connection.transport.close()
        await connection.wait_closed()


async def _opened(address: Address, identity: Identity) -> ClientConnection:
    try:
        return await open_websocket(
            address.url,
            additional_headers=identity.websocket_headers(address),
            compression=None,
            create_connection=_Connection,
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=CONNECT_TIMEOUT_S,
            ping_interval=None,
            proxy=None,
            user_agent_header=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in _REFUSED:
            raise DeviceAuthError(f"{address.url} refuses the token ({status}): boot again for a fresh one") from error
        raise DeviceError(f"{address.url} answers {status} instead of opening a WebSocket") from error
    except InvalidURI as error:
        raise DeviceError(f"{address.url!r} is no WebSocket address: use ws://host:port/path") from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise DeviceError(f"cannot reach {address.url}: is an edge running there? ({type(error).__name__})") from error


def _device(socket: WebSocket, version: int, camera: Camera | None, now: Callable[[], float]) -> Device:
    from edge.brain.opus import OpusDecoder, OpusEncoder
    from edge.gateway import framing

    return Device(
        socket,
        Firmware(OpusDecoder, version=version, has_camera=camera is not None),
        OpusEncoder(16_000, 60, complexity=0, dtx=True),
        Framing(
            pack=lambda packet: framing.pack(packet, version),
            unpack=lambda message: framing.unpack(message, version),
        ),
        camera=camera,
        now=now,
    )
