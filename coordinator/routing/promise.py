"""From turns with known outcomes to the threshold that keeps a promise: "at most so many turns lose against all-cloud, 95 % sure"; pure.

A turn loses when it stays on the edge, the edge is wrong and the cloud would have been right. The higher the threshold the more turns
stay, and none that lost before stops losing, so thresholds can be tried from the lowest on until the first that is not proven good
enough, without paying for the many tries (Angelopoulos et al., "Learn then Test", 2021, fixed sequence; with one test on the number of
losses it is the conformal risk control of monotone losses at a stated confidence). The test is exact: binomial for the long run,
hypergeometric for a stated number of turns to come. It holds for turns like those it was made from, and for no others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import ConfigError

Floats = npt.NDArray[np.float64]
Values = Sequence[float] | Floats

PACKAGED = Path(__file__).parent / "weights" / "default.promises.json"
"""Made with the packaged weights, from the same requests, each scored by weights that had not seen its kind."""
CONFIDENCE = 0.95
LEVELS = (0.01, 0.02, 0.05, 0.10, 0.20)
"""Shares of losing turns for which thresholds are kept; an operator's floor is one minus these."""
TOGETHER = 1 - (1 - CONFIDENCE) / len(LEVELS)
"""Confidence of each level at which all of them hold with ``CONFIDENCE`` (Bonferroni): who picks one has looked at all."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """One proven threshold."""

    allowed: Share
    """Share of turns that may lose."""
    threshold: Share
    """Score from which the cloud must be asked; 0 when the turns were too few to keep any on the edge."""
    upper: Share
    """What the share of losing turns is at most, at the stated confidence."""
    cloud_share: Share
    """Of the turns it was made from."""


class Promises(msgspec.Struct, frozen=True, kw_only=True):
    """The thresholds of one model's scores, kept as JSON beside its weights."""

    model: str
    """Name of the model whose scores these are."""
    turns: int
    """It was made from."""
    data: str = ""
    """Which turns those were."""
    confidence: Share = CONFIDENCE
    """That all levels hold."""
    levels: tuple[Promise, ...]

    def threshold(self, floor: float) -> float | None:
        """Return the threshold for this share of turns that must not lose, None when nothing so strict was proven."""
        fitting = [level.threshold for level in self.levels if level.allowed <= 1 - floor + 1e-9]
        return max(fitting, default=None)


def read_promises(path: Path) -> Promises:
    """Return the promises of a JSON file; raise ConfigError naming the file and what is wrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Promises)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ConfigError(f"{path} holds no promises: {error}") from error


def write_promises(promises: Promises, path: Path) -> None:
    """Write the promises as JSON; raise ConfigError naming the file when it cannot be written."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(promises), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def promises_of(
    scores: Values, losses: Values, *, model: str, data: str = "", levels: Sequence[float] = LEVELS
) -> Promises:
    """Return what can be promised from scores in [0, 1] that were given without knowing the losses; see `threshold_for`.

    All levels hold together with ``CONFIDENCE``.
    """
    found = []
    confidence = 1 - (1 - CONFIDENCE) / len(levels)
    for allowed in levels:
        threshold = threshold_for(scores, losses, allowed, confidence)
        kept, lost = _kept_and_lost(scores, losses, threshold)
        found.append(
            Promise(
                allowed=allowed,
                threshold=min(max(threshold, 0.0), 1.0),
                upper=upper_bound(lost, len(scores), confidence) if kept else 0.0,
                cloud_share=1 - kept / len(scores),
            )
        )
    return Promises(model=model, turns=len(scores), data=data, levels=tuple(found))


def losses_of(edge: Values, cloud: Values) -> Floats:
    """Return 1 for each turn that loses when it stays: the cloud at least half right, the edge less; else 0."""
    return ((np.asarray(cloud) >= 0.5) & (np.asarray(edge) < 0.5)).astype(np.float64)  # noqa: PLR2004 - half right


