from __future__ import annotations

from benchmarks.routing_decisions import adversary_results, decision_us, prediction_us, tables
from coordinator.routing.outcomes import Outcome

ITEMS = [
    Outcome(id="a", text="三加五等于几？", edge=0, cloud=1),
    Outcome(id="b", text="法国的首都是哪里", edge=1, cloud=1),
    Outcome(id="c", text="请介绍一下长城的历史，再说说它有多长", edge=1, cloud=1),
]


def test_every_change_is_counted_by_its_kind() -> None:
    found = adversary_results(ITEMS)
    assert found["requests"] == 3
    assert {"chatter", "claims-simple", "unlisted-before", "unlisted-after"} <= found["families"].keys()
    assert all(0 <= share <= 1 for share in found["families"].values())
    assert found["worst_listed"] == max(
        share for family, share in found["families"].items() if not family.startswith("unlisted")
    )


def test_decisions_are_timed_and_shown() -> None:
    times = {"decision_us": decision_us(ITEMS), "prediction_us": prediction_us(ITEMS)}
    results = {"adversaries": adversary_results(ITEMS), **times}
    for found in times.values():
        assert found["n"] == 3
        assert 0 < found["p50"] <= found["p95"] <= found["max"]
    assert len(tables(results)) == 2
