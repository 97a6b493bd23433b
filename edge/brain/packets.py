"""Speech as packets, and a bounded memory of it: what was encoded once needs neither a voice nor an encoder."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

_ENTRY_BYTES = 400
"""What a key, its tuple and its place in the map take, about."""
_PACKET_BYTES = 41
"""What a packet takes beyond its bytes: object header and reference."""


class SpeechPackets(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a spoken sentence, ready to send."""

    packets: tuple[bytes, ...]
    """Opus of DOWNLINK_FRAME_MS each at DOWNLINK_RATE_HZ, in playing order."""


class SpeechKey(msgspec.Struct, frozen=True, kw_only=True):
    """What makes two spoken sentences the same packets."""

    voice: str
    """Names the voices and their version: other weights are another voice."""
    language: str
    quality: str
    """Name of the level it was encoded at."""
    words: str
    """The sentence as its voice says it."""


class PacketCache:
    """Whole spoken sentences by key; the ones used longest ago make way."""

    def __init__(self, *, max_bytes: int = 64 << 20, max_entries: int = 20_000) -> None:
        """Hold at most ``max_bytes`` of packets with their overhead; 64 MiB are about 4 hours of speech. 0 holds nothing."""
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._entries: OrderedDict[SpeechKey, tuple[bytes, ...]] = OrderedDict()
        self.bytes = 0
        """What the entries take, estimated."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: SpeechKey) -> tuple[bytes, ...] | None:
        """Return the packets of the whole sentence, None when unknown."""
        packets = self._entries.get(key)
        if packets is not None:
            self._entries.move_to_end(key)
        return packets

    def put(self, key: SpeechKey, packets: tuple[bytes, ...]) -> None:
        """Keep a whole sentence; one that alone is too large is not kept."""
        self.bytes -= _size_bytes(key, self._entries.pop(key, None))
        size_bytes = _size_bytes(key, packets)
        if size_bytes > self._max_bytes:
            return
        self._entries[key] = packets
        self.bytes += size_bytes
        while self.bytes > self._max_bytes or len(self._entries) > self._max_entries:
            oldest, dropped = self._entries.popitem(last=False)
            self.bytes -= _size_bytes(oldest, dropped)


def _size_bytes(key: SpeechKey, packets: tuple[bytes, ...] | None) -> int:
    if packets is None:
        return 0
    return _ENTRY_BYTES + 4 * len(key.words) + sum(_PACKET_BYTES + len(packet) for packet in packets)
