from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from benchmarks.bus_loop import cpu_s, cpu_s_of, loop_factory

STAT = "42 ({name}) S 1 42 42 0 -1 4194304 100 0 0 0 {utime} {stime} 0 0 20 0 1 0 100 1000 10"


@pytest.mark.parametrize("name", ["python", "a b", "odd) name ("])
def test_cpu_seconds_are_read_behind_any_name(name: str) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    assert cpu_s_of(STAT.format(name=name, utime=2 * ticks, stime=ticks // 2)) == 2.5


def test_this_process_used_something_and_one_that_is_gone_nothing() -> None:
    assert cpu_s(os.getpid()) > 0
    assert cpu_s(2**30) == 0


def test_the_quicker_loop_is_used_where_there_is_one() -> None:
    pytest.importorskip("uvloop")
    made: Callable[[], object] | None = loop_factory()
    assert made is not None
