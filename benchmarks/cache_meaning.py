"""How often a remembered answer is found by other words, and how often wrongly: our own pairs of questions, against likeness alone.

The held-out pairs were written before any rule, on other subjects than the pairs the rules were tuned on; nothing was tuned on them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from benchmarks.meaning_zh import NEAR_MISSES, PARAPHRASES, Pair, load_pairs
from benchmarks.report import percentile
from benchmarks.requests_zh.request import Request, load_requests
from coordinator.cache.keys import is_memorable, normalise
from coordinator.cache.meaning import meaning_of, same_meaning
from models.prompts import Message, Prompt

SPLITS = ("held-out", "tuning")
_Z = 1.96
"""For 95 % intervals."""


def measure() -> dict[str, Any]:
    """Return ``wrong`` of all near misses, ``hit`` of the held-out paraphrases alone, both per split with the baseline, and times."""
    near, same = load_pairs(NEAR_MISSES), load_pairs(PARAPHRASES)
    splits = {
        split: _split([p for p in near if p.split == split], [p for p in same if p.split == split]) for split in SPLITS
    }
    every = _share(map(_is_hit, near))
    return {
        "wrong": every["share"],
        "wrong_high": every["high"],
        "hit": splits["held-out"]["hit"]["share"],
        "near_misses": len(near),
        "paraphrases": len(same),
        "splits": splits,
        "requests": of_requests(),
        "times": times(),
    }


def _split(near: Sequence[Pair], same: Sequence[Pair]) -> dict[str, Any]:
    hits = [_is_hit(pair) for pair in same]
    return {
        "wrong": _share(map(_is_hit, near)),
        "hit": _share(hits),
        "wrong_memorable": _share(_is_hit(pair) for pair in near if _can_be_remembered(pair)),
        "hit_memorable": _share(_is_hit(pair) for pair in same if _can_be_remembered(pair)),
        "wrong_by_kind": _by_kind(near),
        "hit_by_kind": _by_kind(same),
        "refused_because": dict(Counter(same_meaning(pair.a, pair.b).reason for pair in near).most_common()),
        "likeness_alone": likeness_alone(near, same, sum(hits)),
    }


def of_requests() -> dict[str, Any]:
    """Return the wrong hits among requests of one template that have different right answers: by another author, for another purpose."""
    groups: dict[str, list[Request]] = {}
    for request in load_requests():
        if request.gold is not None:
            groups.setdefault(request.group, []).append(request)
    pairs = [pair for group in groups.values() for pair in combinations(group, 2) if pair[0].gold != pair[1].gold]
    forms = {request.text: meaning_of(request.text) for group in groups.values() for request in group}
    return {"wrong": _share(forms[one.text] == forms[other.text] != "" for one, other in pairs)}


def likeness_alone(near: Sequence[Pair], same: Sequence[Pair], hits: int) -> dict[str, Any]:
    """Return what the cosine of pairs of characters (TF-IDF) takes for the same, at the threshold that gives at least so many hits."""
    weights = _weights([text for pair in (*near, *same) for text in (pair.a, pair.b)])
    alike = sorted((_cosine(pair, weights) for pair in same), reverse=True)
    threshold = alike[hits - 1] if hits else math.inf
    return {
        "threshold": round(threshold, 3),
        "hit": _share(value >= threshold for value in alike),
        "wrong": _share(_cosine(pair, weights) >= threshold for pair in near),
    }


def times() -> dict[str, Any]:
    """Return the processor time in µs of bringing a question into its form: what a look-up by meaning costs more than one by words."""
    texts = [request.text for request in load_requests()]
    return {"form_us": _marks([_us(lambda text=text: meaning_of(text)) for text in texts]), "n": len(texts)}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    if not trials:
        return 0.0, 1.0
    share, spread = successes / trials, _Z * _Z / trials
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def _is_hit(pair: Pair) -> bool:
    """Return whether asking ``b`` finds ``a``."""
    return meaning_of(pair.a) == meaning_of(pair.b) != ""


def _can_be_remembered(pair: Pair) -> bool:
    return all(
        is_memorable(Prompt(turn_id="benchmark", messages=(Message(role="user", text=text),)))
        for text in (pair.a, pair.b)
    )


def _share(hits: Iterable[bool]) -> dict[str, Any]:
    each = list(hits)
    low, high = wilson(sum(each), len(each))
    share = sum(each) / len(each) if each else 0.0
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4), "hits": sum(each), "of": len(each)}


def _by_kind(pairs: Sequence[Pair]) -> dict[str, Any]:
    kinds = dict.fromkeys(pair.kind for pair in pairs)
    return {kind: _share(_is_hit(pair) for pair in pairs if pair.kind == kind) for kind in kinds}


def _pieces(text: str) -> Counter[str]:
    text = f" {normalise(text)} "
    return Counter(text[start : start + 2] for start in range(len(text) - 1))


def _weights(texts: Sequence[str]) -> dict[str, float]:
    seen = Counter(piece for text in texts for piece in _pieces(text))
    return {piece: math.log(len(texts) / count) + 1 for piece, count in seen.items()}


def _cosine(pair: Pair, weights: Mapping[str, float]) -> float:
    one, other = ({piece: n * weights[piece] for piece, n in _pieces(text).items()} for text in (pair.a, pair.b))
    shared = sum(value * other.get(piece, 0.0) for piece, value in one.items())
    return shared / (math.hypot(*one.values()) * math.hypot(*other.values()))


def _us(call: Any) -> float:
    began_ns = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began_ns) / 1000


def _marks(values: Sequence[float]) -> dict[str, float | None]:
    marks = {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}
    return {name: None if value is None else round(value, 1) for name, value in marks.items()}
