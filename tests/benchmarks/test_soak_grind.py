from __future__ import annotations

import sys

import pytest

from benchmarks.soak_grind import WORKERS, Grinding, grind
from benchmarks.soak_memory import Point
from tests.real_time import run

READS = "import json, os, signal, sys, time; plan = json.loads(sys.stdin.readline());"
SAYS = "say = lambda b, m: print(json.dumps(dict(batch=b, errors=b % 2, told=['E at x'] * (b % 2), rss_mib=m)), flush=True);"


def mill(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", READS + SAYS + code)


def test_batches_and_their_errors_are_summed_over_both_workers() -> None:
    seen: list[int] = []
    command = mill("[say(b, 50 + b) for b in plan['batches']]")
    found = run(grind("frames", 80, 1, batch=10, command=command, progress=seen.append))
    assert (found.sent, found.crashes, found.errors) == (80, 0, 4)
    assert sorted(seen) == list(range(10, 81, 10))
    assert len(found.series) == WORKERS
    # 2 MiB more with each batch of 10.
    assert found.slope_mib is None
    assert "batch 1: E at x" in "\n".join(found.told)


def test_a_process_that_dies_is_a_crash_with_its_batch_and_another_goes_on_behind_it() -> None:
    code = """
for b in plan['batches']:
    if b == 4: print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)
    say(b, 50)
"""
    found = run(grind("frames", 80, 7, batch=10, command=mill("pass\n" + code)))
    assert (found.sent, found.crashes) == (70, 1)
    (told,) = [line for line in found.told if "SIGSEGV" in line]
    assert told.startswith("frames, seed 7, batch 4: the process died of SIGSEGV")
    assert "last words" in told


def test_a_process_that_hangs_is_a_crash() -> None:
    command = mill("say(plan['batches'][0], 50) if plan['batches'][0] < 2 else 0; time.sleep(60)")
    found = run(grind("messages", 40, 1, batch=10, command=command, hang_s=1.0))
    assert found.crashes == 2
    assert all("the process hung" in line for line in found.told if "E at" not in line)


def test_a_process_that_fails_at_once_every_time_ends_the_grinding() -> None:
    found = run(grind("messages", 10_000, 1, batch=10, command=mill("sys.exit(3)")))
    assert 20 <= found.crashes <= 21
    assert found.sent == 0
    assert "ended with status 3" in found.told[0]


@pytest.mark.parametrize(("mib_a_batch", "slope_mib"), [(0.0, 0.0), (0.01, 1000.0)])
def test_the_steepest_worker_counts(mib_a_batch: float, slope_mib: float) -> None:
    flat = [Point(10 * place, 50.0) for place in range(1, 20)]
    steep = [Point(10 * place, 50.0 + mib_a_batch * place) for place in range(1, 20)]
    found = Grinding("frames", 10, 1, sent=380, seconds=2.0, series=[flat, steep])
    assert found.results()["rss_slope_mib_per_million"] == pytest.approx(slope_mib)
    assert found.results()["per_second"] == 190


def test_real_garbage_is_ground_by_real_processes() -> None:
    found = run(grind("frames", 4_000, 5))
    assert (found.sent, found.crashes, found.errors, found.told) == (4_000, 0, 0, [])
