"""Speech as packets, and the memory of it: what was encoded once needs neither a voice nor an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder

FIND_S = 0.005
"""How long a sentence may be looked for beyond this process: its answer was looked for before, and both may add 20 ms to a turn."""


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

    @property
    def name(self) -> str:
        """The key in the cache."""
        return key_of(Kind.SPEECH, self.voice, self.language, self.quality, self.words)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bytes, ...])


class SpeechMemory:
    """Whole spoken sentences by key, in the tiers of the cache."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder

    def known(self, keys: Sequence[SpeechKey]) -> tuple[bytes, ...] | None:
        """Return the packets of the whole sentence under the first key this process knows, None when it knows none."""
        return _packets(self._ladder.near(*(key.name for key in keys)))

    async def find(self, key: SpeechKey) -> tuple[bytes, ...] | None:
        """Return the packets others have put into the far tiers, None when there are none or they take too long."""
        return _packets(await self._ladder.beyond(key.name, within_s=FIND_S))

    def put(self, key: SpeechKey, packets: Sequence[bytes]) -> None:
        """Keep a whole sentence."""
        self._ladder.put(key.name, _encoder.encode(tuple(packets)))


def _packets(value: bytes | None) -> tuple[bytes, ...] | None:
    try:
        return None if value is None else _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
