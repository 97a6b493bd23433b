"""Finished turns, kept for a stated time in a stream of the hub: found by id, read by time, or read from a file of JSON lines.

It holds what people said. Nothing is kept unless the operator says for how long, and what was kept is deleted once he says 0.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

import msgspec

from coordinator.jetstream import JetStream, Kept
from coordinator.turns import TurnRecord, decode_turn
from coordinator.wire import TURN_STREAM, turn_subject
from models.errors import ConfigError

HOW_TO_KEEP = "the coordinator keeps turns when it is started with COORDINATOR_KEEP_TURNS_HOURS above 0"
_S_PER_HOUR = 3600
_NS = 1_000_000_000
_MIB = 1 << 20


class KeptTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn and when it ended, in seconds since 1970; 0 when nobody knows."""

    at_s: float = 0.0
    turn: TurnRecord


class TurnLog:
    """The stream of finished turns."""

    def __init__(self, streams: JetStream, *, now: Callable[[], float] = time.time) -> None:
        self._streams = streams
        self._now = now

    async def keep(self, *, hours: float, mib: int = 1024, replicas: int = 1) -> bool:
        """Keep turns for so long and in so much space, the oldest give way; 0 hours deletes what was kept. Returns whether it did.

        Raises CloudUnreachableError, ConfigError.
        """
        if not hours:
            return await self._streams.drop(TURN_STREAM)
        await self._streams.make(
            {
                "name": TURN_STREAM,
                "description": "what people said and what they were answered",
                "subjects": [turn_subject("*")],
                "max_age": int(hours * _S_PER_HOUR * _NS),
                "max_bytes": mib * _MIB,
                "num_replicas": replicas,
                "storage": "file",
                "compression": "s2",
                "discard": "old",
                "no_ack": True,
                "allow_direct": True,
            }
        )
        return False

    async def find(self, turn_id: str) -> KeptTurn | None:
        """Return the turn of this id, None when it is not kept; raise CloudUnreachableError, ConfigError."""
        await self._check()
        kept = await self._streams.last(TURN_STREAM, turn_subject("*", turn_id))
        return _turn(kept) if kept else None

    async def since(self, seconds: float) -> AsyncGenerator[KeptTurn, None]:
        """Yield the turns that ended in the last ``seconds``, oldest first; raise CloudUnreachableError, ConfigError."""
        await self._check()
        reading = self._streams.read(TURN_STREAM, turn_subject("*"), since_s=self._now() - seconds)
        async with aclosing(reading) as messages:
            async for kept in messages:
                if turn := _turn(kept):
                    yield turn

    async def _check(self) -> None:
        if not await self._streams.has(TURN_STREAM):
            raise ConfigError(f"no turns are kept: {HOW_TO_KEEP}")


def _turn(kept: Kept) -> KeptTurn | None:
    """Return the turn, None for a message that is none: anybody may publish on the subject."""
    try:
        return KeptTurn(at_s=kept.at_s, turn=decode_turn(kept.payload))
    except msgspec.MsgspecError:
        return None


def without_words(turn: TurnRecord) -> TurnRecord:
    """Return the record without what was said: as that of a private device may leave the edge."""
    return msgspec.structs.replace(turn, heard="", answer="")


def turn_line(kept: KeptTurn) -> str:
    """Return the turn as one line of JSON."""
    return msgspec.json.encode(kept).decode()


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_kept = msgspec.json.Decoder(KeptTurn)
_bare = msgspec.json.Decoder(TurnRecord)


def turns_in(lines: Iterable[str], name: str) -> list[KeptTurn]:
    """Return the turns of lines as ``turn_line`` writes them, or of records alone; raise ConfigError naming ``name`` and the line."""
    found: list[KeptTurn] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            is_kept = "turn" in _fields.decode(line)
            found.append(_kept.decode(line) if is_kept else KeptTurn(turn=_bare.decode(line)))
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ConfigError(f"{name}, line {number}: not a turn: {error}") from error
    return found


def read_turns(path: Path) -> list[KeptTurn]:
    """Return the turns of a file of JSON lines; raise ConfigError naming file, line and what is wrong. Blocks."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8") from error
    return turns_in(text.split("\n"), str(path))
