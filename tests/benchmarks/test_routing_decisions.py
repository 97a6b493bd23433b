from __future__ import annotations

from benchmarks.routing_decisions import adversary_results, decision_us, tables
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
    results = {"adversaries": adversary_results(ITEMS), "decision_us": decision_us(ITEMS)}
    assert results["decision_us"]["n"] == 3
    assert 0 < results["decision_us"]["p50"] <= results["decision_us"]["p95"] <= results["decision_us"]["max"]
    assert len(tables(results)) == 2
