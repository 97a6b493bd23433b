"""A day of a pool in virtual time: how the number of replicas follows the work, and what that saves over always having the most.

``python -m benchmarks scaling``. The real deciding code looks at a made-up pool: requests come as a Poisson process over a day's curve,
replicas take minutes to start, and Kubernetes removes the pod whose work is missed most among those its rules let it choose from.
"""

from __future__ import annotations

import asyncio
import math
import random
import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import typer
from rich.console import Console

from benchmarks.report import report_of, show, table_of, write_json
from cloud.hours import hours
from cloud.scaler import Look, Reading, Scaler
from cloud.scaling import Rules
from coordinator.cluster.objects import DELETION_COST, SERVING, SERVING_LABEL, Pod, Scale

ZONE = ZoneInfo("Asia/Shanghai")
MIDNIGHT = datetime(2026, 11, 23, tzinfo=ZONE)
TICK_S = 5.0
START_S = 240.0
"""From a pod's making to its readiness; a guess for 40 GB of weights from a local disk onto four GPUs."""
SERVICE_S = 4.0
PATIENCE_S = 2.0
"""A request that waited so long is answered elsewhere."""
GPUS = 4
"""Per replica, as the seeds have it."""
PEAKS = ((7.7, 1.0, 14.0), (12.5, 1.2, 18.0), (19.8, 1.8, 30.0))
"""Hour, spread in hours and requests per second of a day's busy times. Made up: a household's morning, noon and evening."""
QUIET = 0.6
"""Requests per second at any other time."""
BURST = (15.0, 15.2, 25.0)
"""From, to (hours) and requests per second on top: news that everybody asks about."""
RULES = Rules(
    min_replicas=1, max_replicas=8, max_running=32, service_s=SERVICE_S, closed=hours("23:30-06:30 Asia/Shanghai")
)


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    days: Annotated[int, typer.Option(help="How many days.", min=1, max=7)] = 1,
    seed: Annotated[int, typer.Option(help="Of the requests.")] = 1,
) -> None:
    """Let a pool live through a day and show how it was scaled."""
    console, started_at = Console(), datetime.now(UTC)
    results = results_of(simulate(RULES, days=days, seed=seed))
    report = report_of(
        "scaling",
        shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        engines="scripted",
        results=results,
        started_at=started_at,
    )
    columns = ("hour", "offered/s", "replicas", "ready", "use %", "waiting max", "elsewhere %", "why")
    rows = [tuple(row[column] for column in columns) for row in results["hours"]]
    totals = {name: value for name, value in results.items() if name != "hours"}
    show(
        console,
        report,
        [
            table_of("A pool's day, by the hour", columns, rows),
            table_of("In all", ("what", "value"), [(name, str(value)) for name, value in totals.items()]),
        ],
    )
    if json is not None:
        write_json(report, json)


@dataclass(frozen=True, slots=True)
class _Figures:
    running: int
    waiting: int
    kv_usage: float


@dataclass(slots=True)
class _Pod:
    name: str
    address: str
    ready_s: float
    running: int = 0
    labels: dict[str, str] = field(default_factory=lambda: {SERVING_LABEL: SERVING})
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moment:
    """The pool after one tick."""

    hour: float
    """Since the first midnight."""
    offered: int
    elsewhere: int
    running: int
    waiting: int
    spec: int
    ready: int
    reason: str


