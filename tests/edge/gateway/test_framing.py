from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gateway.framing import VERSIONS, BinaryFrame, decode, encode, pack, unpack
from models.errors import DeviceProtocolError

HELLO = b"hello-opus"
EXAMPLES = {
    1: HELLO,
    2: bytes.fromhex("0002000000000000000003e80000000a68656c6c6f2d6f707573"),
    3: bytes.fromhex("0000000a68656c6c6f2d6f707573"),
}
versions = st.sampled_from(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_worked_examples_of_the_protocol_are_met_to_the_byte(version: int) -> None:
    assert encode(BinaryFrame(payload=HELLO, timestamp_ms=1000), version) == EXAMPLES[version]
    back = decode(EXAMPLES[version], version)
    assert back == BinaryFrame(payload=HELLO, timestamp_ms=1000 if version == 2 else 0)


@given(versions, st.binary(max_size=65_535), st.integers(0, 2**32 - 1))
def test_what_was_encoded_decodes_to_itself(version: int, payload: bytes, timestamp_ms: int) -> None:
    frame = decode(encode(BinaryFrame(payload=payload, timestamp_ms=timestamp_ms), version), version)
    assert frame.payload == payload
    assert frame.timestamp_ms == (timestamp_ms if version == 2 else 0)


@given(st.binary(max_size=5_000))
def test_our_headers_never_lie_about_the_length(payload: bytes) -> None:
    assert struct.unpack(">I", pack(payload, 2)[12:16])[0] == len(payload)
    assert struct.unpack(">H", pack(payload, 3)[2:4])[0] == len(payload)


@given(versions, st.binary(max_size=64))
def test_random_bytes_decode_or_are_refused_with_our_error(version: int, message: bytes) -> None:
    try:
        payload = unpack(message, version)
    except DeviceProtocolError:
        assert version != 1
    else:
        assert message.endswith(payload)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (2, b""),
        (2, EXAMPLES[2][:15]),
        (2, EXAMPLES[2][:-1]),
        (2, EXAMPLES[2] + b"x"),
        (2, b"\0\3" + EXAMPLES[2][2:]),
        (2, b"\0\2\0\1" + EXAMPLES[2][4:]),
        (2, EXAMPLES[2][:12] + b"\xff\xff\xff\xff" + HELLO),
        (2, EXAMPLES[3]),
        (3, b""),
        (3, EXAMPLES[3][:3]),
        (3, EXAMPLES[3][:-1]),
        (3, EXAMPLES[3] + b"x"),
        (3, b"\1" + EXAMPLES[3][1:]),
        (3, EXAMPLES[2]),
        (0, HELLO),
        (4, HELLO),
    ],
)
def test_header_that_is_short_foreign_or_lies_is_refused(version: int, message: bytes) -> None:
    with pytest.raises(DeviceProtocolError):
        decode(message, version)


def test_refusal_names_both_sizes() -> None:
    with pytest.raises(DeviceProtocolError, match="says 10 bytes, 9 follow"):
        unpack(EXAMPLES[3][:-1], 3)


@pytest.mark.parametrize(("version", "payload"), [(3, bytes(65_536)), (0, HELLO), (4, HELLO)])
def test_packet_the_version_cannot_carry_is_refused(version: int, payload: bytes) -> None:
    with pytest.raises(DeviceProtocolError):
        pack(payload, version)


def test_timestamp_beyond_32_bits_wraps() -> None:
    assert decode(encode(BinaryFrame(payload=b"x", timestamp_ms=2**32 + 5), 2), 2).timestamp_ms == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_silence_of_one_byte_and_empty_packets_pass(version: int) -> None:
    assert unpack(pack(b"\0", version), version) == b"\0"
    assert unpack(pack(b"", version), version) == b""
