from __future__ import annotations

from benchmarks.routing_adversaries import CHATTER, UNLISTED
from coordinator.routing.outcomes import Outcome
from coordinator.routing.padding import AFTER, BEFORE, padded

ITEMS = [
    Outcome(id="a", text="三加五等于几？", group="sums", edge=0, cloud=1),
    Outcome(id="b", text="法国的首都是哪里", edge=1, cloud=1),
]


def test_copies_hold_the_request_and_stay_in_its_group() -> None:
    copies = padded(ITEMS, 50, seed=0)
    assert len(copies) == 100
    assert len({copy.id for copy in copies}) == 100
    for copy in copies:
        source = ITEMS[copy.id.startswith("b")]
        assert source.text.rstrip("？") in copy.text
        assert copy.text != source.text
        assert (copy.edge, copy.cloud, copy.group) == (source.edge, source.cloud, source.group or source.id)


def test_the_same_seed_gives_the_same_copies() -> None:
    assert padded(ITEMS, 3, seed=1) == padded(ITEMS, 3, seed=1) != padded(ITEMS, 3, seed=2)


def test_none_of_it_is_what_the_benchmark_tries() -> None:
    tried = {phrase.strip("，。,. ") for table in (CHATTER, UNLISTED) for phrase in table["zh"]}
    assert not tried & {*BEFORE, *AFTER}
