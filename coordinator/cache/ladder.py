"""The cache as a ladder of tiers: this process's memory, then Redis, then S3; the first one that knows answers, a broken one is a miss.

What is found far away is copied into the nearer tiers; what is put is in memory at once and written to the others behind the turn. A look-up
asks the far tiers for ``LOOK_S`` altogether, once for all who want the same key; a tier that was late is not asked again before it answered
in the background. No error leaves the ladder: a cache may fail, a request may not.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, Self, TypeVar

from coordinator.cache.guard import Guard
from coordinator.cache.kinds import COMPRESSED, TERMS, Terms, TierName, kind_of
from coordinator.cache.purges import Purges
from coordinator.cache.sealed import Sealed, seal, unseal
from coordinator.cache.tiers import FarTier, Leasing, NearTier
from coordinator.cache.write_behind import WriteBehind, Written
from models.errors import CacheError

LOOK_S = 0.01
"""How long all far tiers together may take for one look-up: with those of its first sentence a turn stays within the 20 ms it may lose."""
ABSENT_S = 1.0
"""How long the far tiers are believed not to know a key: as long as one turn may ask for it twice. Another node's answer is missed meanwhile."""
UNSURE_S = 0.1
"""The same where one of them did not tell: the same turn asks no second time."""
MAX_ABSENT = 4096
PATIENCE_S = 0.004
"""After how long without a word from one tier the next is asked as well. A guess: many times what Redis takes, and S3 has time left."""
STOOD_STILL_S = 0.01
"""A limit that passed this much earlier says that the process did nothing meanwhile, the far tier maybe did. A guess."""
_TURNS_TO_READ = 4
"""Turns of the loop in which an answer that came meanwhile is read and handed on."""
CLOSE_S = 2.0
"""How long writes may take that still wait when the ladder is left."""

T = TypeVar("T")
_Found = Sealed | bool
Result = Literal["hit", "miss", "error", "damaged", "skipped"] | Written
Observe = Callable[[str, str, Result], None]


def _ignore(_kind: str, _tier: str, _result: Result) -> None:
    """Observe nothing."""


