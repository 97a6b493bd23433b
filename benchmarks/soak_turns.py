"""Thousands of turns on one node: what became of them, and whether memory, tasks and descriptors stay as they were.

What is shorter than in life: a question is a tone of 300 ms, 120 ms of silence end it, the engines take 5 ms each, an answer is three
packets. Everything is paced as devices pace it, so a turn takes about a second and many devices make many turns. The devices are those
of the load benchmark, in a process of their own; the node's memory is read inside the node.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from benchmarks.load import Full, LoadEvent, LoadPlan, LoadResult, Over
from benchmarks.load_device import Sound
from benchmarks.load_sound import sound_of
from benchmarks.soak_engines import PLAIN, sung
from benchmarks.soak_memory import Point, rounded, slope
from benchmarks.soak_node import Counts, Listening
from edge.simulator.uplink import RATE_HZ
from models.errors import ConfigError

QUESTION_MS = 300
"""As long as the least that certainly is speech, and a frame more."""
DEVICES = 80
"""Devices at once: 80 turns or so a second, of which a core carries twice as many."""
STAGGER_S = 0.02
PER = 1_000
"""Turns that the slope is told for."""
START_S, STOP_S = 60.0, 15.0
"""How long a node may take to come up, and to go."""
SETTLE_S = 8.0
"""How long a node may take to fall idle once its devices are gone: closing a socket takes two seconds at most."""
TURN_S = 30.0
"""The longest a turn may take on average before the run counts as stuck; thirty times what it takes."""
_LINE_BYTES = 256 * 1024 * 1024
"""Longest line of the load generator: its result has 250 bytes a turn."""


@dataclass(slots=True)
class NodeProcess:
    """A node in a process of its own, and how it did so far."""

    url: str
    samples: list[Counts] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_gone: bool = False

    @property
    def latest(self) -> Counts:
        """How it does."""
        return self.samples[-1]

    async def until_idle(self, base: Counts, within_s: float = SETTLE_S) -> Counts:
        """Return the first look at a node that has no session and no task more than at first, the last one after ``within_s``."""
        try:
            async with asyncio.timeout(within_s):
                await self.next()
                while self.latest.sessions or self.latest.tasks > base.tasks or self.latest.fds > base.fds:
                    await self.next()
        except TimeoutError:
            pass
        return self.latest

    async def next(self) -> None:
        """Wait for another look; raise ConfigError when the node is gone."""
        if not self.is_gone:
            self.changed.clear()
            await self.changed.wait()
        if self.is_gone:
            raise ConfigError("the node of the soak ended by itself: see its error above")


@asynccontextmanager
async def node_process(max_devices: int) -> AsyncGenerator[NodeProcess, None]:
    """Run a node for so many devices; its process has ended when this is left. Raise ConfigError when it does not come up."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.soak_node", str(max_devices)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stdout is not None  # noqa: S101 - asked for above
    watching = None
    try:
        async with asyncio.timeout(START_S):
            first = await process.stdout.readline()
        if not first:
            raise ConfigError("the node of the soak did not come up: see its error above")
        here = NodeProcess(msgspec.json.decode(first, type=Listening).url)
        watching = asyncio.create_task(_watch(process.stdout, here), name="soak-node")
        await here.next()
        yield here
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if watching is not None:
            await asyncio.wait([watching])


async def _watch(lines: asyncio.StreamReader, here: NodeProcess) -> None:
    while line := await lines.readline():
        here.samples.append(msgspec.json.decode(line, type=Counts))
        here.changed.set()
    here.is_gone = True
    here.changed.set()


@dataclass(frozen=True, slots=True)
class Held:
    """What a run of turns came to."""

    load: LoadResult
    base: Counts
    """Before the first device."""
    samples: tuple[Counts, ...]
    left: Counts
    """After the last one."""
    seconds: float

    def results(self) -> dict[str, Any]:
        """Return the figures as the report has them."""
        points = [Point(sample.answered, sample.rss_mib) for sample in self.samples]
        return {
            "answered": len(self.load.turns),
            "failed": sum(self.load.faults.values()),
            "lost_packets": sum(turn.lost for turn in self.load.turns),
            "rss_mib_start": self.base.rss_mib,
            "rss_mib_end": self.left.rss_mib,
            "rss_slope_mib_per_1000_turns": rounded(slope(points, PER), 4),
            "tasks_left": self.left.tasks - self.base.tasks,
            "fds_left": self.left.fds - self.base.fds,
            "seconds": round(self.seconds, 1),
            "turns_per_second": round(len(self.load.turns) / self.seconds, 1),
            "generator_lag_p99_ms": round(self.load.loop_lag_p99_ms, 1),
        }


async def hold_turns(
    here: NodeProcess, turns: int, devices: int, progress: Callable[[int], None] = lambda _answered: None
) -> Held:
    """Have the devices hold so many turns, rounded up to as many for each; cancelling ends the generator."""
    loop = asyncio.get_running_loop()
    base, first = here.latest, len(here.samples)
    plan = LoadPlan(
        url=here.url, devices=devices, turns=-(-turns // devices), stagger_s=STAGGER_S, sound=question_sound()
    )
    began_s = loop.time()
    watching = asyncio.create_task(_progress(here, base, progress), name="soak-progress")
    try:
        async with asyncio.timeout(plan.turns * TURN_S + START_S):
            load = await _generated(plan)
    except TimeoutError:
        raise ConfigError(f"{turns} turns of {devices} devices came to no end") from None
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    seconds = loop.time() - began_s
    left = await here.until_idle(base)
    return Held(load, base, tuple(here.samples[first:]), left, seconds)


def question_sound() -> Sound:
    """Return what the microphones hear: the tone at once, then silence."""
    return msgspec.structs.replace(sound_of(sung(PLAIN, QUESTION_MS, RATE_HZ)), lead=())


async def _progress(here: NodeProcess, base: Counts, progress: Callable[[int], None]) -> None:
    while True:
        progress(here.latest.answered - base.answered)
        await here.next()


async def _generated(plan: LoadPlan) -> LoadResult:
    """Run the load generator and return what it saw."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        start_new_session=True,  # Ctrl-C is ours; we end it
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        process.stdin.write(msgspec.json.encode(plan))
        process.stdin.close()
        while line := await process.stdout.readline():
            event: Full | Over | LoadResult = msgspec.json.decode(line, type=LoadEvent)
            if isinstance(event, LoadResult):
                return event
    finally:
        if process.returncode is None and not process.stdout.at_eof():
            process.kill()
        await process.wait()
    raise ConfigError("the load generator ended before its result: see its error above")
