from __future__ import annotations

from coordinator.fleet import registry
from coordinator.fleet.registry import ListedEdge, Registry
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


# Beside a list


def listing(*edges: ListedEdge, is_current: bool = True) -> Registry:
    registry_ = Registry(now=lambda: 0.0)
    registry_.lists(edges, lambda: is_current)
    return registry_


def test_an_edge_listed_as_not_ready_gets_nobody_though_it_beats() -> None:
    edges = listing(ListedEdge("a", is_ready=False), ListedEdge("b", is_ready=True))
    edges.saw(beat("a", 0))
    edges.saw(beat("b", 9))
    assert chosen(edges) == "b"
    edges.lists([ListedEdge("a", is_ready=True)])
    assert chosen(edges) == "a"


def test_an_old_list_takes_nobody_out() -> None:
    edges = listing(ListedEdge("a", is_ready=False), is_current=False)
    edges.saw(beat("a"))
    assert chosen(edges) == "a"


def test_an_edge_missing_from_the_list_counts_by_its_beats() -> None:
    edges = listing(ListedEdge("b", is_ready=False))
    edges.saw(beat("a"))
    assert chosen(edges) == "a"


def test_a_listed_edge_without_beats_comes_last() -> None:
    edges = listing(ListedEdge("a", is_ready=True, websocket_url="ws://a/"))
    edges.saw(beat("b", 9))
    assert chosen(edges) == "b"
    edges.saw(beat("b", 10))
    assert chosen(edges) == "a"


def test_an_edge_that_fell_silent_keeps_its_address_while_it_is_listed_as_ready() -> None:
    clock = [0.0]
    edges = Registry(stale_s=5, now=lambda: clock[0])
    edges.saw(beat("a", 7, region="beijing"))
    edges.lists([ListedEdge("a", is_ready=True, region="zone-1")])
    clock[0] = 60.0
    found = edges.choose("beijing")
    assert found is not None
    assert (found.websocket_url, found.region, found.max_devices) == ("ws://a:1/", "beijing", 10)
    assert [chosen(edges) for _ in range(3)] == ["a", "a", None], "it had room for three"
    edges.saw(beat("a", 8, region="beijing"))
    assert chosen(edges) == "a"


def test_a_full_edge_that_beats_is_not_chosen_through_the_list() -> None:
    edges = listing(ListedEdge("a", is_ready=True, websocket_url="ws://a/"))
    edges.saw(beat("a", 10))
    assert chosen(edges) is None


def test_devices_are_spread_over_edges_that_only_a_list_knows() -> None:
    edges = listing(
        ListedEdge("a", is_ready=True, websocket_url="ws://a/", region="r"),
        ListedEdge("b", is_ready=True, websocket_url="ws://b/"),
        ListedEdge("c", is_ready=False, websocket_url="ws://c/"),
        ListedEdge("d", is_ready=True),
    )
    assert [chosen(edges) for _ in range(4)] == ["a", "b", "a", "b"]
    assert [chosen(edges, "r") for _ in range(2)] == ["a", "a"]
    rest = [chosen(edges) for _ in range(3 * registry.UNHEARD_DEVICES)]
    assert rest.count("a") == registry.UNHEARD_DEVICES - 4
    assert rest.count("b") == registry.UNHEARD_DEVICES - 2
    assert rest[-1] is None


def test_a_flood_of_listed_names_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(registry, "MAX_EDGES", 3)
    edges = listing(*(ListedEdge(f"e{number}", is_ready=True, websocket_url="ws://e/") for number in range(10)))
    assert {chosen(edges) for _ in range(10)} == {"e0", "e1", "e2"}
