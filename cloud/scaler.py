"""Brings a pool's Deployment to the number of replicas wanted: reads, decides, drains, writes. One process per pool does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog

from cloud.removal import Plan, Replica, plan
from cloud.scaling import Decision, Load, Memory, Rules, desired
from coordinator.cluster.objects import Pod, Scale, drained, first_to_go, serving
from models.errors import VoiceError

_log = structlog.get_logger()

TICK_S = 5.0
"""How often it looks. A guess: a replica takes minutes to start, a request seconds to end."""
MAX_CONFLICTS = 3
"""Somebody else writes to the same Deployment; after so many tries the next look decides anew."""

T = TypeVar("T")


class Reading(Protocol):
    """What one replica says of itself."""

    @property
    def running(self) -> int: ...  # noqa: D102 - requests it computes
    @property
    def waiting(self) -> int: ...  # noqa: D102 - requests in its queue
    @property
    def kv_usage(self) -> float: ...  # noqa: D102 - share of its KV cache in use, in [0, 1]


Readings = Callable[[Collection[str]], Awaitable[Mapping[str, Reading]]]
"""Asks the replicas with these addresses (IP addresses, no port) and returns what those that answered said; raises nothing."""


class ScaleApi(Protocol):
    """What is asked of Kubernetes; ``KubernetesApi`` does it. Every call blocks and raises VoiceError."""

    def read_scale(self, deployment: str, namespace: str = "") -> Scale: ...  # noqa: D102 - as in KubernetesApi
    def write_scale(self, scale: Scale, replicas: int, *, dry_run: bool = False) -> bool: ...  # noqa: D102
    def list_pods(self, selector: str, namespace: str = "") -> list[Pod]: ...  # noqa: D102
    def patch_pod(self, name: str, patch: dict[str, Any], namespace: str = "", *, dry_run: bool = False) -> bool: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw and decided, for metrics and tests."""

    decision: Decision
    plan: Plan
    spec: int
    """Replicas in the Deployment's spec."""
    pods: int
    load: Load


