"""The mills from outside: two processes at a time, a crash or a hang is a result with the batch that brings it back, and another follows."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec

from benchmarks.soak_memory import Point, rounded, slope
from benchmarks.soak_mill import Ground, Kind, MillPlan

BATCHES = {"frames": 20_000, "messages": 5_000}
"""Frames or texts in a batch: half a second of work, so a look at the memory and a short way back to a crash."""
WORKERS = 2
"""Processes: the cores of the machine this was made for."""
HANG_S = 60.0
"""A batch that takes longer hangs: a hundred times what it takes alone. A guess."""
MAX_DEATHS = 20
"""After so many crashes the rest would tell nothing new."""
MAX_TOLD = 20
_MILLION = 1_000_000
_TAIL_CHARS = 600
MILL = (sys.executable, "-m", "benchmarks.soak_mill")


@dataclass(slots=True)
class Grinding:
    """What became of all batches so far."""

    kind: Kind
    batch: int
    """Frames or texts in each."""
    seed: int
    sent: int = 0
    crashes: int = 0
    errors: int = 0
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0
    series: list[list[Point]] = field(default_factory=list)
    """Memory over what was done, one for each life of a worker."""

    def tell(self, line: str) -> None:
        """Keep the first lines."""
        if len(self.told) < MAX_TOLD:
            self.told.append(f"{self.kind}, seed {self.seed}, {line}")

    @property
    def slope_mib(self) -> float | None:
        """The steepest gain of a worker, in MiB a million; None where none lived long enough."""
        found = [gain for points in self.series if (gain := slope(points, _MILLION)) is not None]
        return max(found, default=None)

    def results(self) -> dict[str, Any]:
        """Return the figures as the report has them."""
        longest = max(self.series, key=len, default=[])
        return {
            "sent": self.sent,
            "crashes": self.crashes,
            "unexpected_errors": self.errors,
            "rss_mib_start": longest[0].rss_mib if longest else None,
            "rss_mib_end": longest[-1].rss_mib if longest else None,
            "rss_slope_mib_per_million": rounded(self.slope_mib),
            "per_second": round(self.sent / self.seconds) if self.seconds else None,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "batch": self.batch,
        }


async def grind(
    kind: Kind,
    count: int,
    seed: int,
    *,
    progress: Callable[[int], None] = lambda _sent: None,
    command: Sequence[str] = MILL,
    hang_s: float = HANG_S,
    batch: int = 0,
) -> Grinding:
    """Have ``count`` messages, rounded up to whole batches, ground by WORKERS processes; ``progress`` gets how many are done.

    Cancelling ends the processes.
    """
    size = batch or min(BATCHES[kind], max(1, count // WORKERS))
    found = Grinding(kind=kind, batch=size, seed=seed)
    batches = -(-count // size)
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for worker in range(min(WORKERS, batches)):
            own = tuple(range(worker, batches, WORKERS))
            tasks.create_task(_Worker(found, command, hang_s, progress).run(own), name=f"{kind}-{worker}")
    found.seconds = time.monotonic() - began_s
    return found


@dataclass(slots=True)
class _Worker:
    """One process at a time, with the batches that the one before it left."""

    found: Grinding
    command: Sequence[str]
    hang_s: float
    progress: Callable[[int], None]

    async def run(self, batches: tuple[int, ...]) -> None:
        while batches and self.found.crashes < MAX_DEATHS:
            done = await self._life(batches)
            if done < len(batches):
                # The batch it died in is not tried again: it would bring the same.
                done += 1
            batches = batches[done:]

    async def _life(self, batches: tuple[int, ...]) -> int:
        """Return how many batches a process ended before its own end."""
        plan = MillPlan(kind=self.found.kind, seed=self.found.seed, batches=batches, batch=self.found.batch)
        points: list[Point] = []
        self.found.series.append(points)
        with tempfile.TemporaryFile() as said:
            process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=said
            )
            assert process.stdin is not None  # noqa: S101 - asked for above
            is_hanging = False
            try:
                process.stdin.write(msgspec.json.encode(plan) + b"\n")
                await self._read(process, points)
            except TimeoutError:
                is_hanging = True
            finally:
                if process.returncode is None and len(points) < len(batches):
                    _kill(process)
                status = await process.wait()
            if len(points) < len(batches):
                self._died(batches[len(points)], "hung" if is_hanging else _why(status), said)
        return len(points)

    async def _read(self, process: asyncio.subprocess.Process, points: list[Point]) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for by the caller
        while True:
            async with asyncio.timeout(self.hang_s):
                line = await process.stdout.readline()
            if not line:
                # It closed its output, so it ends now by itself.
                async with asyncio.timeout(self.hang_s):
                    await process.wait()
                return
            self._take(msgspec.json.decode(line, type=Ground), points)

    def _take(self, ground: Ground, points: list[Point]) -> None:
        found = self.found
        found.sent += found.batch
        found.errors += ground.errors
        for line in ground.told:
            found.tell(f"batch {ground.batch}: {line}")
        points.append(Point(found.batch * (len(points) + 1), ground.rss_mib))
        self.progress(found.sent)

    def _died(self, batch: int, why: str, said: IO[bytes]) -> None:
        self.found.crashes += 1
        said.seek(0)
        tail = said.read().decode(errors="replace").strip()[-_TAIL_CHARS:]
        self.found.tell(f"batch {batch}: the process {why}" + (f"\n{tail}" if tail else ""))


def _kill(process: asyncio.subprocess.Process) -> None:
    try:
        process.kill()
    except ProcessLookupError:
        return


def _why(status: int) -> str:
    """Return how a process ended, in words."""
    return f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