class Pool:
    """A Deployment, its pods and their requests; what the scaler asks of Kubernetes is asked of this."""

    def __init__(self, rng: random.Random) -> None:
        self.now_s = 0.0
        self.spec = 0
        self.version = 1
        self.pods: list[_Pod] = []
        self.waiting: list[float] = []
        """Since when each waits."""
        self.cut_off = 0
        """Requests that a removed pod was working on."""
        self.offered = self.elsewhere = 0
        self._made = 0
        self._rng = rng

    # What the scaler asks

    def read_scale(self, deployment: str, namespace: str = "") -> Scale:
        """Return the scale."""
        numbers = {"replicas": len(self.pods), "selector": "app=pool"}
        meta = {"name": deployment, "namespace": namespace, "resourceVersion": str(self.version)}
        return msgspec.convert({"metadata": meta, "spec": {"replicas": self.spec}, "status": numbers}, Scale)

    def write_scale(self, scale: Scale, replicas: int, *, dry_run: bool = False) -> bool:
        """Set the number."""
        if scale.metadata.resource_version != str(self.version):
            return False
        if not dry_run:
            self.spec, self.version = replicas, self.version + 1
            self._follow()
        return True

    def list_pods(self, selector: str, namespace: str = "") -> list[Pod]:  # noqa: ARG002 - there is but one pool
        """Return the pods."""
        return [
            msgspec.convert(
                {
                    "metadata": {"name": pod.name, "labels": dict(pod.labels), "annotations": dict(pod.annotations)},
                    "status": {
                        "phase": "Running",
                        "podIP": pod.address,
                        "conditions": [{"type": "Ready", "status": str(self._is_ready(pod))}],
                    },
                },
                Pod,
            )
            for pod in self.pods
        ]

    def patch_pod(self, name: str, patch: dict[str, Any], namespace: str = "", *, dry_run: bool = False) -> bool:  # noqa: ARG002
        """Merge into labels and annotations."""
        for pod in self.pods:
            if pod.name == name and not dry_run:
                pod.labels |= patch["metadata"].get("labels", {})
                for key, value in patch["metadata"].get("annotations", {}).items():
                    pod.annotations.pop(key, None)
                    if value is not None:
                        pod.annotations[key] = value
        return True

    def close(self) -> None:
        """Hold nothing."""

    async def readings(self, addresses: Collection[str]) -> Mapping[str, Reading]:
        """Return what ready replicas say; those that wait are spread over them."""
        ready = [pod for pod in self.pods if self._is_ready(pod) and pod.address in addresses]
        serving = [pod for pod in ready if self._serves(pod)]
        share = -(-len(self.waiting) // len(serving)) if serving else 0
        return {
            pod.address: _Figures(
                running=pod.running,
                waiting=share if pod in serving else 0,
                kv_usage=0.7 * pod.running / RULES.max_running,
            )
            for pod in ready
        }

    # What happens by itself

    def pass_time(self, seconds: float, rate: float) -> None:
        """Let requests end, come and wait for so long, ``rate`` of them a second."""
        self.now_s += seconds
        for pod in self.pods:
            pod.running -= _binomial(self._rng, pod.running, 1 - math.exp(-seconds / SERVICE_S))
        offered = _poisson(self._rng, rate * seconds)
        self.offered += offered
        self.waiting += [self.now_s] * offered
        serving = [pod for pod in self.pods if self._is_ready(pod) and self._serves(pod)]
        while self.waiting and serving:
            idlest = min(serving, key=lambda pod: pod.running)
            if idlest.running >= RULES.max_running:
                break
            idlest.running += 1
            self.waiting.pop(0)
        patient = [since_s for since_s in self.waiting if serving and self.now_s - since_s < PATIENCE_S]
        self.elsewhere += len(self.waiting) - len(patient)
        self.waiting = patient

    @property
    def ready(self) -> int:
        """How many replicas are ready."""
        return sum(map(self._is_ready, self.pods))

    @property
    def running(self) -> int:
        """How many requests run."""
        return sum(pod.running for pod in self.pods)

    def _is_ready(self, pod: _Pod) -> bool:
        return self.now_s >= pod.ready_s

    @staticmethod
    def _serves(pod: _Pod) -> bool:
        return pod.labels[SERVING_LABEL] == SERVING

    def _follow(self) -> None:
        """Make and remove pods as Kubernetes does; where its rules leave a choice, the busiest goes."""
        while len(self.pods) < self.spec:
            self._made += 1
            self.pods.append(_Pod(f"pod-{self._made}", f"10.0.0.{self._made}", self.now_s + START_S))
        while len(self.pods) > self.spec:
            gone = min(
                self.pods,
                key=lambda pod: (self._is_ready(pod), int(pod.annotations.get(DELETION_COST, "0")), -pod.running),
            )
            self.cut_off += gone.running
            self.pods.remove(gone)


def rate_at(hour: float) -> float:
    """Return the requests per second offered at this hour of any day."""
    hour %= 24
    busy = sum(most * math.exp(-(((hour - at) / spread) ** 2)) for at, spread, most in PEAKS)
    return QUIET + busy + (BURST[2] if BURST[0] <= hour < BURST[1] else 0.0)


def simulate(rules: Rules, *, days: int = 1, seed: int = 1) -> tuple[Pool, list[Moment]]:
    """Return the pool after so many days from midnight to midnight, and every tick of it."""
    pool = Pool(random.Random(seed))
    return pool, asyncio.run(_live(pool, rules, days))


async def _live(pool: Pool, rules: Rules, days: int) -> list[Moment]:
    looks: list[Look] = []
    scaler = Scaler(
        pool,
        "pool",
        rules,
        pool.readings,
        observe=looks.append,
        now=lambda: pool.now_s,
        clock=lambda: MIDNIGHT.astimezone(UTC) + timedelta(seconds=pool.now_s),
        in_thread=_at_once,
    )
    moments: list[Moment] = []
    for _ in range(round(days * 86_400 / TICK_S)):
        hour = pool.now_s / 3600
        offered, elsewhere = pool.offered, pool.elsewhere
        pool.pass_time(TICK_S, rate_at(hour))
        await scaler.look()
        moments.append(
            Moment(
                hour, pool.offered - offered, pool.elsewhere - elsewhere, pool.running, len(pool.waiting),
                pool.spec, pool.ready, looks.pop().decision.reason,
            )
        )  # fmt: skip
    return moments


async def _at_once(call: Any, *args: Any, **options: Any) -> Any:
    return call(*args, **options)


def results_of(run: tuple[Pool, list[Moment]]) -> dict[str, Any]:
    """Return the day by the hour, and in all."""
    pool, moments = run
    replica_hours = sum(moment.spec for moment in moments) * TICK_S / 3600
    always = RULES.max_replicas * len(moments) * TICK_S / 3600
    open_hours = [moment for moment in moments if moment.ready]
    return {
        "hours": [_hour(hour, moments) for hour in range(round(len(moments) * TICK_S / 3600))],
        "requests": pool.offered,
        "elsewhere_share": round(pool.elsewhere / max(pool.offered, 1), 4),
        "elsewhere_share_while_open": round(
            sum(each.elsewhere for each in open_hours) / max(sum(each.offered for each in open_hours), 1), 4
        ),
        "cut_off": pool.cut_off,
        "changes": sum(before.spec != after.spec for before, after in pairwise(moments)),
        "gpu_hours": round(replica_hours * GPUS, 1),
        "gpu_hours_always_most": round(always * GPUS, 1),
        "saved_share": round(1 - replica_hours / always, 3),
    }


def _hour(hour: int, moments: list[Moment]) -> dict[str, Any]:
    ticks = [moment for moment in moments if int(moment.hour) == hour]
    offered = sum(tick.offered for tick in ticks)
    room = sum(tick.ready for tick in ticks) * RULES.max_running
    low, high = min(tick.spec for tick in ticks), max(tick.spec for tick in ticks)
    acted = [tick.reason for tick in ticks if tick.reason not in {"steady", "cooling", "starting", "unsure"}]
    return {
        "hour": hour,
        "offered/s": f"{offered / len(ticks) / TICK_S:.1f}",
        "replicas": f"{low}-{high}" if low != high else str(low),
        "ready": f"{sum(tick.ready for tick in ticks) / len(ticks):.1f}",
        "use %": round(100 * sum(tick.running for tick in ticks) / room) if room else None,
        "waiting max": max(tick.waiting for tick in ticks),
        "elsewhere %": f"{100 * sum(tick.elsewhere for tick in ticks) / max(offered, 1):.1f}",
        "why": ", ".join(dict.fromkeys(acted)),
    }


def _poisson(rng: random.Random, mean: float) -> int:
    """Knuth's method; for means below a few hundred."""
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count


def _binomial(rng: random.Random, trials: int, chance: float) -> int:
    return sum(rng.random() < chance for _ in range(trials))
