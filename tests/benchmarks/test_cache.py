from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from benchmarks import cache_day
from benchmarks.cache import tables_of

MARKS = {"p50": 0.1, "p95": 0.2, "p99": 0.3}
RESULTS = {
    "tiers": {
        tier: {kind: {"hit_ms": MARKS, "miss_ms": MARKS} for kind in ("speech", "answer")}
        for tier in ("l1", "l2", "l3")
    },
    "audio_hit_ms": {
        "p95": 0.2,
        "by_tier": {tier: {**MARKS, "n": 7, "right": 6, "from_sound": 5} for tier in ("l1", "l2", "l3")},
    },
    "semantic": {
        "splits": {
            "held-out": {
                "wrong": {"share": 0.0, "high": 0.0126},
                "hit": {"share": 0.602},
                "likeness_alone": {"wrong": {"share": 0.777}},
            }
        }
    },
    "herd": {"devices": 150, "answered": 149, "model_calls": 1, "syntheses": 2, "sentences_in_the_answer": 2},
    "faults": {
        "redis killed": {
            "turns": 60,
            "answered": 59,
            "right": 58,
            "from_sound": 29,
            "added_ms": {"p50": 1.0, "p95": 12.5, "p100": 19.0},
        }
    },
}


def test_the_tables_say_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_day, "tables", lambda _results: ())  # tested beside it
    text = StringIO()
    console = Console(file=text, width=160)
    for table in tables_of(RESULTS):
        console.print(table)
    for shown in ("0.3000", "5 of 7", "6 of 7", "149", "redis killed", "58", "12.5", "19.0", "60.2%", "77.7%"):
        assert shown in text.getvalue()
