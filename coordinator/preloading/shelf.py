"""A near tier with a shelf: part of its room holds what the plan of the hour wants, the rest what devices ask for.

Eviction by what this node saw asks keeps out what only the fleet knows to be wanted, so prepared contents have room of their own.
What leaves the shelf is offered to the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from coordinator.cache.kinds import kind_of
from coordinator.cache.tiers import NearTier

SHELF_SHARE = 0.6
"""Share of the near tier's bytes that the shelf takes. A guess."""
ENTRY_BYTES = 400
"""What an entry takes beyond key and value, about."""


class ShelvedTier:
    """The NearTier whose contents are partly chosen by a plan."""

    def __init__(self, rest: NearTier, *, shelf_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        """``rest`` keeps what devices ask for; ``shelf_bytes`` come on top of its room."""
        self._rest = rest
        self._max_bytes = shelf_bytes
        self._now = now
        self._ranks: dict[str, int] = {}
        """What is wanted, 0 most."""
        self._givable: list[str] = []
        """Keys held when the ranks came, the least wanted last."""
        self._held: dict[str, tuple[float, bytes]] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """What the shelf takes, estimated."""
        return self._held_bytes

    def get(self, key: str) -> bytes | None:
        """Return the value, None when unknown or too old."""
        value = self._rest.get(key)
        if value is not None:
            return value
        expires_at_s, held = self._held.get(key, (0.0, None))
        if held is None:
            return None
        if self._now() >= expires_at_s:
            self._remove(key)
            return None
        return held

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep the value for ``ttl_s`` at most: on the shelf if it is wanted more than what is there, else with the rest."""
        self._remove(key)
        if key in self._ranks and self._has_room(self._ranks[key], weight(key, value)):
            self._held[key] = (self._now() + ttl_s, value)
            self._held_bytes += weight(key, value)
            self._rest.drop(key)
        else:
            self._rest.put(key, value, ttl_s)

    def drop(self, key: str) -> None:
        """Forget the value."""
        self._remove(key)
        self._rest.drop(key)

    def purge(self, prefix: str) -> None:
        """Forget all whose key begins so, and maybe others of their kind."""
        for key in [key for key in self._held if not prefix or kind_of(key) == kind_of(prefix)]:
            self._remove(key)
        self._rest.purge(prefix)

    def want(self, keys: Sequence[str]) -> list[str]:
        """Give the shelf to these keys, most wanted first, and return those it does not hold; others stay until the room is needed."""
        self._ranks = {key: rank for rank, key in enumerate(keys)}
        wanted = sorted((key for key in self._held if key in self._ranks), key=self._ranks.__getitem__)
        self._givable = [*wanted, *(key for key in self._held if key not in self._ranks)]
        now_s = self._now()
        return [key for key in keys if self._held.get(key, (0.0,))[0] <= now_s]

    def _has_room(self, rank: int, size_bytes: int) -> bool:
        """Give what is wanted less than ``rank`` to the rest until there is room; return whether there is."""
        if size_bytes > self._max_bytes:
            return False
        while self._held_bytes + size_bytes > self._max_bytes:
            if not self._givable or self._ranks.get(self._givable[-1], len(self._ranks)) <= rank:
                return False
            given = self._givable.pop()
            expires_at_s, value = self._held.get(given, (0.0, b""))
            self._remove(given)
            if expires_at_s > self._now():
                self._rest.put(given, value, expires_at_s - self._now())
        return True

    def _remove(self, key: str) -> None:
        _, value = self._held.pop(key, (0.0, None))
        if value is not None:
            self._held_bytes -= weight(key, value)


def weight(key: str, value: bytes) -> int:
    """Return the bytes an entry takes, about."""
    return len(key) + len(value) + ENTRY_BYTES
