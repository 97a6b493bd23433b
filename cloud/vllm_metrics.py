"""What vLLM says about itself at /metrics, from Prometheus' text to the few figures a choice needs.

Names changed over vLLM's releases (``gpu_cache_usage_perc`` became ``kv_cache_usage_perc``; some gateways turn the colon into an
underscore), so each figure is looked for under all of them.
"""

from __future__ import annotations

import math
import re

import msgspec

MAX_METRICS_BYTES = 4 * 1024 * 1024
"""vLLM's page is some 100 kB; one that never ends must not fill the memory."""
MAX_REQUESTS = 1_000_000
"""A gauge above is no count of requests."""

_NAMES = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "gpu_cache_usage_perc",
    "request_queue_time_seconds_sum",
    "request_queue_time_seconds_count",
)
_BEGINNINGS = tuple(f"vllm{separator}{name}" for name in _NAMES for separator in ":_")
_LABELS = r'(?:\{(?:[^"{}\n]|"(?:[^"\\\n]|\\.)*")*\})?'
_SAMPLE = re.compile(rf"vllm[:_]({'|'.join(_NAMES)}){_LABELS}[ \t]+(\S+)")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a replica says it is, over all its engines."""

    running: int
    """Requests it computes now."""
    waiting: int
    """Requests that wait in its own queue."""
    kv_usage: float = 0.0
    """Part of the fullest engine's KV cache that running requests hold, in [0, 1]."""
    queued_s: float = 0.0
    """Seconds all its requests so far spent in its queue; starts anew with the process."""
    queued_count: int = 0
    """Requests those seconds belong to."""


def parse(text: str) -> Figures | None:
    """Return the figures in a page of metrics, None when it tells no requests; never raises."""
    found: dict[str, list[float]] = {}
    for line in text.split("\n"):
        if line.startswith(_BEGINNINGS) and (sample := _SAMPLE.match(line)):
            value = _number(sample[2])
            if value is not None:
                found.setdefault(sample[1], []).append(value)
    if "num_requests_running" not in found and "num_requests_waiting" not in found:
        return None
    usages = (*found.get("kv_cache_usage_perc", ()), *found.get("gpu_cache_usage_perc", ()))
    return Figures(
        running=_count(found.get("num_requests_running", [])),
        waiting=_count(found.get("num_requests_waiting", [])),
        kv_usage=min(max(usages, default=0.0), 1.0),
        queued_s=sum(found.get("request_queue_time_seconds_sum", [])),
        queued_count=int(sum(found.get("request_queue_time_seconds_count", []))),
    )


def queue_ms(before: Figures | None, after: Figures) -> float | None:
    """Return the mean milliseconds that requests between two readings waited, None when there were none or it began anew."""
    if before is None or after.queued_count <= before.queued_count or after.queued_s < before.queued_s:
        return None
    return 1000 * (after.queued_s - before.queued_s) / (after.queued_count - before.queued_count)


def _number(said: str) -> float | None:
    try:
        value = float(said)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _count(values: list[float]) -> int:
    return int(min(sum(values), MAX_REQUESTS))