class Ladder:
    """The tiers of one process. Without a near tier nothing is remembered here; far ones need ``open``."""

    def __init__(
        self,
        near: NearTier | None = None,
        far: Sequence[FarTier] = (),
        *,
        terms: Terms = TERMS,
        observe: Observe = _ignore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``far`` is in the order of asking. ``observe`` hears kind, tier and result of every look-up and write."""
        self.purges = Purges()
        """What an operator wants forgotten; values made before are misses."""
        self._near = near
        self._terms = terms
        self._observe = observe
        self._clock = clock
        self._guards = {tier.name: Guard(tier.name, tier.ping) for tier in far}
        self._far = tuple(far)
        self._writers = {tier.name: WriteBehind(tier, self._guards[tier.name], self._note_write) for tier in far}
        self._looking: dict[str, asyncio.Task[bytes | None]] = {}
        self._asking: set[asyncio.Task[_Found]] = set()
        """Questions to tiers; one that hangs is let hang until its time is over, so that it is known."""
        self._absent: OrderedDict[str, float] = OrderedDict()
        """Keys that the far tiers do not know, or did not tell, and until when they are not asked again."""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Self, None]:
        """Write to the far tiers and ask broken ones again while the body runs; what waits to be written then is, if it can."""
        runs = [*(guard.run() for guard in self._guards.values()), *(writer.run() for writer in self._writers.values())]
        tasks = [asyncio.create_task(run, name="cache") for run in runs]
        try:
            yield self
            await self.written(CLOSE_S)
        finally:
            ending = [*tasks, *self._looking.values(), *self._asking]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    @property
    def is_empty(self) -> bool:
        """Whether there is no tier at all, so that nothing is ever remembered."""
        return self._near is None and not self._far

    @property
    def writes_waiting(self) -> dict[str, Callable[[], int]]:
        """How many values wait to be written, by far tier."""
        return {name: writer.__len__ for name, writer in self._writers.items()}

    def near(self, *keys: str) -> bytes | None:
        """Return the value of the first of these keys, all of one kind, that this process knows; one look-up."""
        kind = kind_of(keys[0])
        if self._near is None or not self._terms.of(TierName.MEMORY, kind):
            return None
        value = next((value for key in keys if (value := self._near.get(key)) is not None), None)
        self._observe(kind, TierName.MEMORY, "miss" if value is None else "hit")
        return value

    async def get(self, key: str) -> bytes | None:
        """Return the value from the nearest tier that knows it, None when none does."""
        value = self.near(key)
        return value if value is not None else await self.beyond(key)

    async def beyond(self, key: str, *, again: bool = False, within_s: float = LOOK_S) -> bytes | None:
        """Return the value from the far tiers alone, within ``LOOK_S``, or what is known by ``within_s`` while the look goes on behind.

        Where they did not know it a moment ago, they are asked only when ``again``.
        """
        if not again and self._absent.get(key, 0.0) > asyncio.get_running_loop().time():
            return None
        if all(guard.is_open for guard in self._guards.values()):
            for name in self._guards:
                self._observe(kind_of(key), name, "skipped")
            return None
        looking = self._looking.get(key)
        if looking is None:
            looking = self._looking[key] = asyncio.create_task(self._look(key), name="cache-look")
            looking.add_done_callback(lambda _task: self._looking.pop(key, None))
        if within_s < LOOK_S:
            await asyncio.wait([looking], timeout=within_s)
            return looking.result() if looking.done() else None
        return await asyncio.shield(looking)

    async def fetch(self, key: str, *, keep: bool = True) -> bool | None:
        """Return whether a far tier has the value, None when one that may have it cannot be asked; counted nowhere, for nobody waits.

        What is found is copied into the nearer tiers when ``keep``.
        """
        is_sure = True
        for place, tier in enumerate(self._far):
            guard = self._guards[tier.name]
            if not self._terms.of(tier.name, kind_of(key)):
                continue
            try:
                stored = None if guard.is_open else await tier.get(key)
            except CacheError:
                guard.failed()
                is_sure = False
                continue
            is_sure = is_sure and not guard.is_open
            found, _ = self._unsealed(tier.name, key, stored)
            if found is not None:
                if keep:
                    self._copy(key, found, self._far[:place])
                return True
        return False if is_sure else None

    async def written(self, within_s: float) -> bool:
        """Return True once everything put so far is in the far tiers, False when that takes longer or a tier is left alone."""
        await asyncio.gather(*(writer.emptied(within_s) for writer in self._writers.values()))
        return not any(map(len, self._writers.values()))

    async def steady(self, within_s: float) -> bool:
        """Return True once every far tier may be asked, False when that takes longer than ``within_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for guard in self._guards.values():
                    await guard.closed()
        return not any(guard.is_open for guard in self._guards.values())

    def put(self, key: str, value: bytes) -> None:
        """Keep the value in every tier whose terms name its kind: here at once, elsewhere soon."""
        self._put_near(key, value)
        self._absent.pop(key, None)
        made_at_s = self._clock()
        for tier in self._far:
            self._put_far(tier, key, value, made_at_s)

    def drop(self, key: str) -> None:
        """Forget the value in every tier: here at once, elsewhere soon."""
        if self._near is not None:
            self._near.drop(key)
        for writer in self._writers.values():
            writer.drop(key)

    @asynccontextmanager
    async def leased(self, key: str, ttl_s: float, *, within_s: float = LOOK_S) -> AsyncGenerator[bool, None]:
        """Hold the right to make this value, among all nodes that share a tier; False when another node has it.

        Without such a tier, while it is left alone, or when it does not answer ``within_s``, everybody may make everything.
        """
        tier = next((tier for tier in self._far if isinstance(tier, Leasing)), None)
        token = None if tier is None else await self._lease(tier, key, ttl_s, within_s)
        try:
            yield token is not None or tier is None
        finally:
            if tier is not None and token:
                with suppress(CacheError, TimeoutError):
                    async with asyncio.timeout(within_s):
                        await tier.release(key, token)

    async def _lease(self, tier: Leasing, key: str, ttl_s: float, within_s: float) -> str | None:
        """Return a token, "" when the tier cannot be asked, None when somebody else has it."""
        guard = self._guards[tier.name]
        if guard.is_open:
            return ""
        try:
            return await _in_time(tier.lease(key, ttl_s), asyncio.get_running_loop().time() + within_s)
        except (CacheError, TimeoutError) as error:
            if not isinstance(error, _StoodStillError):
                guard.failed(late=isinstance(error, TimeoutError))
            return ""

    def purge(self, purges: Purges) -> None:
        """Take over what an operator wants forgotten: at once here, by the time it was made elsewhere."""
        for prefix in purges.newer_than(self.purges):
            if self._near is not None:
                self._near.purge(prefix)
        self.purges = purges

    async def _look(self, key: str) -> bytes | None:
        """Ask the far tiers and copy what was found into the nearer ones.

        The next one is asked when the one before does not know it, or said nothing for ``PATIENCE_S``: a tier that hangs costs a part of the
        time, and is known to hang at its end.
        """
        kind, loop = kind_of(key), asyncio.get_running_loop()
        until_s = loop.time() + LOOK_S
        tiers = [tier for tier in self._far if self._terms.of(tier.name, kind)]
        asked: dict[asyncio.Task[_Found], FarTier] = {}
        is_sure = True
        while tiers or asked:
            if tiers:
                tier = tiers.pop(0)
                task = loop.create_task(self._ask(tier, key, kind, until_s), name="cache-ask")
                asked[task] = tier
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            done, _ = await asyncio.wait(
                asked, timeout=PATIENCE_S if tiers else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                tier, found = asked.pop(task), task.result()
                if isinstance(found, Sealed):
                    self._copy(key, found, self._far[: self._far.index(tier)])
                    return found.value
                is_sure = is_sure and found
        self._note_absent(key, ABSENT_S if is_sure else UNSURE_S)
        return None

    def _copy(self, key: str, found: Sealed, nearer: Sequence[FarTier]) -> None:
        self._put_near(key, found.value)
        for tier in nearer:
            self._put_far(tier, key, found.value, found.made_at_s)

    def _note_write(self, key: str, tier: str, result: Written) -> None:
        self._observe(kind_of(key), tier, result)

    def _note_absent(self, key: str, for_s: float) -> None:
        self._absent[key] = asyncio.get_running_loop().time() + for_s
        if len(self._absent) > MAX_ABSENT:
            self._absent.popitem(last=False)

    async def _ask(self, tier: FarTier, key: str, kind: str, until_s: float) -> _Found:
        """Return what the tier has, True when it does not know the key, False when it could not say."""
        guard = self._guards[tier.name]
        if guard.is_open:
            self._observe(kind, tier.name, "skipped")
            return False
        try:
            stored = await _in_time(tier.get(key), until_s)
        except (CacheError, TimeoutError) as error:
            if not isinstance(error, _StoodStillError):
                guard.failed(late=isinstance(error, TimeoutError))
            self._observe(kind, tier.name, "error")
            return False
        guard.succeeded()
        return self._opened(tier.name, key, kind, stored)

    def _opened(self, tier: str, key: str, kind: str, stored: bytes | None) -> _Found:
        """Return what is sealed in ``stored`` if it may be used, True otherwise."""
        found, result = self._unsealed(tier, key, stored)
        self._observe(kind, tier, result)
        return found or True

    def _unsealed(self, tier: str, key: str, stored: bytes | None) -> tuple[Sealed | None, Result]:
        """Return what may be used, and what to tell; a damaged value is deleted."""
        try:
            found = None if stored is None else unseal(key, stored, self._clock())
        except CacheError:
            self._writers[tier].drop(key)
            return None, "damaged"
        if found is not None and self.purges.forget(key, found.made_at_s):
            found = None
        return found, "miss" if found is None else "hit"

    def _put_near(self, key: str, value: bytes) -> None:
        ttl_s = self._terms.of(TierName.MEMORY, kind_of(key))
        if self._near is not None and ttl_s:
            self._near.put(key, value, ttl_s)

    def _put_far(self, tier: FarTier, key: str, value: bytes, made_at_s: float) -> None:
        kind = kind_of(key)
        ttl_s = self._terms.of(tier.name, kind)
        if ttl_s and made_at_s + ttl_s > self._clock():
            stored = seal(key, value, made_at_s=made_at_s, expires_at_s=made_at_s + ttl_s, compress=kind in COMPRESSED)
            self._writers[tier.name].put(key, stored, ttl_s)


class _StoodStillError(TimeoutError):
    """This process was busy with something else: whether the answer would have come in time nobody knows."""


async def _in_time(call: Coroutine[Any, Any, T], until_s: float) -> T:
    """Return what ``call`` returns; raise TimeoutError when that takes longer. What came while this process stood still is taken."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(call, name="cache-call")
    try:
        await asyncio.wait([task], timeout=max(0.0, until_s - loop.time()))
        for _ in range(_TURNS_TO_READ):
            if task.done():
                return task.result()
            await asyncio.sleep(0)
        raise _StoodStillError if loop.time() > until_s + STOOD_STILL_S else TimeoutError
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_unheard)


def _unheard(task: asyncio.Task[Any]) -> None:
    """Take note of how a late call ended, so that nobody is warned that nobody did."""
    if not task.cancelled():
        task.exception()
