from __future__ import annotations

from benchmarks.cache_faults import FAULTS


def test_every_fault_of_the_matrix_is_there_and_calm_comes_first() -> None:
    assert next(iter(FAULTS)) == "none"
    for server in ("redis", "s3"):
        assert {f"{server} killed", f"{server} frozen"} <= set(FAULTS)
    assert {"redis full", "redis 500 ms slow", "redis holds another type", "s3 objects cut short"} <= set(FAULTS)
