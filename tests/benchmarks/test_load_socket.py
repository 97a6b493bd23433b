from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from benchmarks.load_socket import DeviceSocket, frame, place
from models.errors import DeviceError

OPENED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class Ears:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def opened(self, now_s: float) -> None:
        self.told.append("opened")

    def heard_text(self, text: bytes, now_s: float) -> None:
        self.told.append(text)

    def heard_packet(self, packet_bytes: int, now_s: float) -> None:
        self.told.append(packet_bytes)

    def closed(self, reason: str) -> None:
        self.told.append(("closed", reason))


class Transport:
    def __init__(self) -> None:
        self.sent = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True


def connected(url: str = "ws://127.0.0.1:9/xiaozhi/v1/") -> tuple[DeviceSocket, Ears, Transport]:
    ears, transport = Ears(), Transport()
    socket = DeviceSocket(ears, url, {"Device-Id": "02:00:00:00:00:01"}, now=lambda: 1.0)
    socket.connection_made(transport)  # type: ignore[arg-type]  # as much of one as is used
    return socket, ears, transport


def from_server(opcode: Opcode, body: bytes) -> bytes:
    return Frame(opcode, body).serialize(mask=False)


def test_the_request_opens_a_websocket_at_a_real_server() -> None:
    _, _, transport = connected()
    server = ServerProtocol()
    server.receive_data(transport.sent)
    (request,) = server.events_received()
    assert server.accept(request).status_code == 101  # type: ignore[arg-type]  # the only event of a handshake
    assert request.headers["Device-Id"] == "02:00:00:00:00:01"  # type: ignore[union-attr]  # as above
    assert request.headers["Host"] == "127.0.0.1"  # type: ignore[union-attr]  # as above


@pytest.mark.parametrize("length", [0, 1, 125, 126, 4000, 65535])
def test_a_frame_is_what_a_server_reads(length: int) -> None:
    reader = StreamReader()
    reader.feed_data(frame((bytes(range(256)) * 256)[:length]))
    parsing = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as ended:
        next(parsing)
    read = ended.value.value
    assert (read.opcode, read.data) == (Opcode.BINARY, (bytes(range(256)) * 256)[:length])


def test_text_and_packets_go_as_different_frames() -> None:
    assert frame("a")[0] == 0x81
    assert frame(b"a")[0] == 0x82


@given(st.lists(st.integers(1, 400), max_size=20))
def test_messages_arrive_whole_however_they_are_cut(cuts: list[int]) -> None:
    stream = (
        OPENED
        + from_server(Opcode.TEXT, b'{"type":"stt"}')
        + from_server(Opcode.BINARY, bytes(200))
        + from_server(Opcode.BINARY, b"")
        + from_server(Opcode.TEXT, b"x" * 70_000)
    )
    socket, ears, _ = connected()
    for length in cuts:
        socket.data_received(stream[:length])
        stream = stream[length:]
    socket.data_received(stream)
    assert ears.told == ["opened", b'{"type":"stt"}', 200, 0, b"x" * 70_000]


def test_a_ping_is_answered() -> None:
    socket, _, transport = connected()
    socket.data_received(OPENED)
    transport.sent = b""
    socket.data_received(from_server(Opcode.PING, b"hi"))
    assert transport.sent == b"\x8a\x82\x00\x00\x00\x00hi"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered 503"),
        (OPENED + Frame(Opcode.CLOSE, (1013).to_bytes(2, "big")).serialize(mask=False), "closed with 1013"),
    ],
)
def test_a_server_that_does_not_want_us_is_left_with_its_reason(said: bytes, reason: str) -> None:
    socket, ears, transport = connected()
    socket.data_received(said)
    assert transport.is_closed
    socket.connection_lost(None)
    assert ears.told[-1] == ("closed", reason)


def test_a_lost_socket_takes_nothing_more() -> None:
    socket, ears, transport = connected()
    sent = transport.sent
    socket.connection_lost(ConnectionResetError())
    socket.send(b"x")
    socket.hang_up()
    assert (transport.sent, transport.is_closed) == (sent, False)
    assert ears.told == [("closed", "ConnectionResetError")]


def test_an_address_has_a_host_and_a_port() -> None:
    assert place("ws://127.0.0.1:8000/x") == ("127.0.0.1", 8000)
    assert place("ws://edge/x") == ("edge", 80)
    with pytest.raises(DeviceError, match="write ws://"):
        place("http://edge/")
