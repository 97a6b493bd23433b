"""Many devices in one process of their own: ``python -m benchmarks.load`` takes a LoadPlan and gives LoadEvents, as lines of JSON.

The devices begin one after another and hold turns back to back. Who has held as many as wanted goes on until the last has, so that
the load does not fall while anybody is measured; ``full`` and ``over`` mark the time in which all are at work.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from benchmarks.load_device import Fault, LoadDevice, Microphone, Sound, TurnSample
from benchmarks.load_socket import DeviceSocket, place
from edge.simulator.bootstrap import Address, Identity, boot

STAGGER_S = 0.05
"""Between the first frames of two devices; as in the published comparison of servers under load."""
LAG_EVERY_S = 0.01
MAX_LAG_MS = 20.0
"""Loop lag (p99) above which the generator itself is what is slow: a third of a frame."""
_FAULTS_TOLD = 20
"""Faults told one by one; the others only counted."""


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

    url: str = ""
    """ws:// address of a gateway that lets everybody in."""
    ota_url: str = ""
    """Where devices boot, instead of ``url``."""
    devices: int
    turns: int = 2
    """Turns every device holds at least; none when ``seconds`` is set."""
    seconds: float = 0.0
    """How long all devices are to be at work together."""
    stagger_s: float = STAGGER_S
    pause_s: float = 0.0
    """Mean silence before each question; every one is another, up to twice as long, the same in every run."""
    speaks: bool = True
    """False: the microphones stream silence and nobody is answered; needs ``seconds``."""
    sound: Sound


class Full(msgspec.Struct, frozen=True, tag="full"):
    """From now on all devices are at work."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """What the devices saw; times are seconds after the run's begin."""

    turns: tuple[TurnSample, ...]
    faults: dict[str, int]
    told: tuple[str, ...]
    """The first faults in words."""
    full_s: float
    over_s: float
    cpu_cores: float
    """This process' own CPU time over wall time between full and over."""
    loop_lag_p99_ms: float
    has_uvloop: bool


class Over(msgspec.Struct, frozen=True, tag="over"):
    """The measured time is over."""


LoadEvent = Full | Over | LoadResult


class Crowd:
    """What became of all devices so far."""

    def __init__(self, devices: int, turns: int) -> None:
        self.samples: list[TurnSample] = []
        self.faults: Counter[Fault] = Counter()
        self.told: list[str] = []
        self.is_full = asyncio.Event()
        self.is_done = asyncio.Event()
        """Every device held its turns or is gone."""
        self._turns = turns
        self._arriving = set(range(devices))
        self._left = dict.fromkeys(range(devices), turns)

    def greeted(self, device: int) -> None:
        """Note a device that is at work."""
        self._arriving.discard(device)
        if not self._arriving:
            self.is_full.set()

    def held(self, sample: TurnSample) -> None:
        """Count an answered turn."""
        self.samples.append(sample)
        self._turn_over(sample.device)

    def failed(self, device: int, fault: Fault, detail: str) -> None:
        """Count a turn that failed."""
        self.faults[fault] += 1
        if len(self.told) < _FAULTS_TOLD:
            self.told.append(f"device {device}: {fault} {detail}".rstrip())
        self._turn_over(device)

    def gone(self, device: int) -> None:
        """Wait for this device no more."""
        self.greeted(device)
        self._left.pop(device, None)
        self._look()

    def _turn_over(self, device: int) -> None:
        if device in self._left:
            self._left[device] -= 1
            if self._left[device] <= 0:
                del self._left[device]
        self._look()

    def _look(self) -> None:
        if not self._left and self._turns:
            self.is_done.set()


class LagWatch:
    """How late this process' loop wakes."""

    def __init__(self) -> None:
        self.lags_ms: list[float] = []

    async def run(self) -> None:
        """Watch until cancelled; ends the process when its parent is gone, for then nobody reads."""
        parent = os.getppid()
        while os.getppid() == parent:
            due_s = time.monotonic() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self.lags_ms.append(max(0.0, time.monotonic() - due_s) * 1000)
        os._exit(1)

    def p99_ms(self) -> float:
        """Return what a hundredth of the wake-ups were later than; 0 for none."""
        ordered = sorted(self.lags_ms)
        return ordered[int(len(ordered) * 0.99)] if ordered else 0.0


async def hold(plan: LoadPlan, tell: Callable[[LoadEvent], None]) -> LoadResult:
    """Hold the turns of all devices and return what they saw; ``tell`` gets ``Full`` and ``Over`` in time.

    Raises DeviceError when the address is none or devices cannot boot. Every socket is closed when this returns or is cancelled.
    """
    identities = [Identity(device_id=mac(number)) for number in range(plan.devices)]
    addresses = [await boot(plan.ota_url, who) if plan.ota_url else Address(url=plan.url) for who in identities]
    for address in addresses[:1]:
        place(address.url)
    crowd, lag = Crowd(plan.devices, plan.turns if not plan.seconds else 0), LagWatch()
    devices: list[LoadDevice] = []
    began_s = time.monotonic()
    watching = asyncio.create_task(lag.run(), name="lag")
    arriving = asyncio.create_task(_arrive(plan, identities, addresses, crowd, devices), name="arriving")
    try:
        await crowd.is_full.wait()
        lag.lags_ms.clear()
        tell(Full())
        full_s, cpu_s = time.monotonic(), time.process_time()
        with suppress(TimeoutError):
            async with asyncio.timeout(plan.seconds or None):
                await crowd.is_done.wait()
        over_s, cpu_s = time.monotonic(), time.process_time() - cpu_s
        tell(Over())
    finally:
        await _leave(devices, watching, arriving)
    return LoadResult(
        turns=tuple(crowd.samples),
        faults={str(fault): count for fault, count in crowd.faults.items()},
        told=tuple(crowd.told),
        full_s=full_s - began_s,
        over_s=over_s - began_s,
        cpu_cores=cpu_s / max(over_s - full_s, 1e-9),
        loop_lag_p99_ms=lag.p99_ms(),
        has_uvloop=type(asyncio.get_running_loop()).__module__.startswith("uvloop"),
    )


def mac(number: int) -> str:
    """Return the locally administered address of device ``number``, below 65,536."""
    return f"02:00:00:01:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


async def _arrive(
    plan: LoadPlan,
    identities: Sequence[Identity],
    addresses: Sequence[Address],
    crowd: Crowd,
    devices: list[LoadDevice],
) -> None:
    """Connect one device after another, each when it is its turn by the clock."""
    loop = asyncio.get_running_loop()
    microphone = Microphone(plan.sound)
    began_s = time.monotonic()
    for number, (identity, address) in enumerate(zip(identities, addresses, strict=True)):
        await asyncio.sleep(max(0.0, began_s + number * plan.stagger_s - time.monotonic()))
        device = LoadDevice(number, microphone, crowd, speaks=plan.speaks, pause_s=plan.pause_s, began_s=began_s)
        device.wire = socket = DeviceSocket(device, address.url, identity.websocket_headers(address))
        devices.append(device)
        device.connect()
        try:
            await loop.create_connection(partial(_same, socket), *place(address.url))
        except OSError as error:
            device.unreachable(type(error).__name__)


def _same(socket: DeviceSocket) -> DeviceSocket:
    return socket


async def _leave(devices: Sequence[LoadDevice], *tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    for device in devices:
        device.leave()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)


def main() -> None:
    """Read a plan from standard input, hold it, and write events to standard output."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadPlan)

    def tell(event: LoadEvent) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        tell(runner.run(hold(plan, tell)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, which costs half as much, where it is installed."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    main()