def threshold_for(
    scores: Values,
    losses: Values,
    allowed: float,
    confidence: float = CONFIDENCE,
    *,
    turns: int | None = None,
) -> float:
    """Return the highest threshold that keeps the share of losing turns at or below ``allowed`` with this confidence.

    A turn is sent when its score reaches the threshold. ``losses`` are 0 or 1, what each turn costs when it stays. ``turns`` are how many
    to come the promise is for, which costs a little; None is for the long run. Minus infinity when too few turns are known to keep any
    one on the edge, infinity when all may stay.
    """
    tolerated = tolerated_losses(len(scores), allowed, confidence, turns=turns)
    if tolerated < 0:
        return -math.inf
    order = np.argsort(np.asarray(scores, dtype=np.float64), kind="stable")
    ascending = np.asarray(scores, dtype=np.float64)[order]
    lost = np.cumsum(np.asarray(losses, dtype=np.float64)[order])
    over = np.flatnonzero(lost > tolerated)
    # the first turn that is one loss too many must be sent, and so all of its score
    return float(ascending[over[0]]) if len(over) else math.inf


def tolerated_losses(known: int, allowed: float, confidence: float = CONFIDENCE, *, turns: int | None = None) -> int:
    """Return how many losses among ``known`` turns still prove the promise, -1 when even none does not."""
    error = 1 - confidence

    def proves(losses: int) -> bool:
        if turns is None:
            return binomial_cdf(losses, known, allowed) <= error
        # the promise breaks when more than `within` of the turns to come lose; the hardest case to tell has just one more in all
        within = math.floor(allowed * turns + 1e-9)
        return hypergeometric_cdf(losses, known + turns, losses + within + 1, known) <= error

    low, high = -1, known
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if proves(middle) else (low, middle)
    return low


def upper_bound(lost: int, known: int, confidence: float = CONFIDENCE) -> float:
    """Return Clopper's and Pearson's one-sided upper limit (1934) of a share of which ``lost`` of ``known`` were seen."""
    if lost >= known:
        return 1.0
    low, high = lost / known, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_cdf(lost, known, middle) > 1 - confidence else (low, middle)
    return high


def binomial_cdf(count: int, trials: int, chance: float) -> float:
    """Return the probability of at most ``count`` successes in ``trials``."""
    if count >= trials or chance <= 0:
        return 1.0
    if count < 0 or chance >= 1:
        return 0.0
    log_factorial = _log_factorials(trials)
    k = np.arange(count + 1)
    logs = log_factorial[trials] - log_factorial[k] - log_factorial[trials - k]
    return _total(logs + k * math.log(chance) + (trials - k) * math.log1p(-chance))


def hypergeometric_cdf(count: int, total: int, marked: int, drawn: int) -> float:
    """Return the probability that of ``drawn`` out of ``total``, of which ``marked`` are marked, at most ``count`` are."""
    least, most = max(0, drawn - (total - marked)), min(drawn, marked)
    if marked > total or count < least:
        return 0.0
    if count >= most:
        return 1.0
    lf = _log_factorials(total)
    k = np.arange(least, count + 1)
    ways = lf[marked] - lf[k] - lf[marked - k] + lf[total - marked] - lf[drawn - k] - lf[total - marked - drawn + k]
    return _total(ways - (lf[total] - lf[drawn] - lf[total - drawn]))


def _kept_and_lost(scores: Values, losses: Values, threshold: float) -> tuple[int, int]:
    kept = np.asarray(scores) < threshold
    return int(kept.sum()), int(np.asarray(losses)[kept].sum())


def _total(logs: Floats) -> float:
    peak = float(logs.max())
    return min(math.exp(peak) * float(np.exp(logs - peak).sum()), 1.0) if peak > -700 else 0.0  # noqa: PLR2004 - below any float


@lru_cache(maxsize=8)
def _log_factorials(largest: int) -> Floats:
    table: Floats = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])
    return table
