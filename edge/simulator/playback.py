"""Opus packets into sound on the device's clock: a queue of 40, no jitter buffer, an audible gap whenever it runs dry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

QUEUE_PACKETS = 40
"""The firmware's decode queue: 2400 / 60 packets whatever their length (protocol §6.2). Two more may hide behind it; not counted on."""


class Decoder(Protocol):
    """Opus to PCM with the memory of one stream."""

    concealed: int
    """Packets that were not Opus."""

    def decode(self, packet: bytes) -> bytes:
        """Return s16le mono; something plausible, and one more ``concealed``, for what is not Opus."""
        ...


@dataclass(slots=True)
class Sound:
    """What came out of the loudspeaker, and what did not."""

    pcm: bytearray = field(default_factory=bytearray)
    """s16le mono; gaps are in it as silence."""
    first_ms: float | None = None
    """When the first frame began to play."""
    gaps_ms: list[float] = field(default_factory=list)
    frames: int = 0
    dropped: int = 0
    """Packets that found the queue full."""
    cut: int = 0
    """Packets thrown out of the queue because speaking began anew."""
    undecodable: int = 0
    """Packets that were not Opus of the announced length."""


class Playback:
    """The device's loudspeaker; every method takes the device's time in milliseconds, which never runs backwards."""

    def __init__(self, new_decoder: Callable[[int], Decoder], *, rate_hz: int = 24_000, frame_ms: int = 60) -> None:
        self.rate_hz = rate_hz
        self.frame_ms = frame_ms
        self.sound = Sound()
        self._new_decoder = new_decoder
        self._decoder: Decoder | None = None
        self._queue: deque[bytes] = deque()
        self._ends_ms: float | None = None
        """When the frame now playing ends."""
        self._dry_ms: float | None = None
        """Since when nothing plays although speaking has begun to sound."""

    @property
    def drains_ms(self) -> float | None:
        """When the last packet received will have been played; None when nothing plays."""
        return None if self._ends_ms is None else self._ends_ms + len(self._queue) * self.frame_ms

    def reset(self, now_ms: float) -> None:
        """Forget the stream: speaking begins, the decoder is new and the queue is empty."""
        self.advance(now_ms)
        self.sound.cut += len(self._queue)
        self._queue.clear()
        self._decoder = self._new_decoder(self.rate_hz)
        self._ends_ms = self._dry_ms = None

    def put(self, packet: bytes, now_ms: float) -> None:
        """Take a packet from the network; dropped without a word when the queue is full."""
        self.advance(now_ms)
        if self._ends_ms is None:
            if self._dry_ms is not None:
                self._gap(now_ms - self._dry_ms)
            self._play(packet, now_ms)
        elif len(self._queue) >= QUEUE_PACKETS:
            self.sound.dropped += 1
        else:
            self._queue.append(packet)

    def advance(self, now_ms: float) -> None:
        """Play up to ``now_ms``."""
        while self._ends_ms is not None and self._ends_ms <= now_ms:
            if self._queue:
                self._play(self._queue.popleft(), self._ends_ms)
            else:
                self._dry_ms, self._ends_ms = self._ends_ms, None

    def is_drained(self, now_ms: float) -> bool:
        """Say whether everything received has been played."""
        self.advance(now_ms)
        return self._ends_ms is None

    def take(self) -> Sound:
        """Return what sounded since the last call and begin a new account."""
        sound, self.sound = self.sound, Sound()
        return sound

    def _play(self, packet: bytes, at_ms: float) -> None:
        if self.sound.first_ms is None:
            self.sound.first_ms = at_ms
        self._ends_ms = at_ms + self.frame_ms
        self.sound.frames += 1
        self.sound.pcm += self._decoded(packet)

    def _decoded(self, packet: bytes) -> bytes:
        frame_bytes = self.rate_hz * self.frame_ms // 1000 * 2
        if self._decoder is None:
            self._decoder = self._new_decoder(self.rate_hz)
        before = self._decoder.concealed
        pcm = self._decoder.decode(packet)
        if self._decoder.concealed > before or len(pcm) != frame_bytes:
            self.sound.undecodable += 1
        return pcm[:frame_bytes].ljust(frame_bytes, b"\0")

    def _gap(self, length_ms: float) -> None:
        if length_ms > 0:
            self.sound.gaps_ms.append(length_ms)
            self.sound.pcm += bytes(round(length_ms * self.rate_hz / 1000) * 2)
