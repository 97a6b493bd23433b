"""What no device would send, from seeded dice: binary frames and texts, from noise to real ones with one thing wrong."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from edge.gateway import framing
from edge.simulator.uplink import FRAME_MS, RATE_HZ
from models.scripted import tone

MAX_FRAME_BYTES = 64 * 1024
"""The largest message the gateway's WebSocket lets in."""
_LEAD_BYTES = 12
"""Headers of version 2 take 16 bytes; below that everything is a truncation."""

Sender = Callable[[int], bytes]
"""Makes one message for a session of the framing version."""


def real_packets() -> tuple[bytes, ...]:
    """Return what microphones send: every mode and length of Opus that devices have, two channels and silence; needs libopus."""
    from edge.brain.opus import Application, OpusEncoder

    applications: tuple[Application, ...] = ("voip", "audio", "restricted_lowdelay")
    found: list[bytes] = []
    for application in applications:
        for frame_ms in (5, 10, 20, FRAME_MS):
            encoder = OpusEncoder(RATE_HZ, frame_ms, complexity=0, application=application, dtx=True)
            size = encoder.frame_bytes
            pcm = tone(240, RATE_HZ) + bytes(4 * size)
            found.extend(encoder.encode(pcm[start : start + size]) for start in range(0, len(pcm) - size + 1, size))
    return tuple(packet for packet in found if packet)


class FrameGarbage:
    """Binary messages; with the same dice and packets always the same ones."""

    def __init__(self, dice: random.Random, packets: Sequence[bytes]) -> None:
        self._dice = dice
        self._packets = packets
        ways: dict[Sender, int] = {
            self._noise: 25,
            self._noise_in_a_frame: 15,
            self._opus_noise: 12,
            self._mutated: 20,
            self._real: 6,
            self._other_version: 6,
            self._lying: 8,
            self._cut: 6,
            self._empty: 1,
        }
        self._ways = [way for way, share in ways.items() for _ in range(share)]
        self._ways += [self._huge]

    def message(self, version: int) -> bytes:
        """Return the next message for a session whose frames are of ``version``."""
        ways = self._ways
        return ways[int(self._dice.random() * len(ways))](version)

    def _noise(self, _version: int) -> bytes:
        dice = self._dice
        return dice.randbytes(int(dice.random() * 240))

    def _noise_in_a_frame(self, version: int) -> bytes:
        return framing.pack(self._noise(version), version)

    def _opus_noise(self, version: int) -> bytes:
        """Noise behind a table-of-contents byte that says: several frames, with padding and lengths of their own."""
        dice = self._dice
        toc = bytes((int(dice.random() * 64) << 2 | 3, int(dice.random() * 256)))
        return framing.pack(toc + dice.randbytes(int(dice.random() * 120)), version)

    def _real(self, version: int) -> bytes:
        return framing.pack(self._packet(), version)

    def _mutated(self, version: int) -> bytes:
        """One to eight bytes of a real packet are others."""
        dice = self._dice
        packet = bytearray(self._packet())
        for _ in range(1 + int(dice.random() * 8)):
            packet[int(dice.random() * len(packet))] = int(dice.random() * 256)
        return framing.pack(bytes(packet), version)

    def _other_version(self, version: int) -> bytes:
        return framing.pack(self._packet(), version % len(framing.VERSIONS) + 1)

    def _lying(self, _version: int) -> bytes:
        """A header of version 2 or 3 in which any field is wrong, before a real packet."""
        dice, packet = self._dice, self._packet()
        said = dice.choice((0, 1, len(packet) - 1, len(packet) + 1, 0xFFFF, 0xFFFFFFFF, dice.getrandbits(32)))
        kind = dice.choice((0, 0, 1, 255))
        if self._happens(0.5):
            return struct.pack(">BBH", kind, dice.getrandbits(8), said & 0xFFFF) + packet
        return struct.pack(">HHIII", dice.choice((2, 2, 1, 3, 0xFFFF)), kind, 0, dice.getrandbits(32), said) + packet

    def _cut(self, version: int) -> bytes:
        whole = framing.pack(self._packet(), version)
        longest = len(whole) if self._happens(0.5) else _LEAD_BYTES
        return whole[: int(self._dice.random() * longest)]

    def _empty(self, version: int) -> bytes:
        return b"" if self._happens(0.5) else framing.pack(b"", version)

    def _huge(self, version: int) -> bytes:
        """Around the largest packet that is passed on, or as long as a WebSocket message may be."""
        dice = self._dice
        size = 3_990 + int(dice.random() * 20) if self._happens(0.8) else int(dice.random() * MAX_FRAME_BYTES)
        noise = dice.randbytes(size)
        return framing.pack(noise, version) if size < MAX_FRAME_BYTES and version != framing.BARE else noise

    def _packet(self) -> bytes:
        return self._packets[int(self._dice.random() * len(self._packets))]

    def _happens(self, share: float) -> bool:
        return self._dice.random() < share
