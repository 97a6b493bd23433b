from __future__ import annotations

import random

from benchmarks.soak_garbage import MAX_FRAME_BYTES, FrameGarbage, real_packets
from edge.brain.opus import OpusDecoder
from edge.gateway import framing
from models.errors import DeviceProtocolError

PACKETS = real_packets()


def messages(version: int, count: int, seed: int = 1) -> list[bytes]:
    garbage = FrameGarbage(random.Random(seed), PACKETS)
    return [garbage.message(version) for _ in range(count)]


def test_the_same_dice_bring_the_same_garbage() -> None:
    assert messages(2, 500) == messages(2, 500)
    assert messages(2, 500) != messages(2, 500, seed=2)


def test_real_packets_are_decodable_and_of_many_lengths() -> None:
    decoder = OpusDecoder()
    lengths = {len(decoder.decode(packet)) for packet in PACKETS}
    assert decoder.concealed == 0
    assert len(lengths) >= 4


def test_garbage_holds_the_empty_the_huge_and_every_kind_of_bad_header() -> None:
    refused = set()
    for version in framing.VERSIONS:
        found = messages(version, 4_000)
        assert any(not message for message in found)
        assert max(map(len, found)) > 4_000
        assert max(map(len, found)) <= MAX_FRAME_BYTES + 16
        for message in found:
            try:
                framing.decode(message, version)
            except DeviceProtocolError as error:
                refused.add(str(error).translate(str.maketrans("", "", "0123456789")))
    assert len(refused) >= 4, refused


def test_some_garbage_is_opus_and_some_is_not() -> None:
    decoder = OpusDecoder()
    found = [message for message in messages(framing.BARE, 2_000) if 0 < len(message) < 4_000]
    for message in found:
        decoder.decode(message)
    assert 0.05 < decoder.concealed / len(found) < 0.95
