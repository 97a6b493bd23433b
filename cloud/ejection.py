"""Whether a replica that fails is left alone for a while: failures in a row, doubling times, never too many of a pool at once.

After Envoy's outlier detection. Two things differ: one failure of a replica that just came back is enough to leave it alone again,
and the share that may be left out is never rounded up, so a pool of three or fewer never loses one this way; there the choice
avoids what fails (``choice.pressure``) and a failed try goes to another replica.
"""

from __future__ import annotations

import msgspec

FAILURES = 5
"""In a row; as Envoy's consecutive_5xx."""
EJECT_S = 2.0
"""How long a replica is left alone at first; twice as long each time after. A guess: a vLLM that restarts takes a minute anyway."""
MAX_EJECT_S = 120.0
FORGET_S = 60.0
"""A replica that did well for so long begins with the shortest time again. A guess."""
MAX_EJECTED_SHARE = 0.3
"""Part of a pool that may be left out at once."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool holds against one replica; times are on the pool's clock."""

    failures: int = 0
    """In a row."""
    ejections: int = 0
    """Without ``FORGET_S`` of good behaviour between them."""
    until_s: float = -1.0
    """When it was or will be used again, negative when it never was ejected."""

    def is_ejected(self, now_s: float) -> bool:
        """Whether it is left alone now."""
        return now_s < self.until_s


def succeeded(standing: Standing, now_s: float) -> Standing:
    """Return the standing after an answer began or ended well."""
    if standing.ejections and now_s >= standing.until_s + FORGET_S:
        return Standing()
    return standing if not standing.failures else msgspec.structs.replace(standing, failures=0)


def failed(standing: Standing, now_s: float, *, ejected: int, size: int) -> Standing:
    """Return the standing after a failure, ejected when it is time and ``ejected`` others of a pool of ``size`` leave room for it."""
    if standing.is_ejected(now_s):
        return standing
    failures = standing.failures + 1
    if failures < FAILURES or not may_eject(ejected, size):
        return msgspec.structs.replace(standing, failures=failures)
    was_long_ago = standing.until_s >= 0 and now_s >= standing.until_s + FORGET_S
    ejections = 0 if was_long_ago else standing.ejections
    lasts_s = min(EJECT_S * 2.0 ** min(ejections, 30), MAX_EJECT_S)
    return Standing(failures=FAILURES - 1, ejections=ejections + 1, until_s=now_s + lasts_s)


def may_eject(ejected: int, size: int) -> bool:
    """Whether one more of ``size`` replicas may be left out beside those that are."""
    return ejected + 1 <= MAX_EJECTED_SHARE * size
