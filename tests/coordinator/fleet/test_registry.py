from __future__ import annotations

from coordinator.fleet import registry
from coordinator.fleet.registry import Registry
from coordinator.wire import EdgeBeat


def beat(edge_id: str, active: int = 0, *, region: str = "", most: int = 10, ready: bool = True) -> EdgeBeat:
    return EdgeBeat(
        edge_id=edge_id,
        websocket_url=f"ws://{edge_id}:1/",
        region=region,
        active_devices=active,
        max_devices=most,
        ready=ready,
    )


def chosen(edges: Registry, region: str = "") -> str | None:
    edge = edges.choose(region)
    return edge.edge_id if edge else None


def test_the_least_loaded_ready_edge_is_chosen() -> None:
    edges = Registry(now=lambda: 0.0)
    for seen in (beat("a", 5), beat("b", 2), beat("c", 0, ready=False), beat("d", 10)):
        edges.saw(seen)
    assert chosen(edges) == "b"


def test_an_edge_of_the_region_wins_while_it_has_room() -> None:
    edges = Registry(now=lambda: 0.0)
    edges.saw(beat("near", 9, region="beijing"))
    edges.saw(beat("far", 0, region="shanghai"))
    assert chosen(edges, "beijing") == "near"
    edges.saw(beat("near", 10, region="beijing"))
    assert chosen(edges, "beijing") == "far"


def test_a_silent_edge_gets_nobody_until_it_is_heard_again() -> None:
    clock = [0.0]
    edges = Registry(stale_s=5, now=lambda: clock[0])
    edges.saw(beat("a"))
    clock[0] = 5.1
    assert chosen(edges) is None
    edges.saw(beat("a"))
    assert chosen(edges) == "a"


def test_invented_names_cannot_fill_the_memory(monkeypatch) -> None:
    monkeypatch.setattr(registry, "MAX_EDGES", 3)
    edges = Registry(now=lambda: 0.0)
    for number in range(10):
        edges.saw(beat(f"e{number}"))
    assert len(edges.alive()) == 3


def test_an_edge_for_nobody_is_never_chosen() -> None:
    edges = Registry(now=lambda: 0.0)
    edges.saw(beat("a", 0, most=0))
    assert chosen(edges) is None


def test_an_edge_that_counts_nonsense_is_never_chosen() -> None:
    edges = Registry(now=lambda: 0.0)
    edges.saw(beat("a", -1, most=0))
    edges.saw(beat("b", -5))
    assert chosen(edges) is None