class Scaler:
    """Scales one Deployment until cancelled; then nothing of it runs, and the API it was given is closed.

    With ``dry_run`` the API checks what it would write and keeps none of it. ``in_thread`` makes a blocking call elsewhere.
    """

    def __init__(
        self,
        api: ScaleApi,
        deployment: str,
        rules: Rules,
        readings: Readings,
        *,
        namespace: str = "",
        dry_run: bool = False,
        tick_s: float = TICK_S,
        observe: Callable[[Look], None] = lambda _look: None,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        in_thread: Callable[..., Coroutine[Any, Any, Any]] = asyncio.to_thread,
    ) -> None:
        self._api = api
        self._deployment = deployment
        self._namespace = namespace
        self._rules = rules
        self._readings = readings
        self._dry_run = dry_run
        self._tick_s = tick_s
        self._observe = observe
        self._now = now
        self._clock = clock
        self._in_thread = in_thread
        self._memory = Memory()
        self._read_s = now()
        self._load = Load(asked=0, running=0, waiting=0, kv_used=0.0)
        self._idle_since_s: dict[str, float] = {}
        self._reason = ""
        self.problem = "it has not looked yet"
        """Why nothing is decided, "" while looking works."""

    async def run(self) -> None:
        """Look every ``tick_s`` until cancelled; raises nothing of ours, it logs and looks again."""
        try:
            while True:
                try:
                    await self.look()
                    self._note("")
                except VoiceError as error:
                    self._note(str(error))
                await asyncio.sleep(self._tick_s)
        finally:
            self._api.close()

    async def look(self) -> Look:
        """Read, decide and act once; raise ConfigError (refused, not there), CloudUnreachableError (the API is away)."""
        scale = await self._blocking(self._api.read_scale, self._deployment, self._namespace)
        selector = scale.status.selector
        listed = await self._blocking(self._api.list_pods, selector, self._namespace) if selector else []
        pods = [pod for pod in listed if not pod.is_ending]
        readings = await self._readings([pod.address for pod in pods if pod.address])
        spec = scale.spec.replicas
        load = self._summed(pods, readings)
        decision = desired(self._rules, load, spec, now_s=self._now(), moment=self._clock(), memory=self._memory)
        self._memory = decision.memory
        steps = plan(self._replicas(pods, readings), decision.replicas)
        look = Look(decision, steps, spec, len(pods), load)
        self._say(look)
        if decision.replicas > spec:
            await self._mark(steps)
            await self._write(scale, decision.replicas)
        elif (
            len(pods) == spec
        ):  # else a roll-out or an earlier change is under way, and who would go is not ours to say
            await self._mark(steps)
            if steps.replicas < spec:
                await self._write(scale, steps.replicas)
        self._observe(look)
        return look

    def _summed(self, pods: Collection[Pod], readings: Mapping[str, Reading]) -> Load:
        """Return the load over the pods that said something; when none did although some are ready, the last one grows old."""
        said = [readings[pod.address] for pod in pods if pod.address in readings]
        now_s = self._now()
        if not said and any(pod.is_ready for pod in pods):
            return Load(asked=0, running=self._load.running, waiting=self._load.waiting,
                        kv_used=self._load.kv_used, age_s=now_s - self._read_s)  # fmt: skip
        self._read_s = now_s
        self._load = Load(
            asked=len(said),
            silent=sum(pod.is_ready and pod.address not in readings for pod in pods),
            running=sum(reading.running for reading in said),
            waiting=sum(reading.waiting for reading in said),
            kv_used=sum(reading.kv_usage for reading in said) / len(said) if said else 0.0,
        )
        return self._load

    def _replicas(self, pods: Collection[Pod], readings: Mapping[str, Reading]) -> list[Replica]:
        now_s = self._now()
        found: list[Replica] = []
        idle_since_s: dict[str, float] = {}
        for pod in pods:
            reading = readings.get(pod.address)
            requests = None if reading is None else reading.running + reading.waiting
            if pod.is_draining and requests == 0:
                idle_since_s[pod.name] = self._idle_since_s.get(pod.name, now_s)
            found.append(
                Replica(
                    name=pod.name,
                    is_ready=pod.is_ready,
                    is_draining=pod.is_draining,
                    is_first_to_go=pod.is_first_to_go,
                    requests=requests,
                    idle_s=now_s - idle_since_s.get(pod.name, now_s),
                )
            )
        self._idle_since_s = idle_since_s
        return found

    async def _mark(self, steps: Plan) -> None:
        patches = [
            *((name, drained()) for name in steps.drain),
            *((name, first_to_go()) for name in steps.lower),
            *((name, serving()) for name in steps.keep),
        ]
        for name, patch in patches:
            await self._blocking(self._api.patch_pod, name, patch, self._namespace, dry_run=self._dry_run)
        if patches:
            _log.info(
                "replicas_marked", deployment=self._deployment,
                drain=steps.drain, first_to_go=steps.lower, keep=steps.keep, dry_run=self._dry_run,
            )  # fmt: skip

    async def _write(self, scale: Scale, replicas: int) -> None:
        """Write the number; when others wrote meanwhile but left the number alone, write again."""
        was = scale.spec.replicas
        for _ in range(MAX_CONFLICTS):
            if await self._blocking(self._api.write_scale, scale, replicas, dry_run=self._dry_run):
                _log.info("scaled", deployment=self._deployment, was=was, replicas=replicas, dry_run=self._dry_run)
                return
            scale = await self._blocking(self._api.read_scale, self._deployment, self._namespace)
            if scale.spec.replicas != was:
                break
        _log.warning("scale_conflict", deployment=self._deployment, wanted=replicas, is_now=scale.spec.replicas)

    async def _blocking(self, call: Callable[..., T], *args: Any, **options: Any) -> T:
        """Make the call in a thread; cancelling ends the call and waits for it."""
        calling: asyncio.Future[T] = asyncio.ensure_future(self._in_thread(call, *args, **options))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            self._api.close()
            await asyncio.wait([calling])
            if not calling.cancelled():
                calling.exception()  # looked at, so that nobody complains
            raise

    def _say(self, look: Look) -> None:
        if look.decision.reason != self._reason:
            self._reason = look.decision.reason
            _log.info(
                "scaling", deployment=self._deployment, reason=self._reason, replicas=look.spec,
                wanted=look.decision.replicas, running=look.load.running, waiting=look.load.waiting,
            )  # fmt: skip

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.warning("scaling_stopped", deployment=self._deployment, reason=problem)
        self.problem = problem
