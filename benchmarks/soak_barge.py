"""Barge-ins at uniformly random moments of a turn: is it obeyed, is anything stale heard, and is the next question answered?

Stock devices on real sockets, many at once, each with its own conversation. Every question is a tone whose pitch is its number, and so
is its answer: what is heard says which question it belongs to. A try is a question, an interruption, and a question in calm.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.report import summary
from benchmarks.soak_engines import NUMBERS, sung
from benchmarks.soak_judge import NoteTaker, is_answered, moment_of, stale, stop_ms
from edge.gateway.framing import VERSIONS
from edge.seam import ListenMode
from edge.simulator.bootstrap import Identity
from edge.simulator.client import connect
from edge.simulator.device import Device
from edge.simulator.firmware import Firmware
from edge.simulator.turn import TurnLog
from edge.simulator.uplink import RATE_HZ
from models.errors import ConfigError, DeviceError

Way = Literal["button", "wake word", "typed", "speech"]
WAYS: dict[ListenMode, tuple[Way, ...]] = {
    "auto": ("button", "wake word", "typed"),
    "realtime": ("speech", "speech", "button"),
}
"""How a device is interrupted; by voice only where its microphone stays open."""
DEVICES = 32
"""At once: their sound, decoded, keeps half a core busy."""
QUESTION_MS, OVER_MS = 300, 600
"""How long a question lasts, and one that is said over an answer: as long as words are waited for."""
ANSWER_S = 10.0
"""Time to answer a question before the session counts as stuck: five times what it takes."""
READY_S = 5.0
"""Time to listen again."""
PAST_THE_END = 1.05
"""Moments are drawn from a turn's length and a little more."""
SETTLE_S = 0.1
"""After the answer, what still comes is heard: stale packets need not come at once."""
MAX_TOLD = 20


@dataclass(slots=True)
class Barged:
    """What became of all tries so far."""

    tried: int = 0
    stuck: int = 0
    stale: int = 0
    stops_ms: list[float] = field(default_factory=list)
    never_stopped: int = 0
    """Aborts without a ``tts/stop``."""
    moments: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    turn_s: float = 0.0
    """Length of an uninterrupted turn, from which moments are drawn."""

    def tell(self, line: str) -> None:
        """Keep the first lines."""
        if len(self.told) < MAX_TOLD:
            self.told.append(line)

    def results(self) -> dict[str, Any]:
        """Return the figures as the report has them."""
        return {
            "tried": self.tried,
            "stuck": self.stuck,
            "stale_packets": self.stale,
            "aborts_without_stop": self.never_stopped,
            "stop_ms": summary(self.stops_ms),
            "moments": dict(self.moments),
            "ways": dict(self.ways),
            "turn_s": round(self.turn_s, 2),
        }


class _Tapped(Firmware):
    """Stock firmware, of which everything it is sent is noted, and on which a client may type."""

    def __init__(self, firmware: Firmware, taker: NoteTaker) -> None:
        vars(self).update(vars(firmware))
        self._taker = taker

    def on_text(self, text: str, now_ms: float) -> None:
        self._taker.text(text, now_ms)
        super().on_text(text, now_ms)

    def on_packet(self, packet: bytes, now_ms: float) -> None:
        self._taker.packet(packet, now_ms)
        super().on_packet(packet, now_ms)

    def type_in(self, text: str) -> None:
        """Send a text as a client does that was typed on."""
        self._send(type="listen", state="detect", text=text)


class StuckError(DeviceError):
    """A question that nobody answered."""

    code = "soak-stuck"


class Talker:
    """One device that talks and is interrupted."""

    def __init__(self, device: Device, mode: ListenMode, dice: random.Random) -> None:
        self._device = device
        self._mode: ListenMode = mode
        self._dice = dice
        self._taker = NoteTaker()
        self._firmware = device.firmware = _Tapped(device.firmware, self._taker)

    async def listen(self) -> None:
        """Begin the conversation; raise DeviceError."""
        await self._device.listen(self._mode)

    async def converse(self, number: int) -> float:
        """Ask, hear the answer out and return how many seconds it all took; raise StuckError."""
        began_ms = self._begin()
        self._device.microphone.say(sung(number, QUESTION_MS, RATE_HZ))
        await self._answered(number, "a question in calm")
        await self._ready()
        return (self._device.now_ms - began_ms) / 1000

    async def barge(self, found: Barged) -> None:
        """Make one try; raise StuckError when a question was not answered."""
        first, over, calm = self._dice.sample(NUMBERS, 3)
        way = self._dice.choice(WAYS[self._mode])
        self._begin()
        self._device.microphone.say(sung(first, QUESTION_MS, RATE_HZ))
        await asyncio.sleep(self._dice.uniform(0, PAST_THE_END * found.turn_s))
        moment = moment_of(self._taker.notes)
        found.moments[moment] += 1
        found.ways[way] += 1
        since_ms = self._device.now_ms
        try:
            await self._interrupt(way, over, f"{way}, {moment}")
            await self._ready()
            self._device.microphone.say(sung(calm, QUESTION_MS, RATE_HZ))
            await self._answered(calm, f"after {way}, {moment}")
            await asyncio.sleep(SETTLE_S)
            await self._ready()
        finally:
            self._judge(found, way, since_ms, first, moment)

    def _judge(self, found: Barged, way: Way, since_ms: float, first: int, moment: str) -> None:
        notes = self._taker.notes
        if heard := stale(notes, since_ms, first):
            found.stale += heard
            found.tell(f"{heard} packets or sentences of an interrupted turn were heard ({way}, {moment})")
        if way in {"button", "wake word"}:
            took_ms = stop_ms(notes, since_ms)
            if took_ms is None:
                found.never_stopped += 1
            else:
                found.stops_ms.append(took_ms)

    async def _interrupt(self, way: Way, over: int, where: str) -> None:
        device = self._device
        if way == "speech":
            device.microphone.say(sung(over, OVER_MS, RATE_HZ))
        else:
            # Who presses a button or types has stopped speaking.
            device.microphone.say(b"")
        if way in {"button", "wake word"}:
            await device.interrupt(by_wake_word=way == "wake word", timeout_s=READY_S)
            return
        if way == "typed":
            self._firmware.type_in(f"{over}号的问题，编号{self._dice.getrandbits(32):08x}")
        await self._answered(over, f"the interruption itself, {where}")

    async def _answered(self, number: int, what: str) -> None:
        if not await self._device.until(lambda: is_answered(self._taker.notes, number), ANSWER_S):
            why = "the connection was closed" if self._device.is_closed else "no answer"
            raise StuckError(f"{what}: {why}; {self._seen()}")

    async def _ready(self) -> None:
        if not await self._device.until(lambda: self._device.microphone.is_on, READY_S):
            raise StuckError(f"the microphone stays closed; {self._seen()}")

    def _begin(self) -> float:
        """Begin a new account and return the time."""
        self._taker.notes.clear()
        self._firmware.log = TurnLog()
        self._firmware.playback.take()
        return self._device.now_ms

    def _seen(self) -> str:
        """Return what was heard, in short."""
        names = [f"{note.kind}{'' if note.number is None else note.number}" for note in self._taker.notes]
        short = [name for place, name in enumerate(names) if not place or names[place - 1] != name]
        return f"device {self._firmware.state}, heard: {' '.join(short[-20:]) or 'nothing'}"


async def barge_in(
    url: str,
    tries: int,
    seed: int,
    *,
    devices: int = DEVICES,
    turn_s: float = 0.0,
    progress: Callable[[int], None] = lambda _tried: None,
) -> Barged:
    """Interrupt so many turns at the gateway there; raise ConfigError when it does not answer at all.

    Moments are drawn from ``turn_s``, which is measured first when it is 0.
    """
    found = Barged(turn_s=turn_s or await _usual_turn_s(url))
    left = iter(range(tries))

    async def talk(number: int) -> None:
        dice = random.Random(f"barge-in {seed} {number}")
        mode: ListenMode = "realtime" if number % 3 == 2 else "auto"  # noqa: PLR2004 - a third of them
        is_over = False
        while not is_over:
            is_over = await _conversation(url, number, mode, dice, left, found, progress)

    async with asyncio.TaskGroup() as tasks:
        for number in range(min(devices, tries)):
            tasks.create_task(talk(number), name=f"barge-in-{number}")
    return found


async def _conversation(
    url: str,
    number: int,
    mode: ListenMode,
    dice: random.Random,
    left: Iterator[int],
    found: Barged,
    progress: Callable[[int], None],
) -> bool:
    """Make tries on one connection; return whether none are left. One that is stuck ends the connection, and is a try if it never began."""
    identity = Identity(device_id=f"02:00:00:02:{number >> 8:02x}:{number & 0xFF:02x}")
    has_begun = False
    try:
        async with connect(url=url, version=VERSIONS[number % len(VERSIONS)], identity=identity) as device:
            talker = Talker(device, mode, dice)
            await talker.listen()
            for _ in left:
                has_begun = True
                found.tried += 1
                progress(found.tried)
                await talker.barge(found)
    except DeviceError as error:
        if not has_begun:
            if next(left, None) is None:
                return True
            found.tried += 1
        found.stuck += 1
        found.tell(f"{mode}: {error}")
        return False
    return True


async def _usual_turn_s(url: str) -> float:
    """Return how long a turn takes that nobody interrupts."""
    try:
        async with connect(url=url) as device:
            talker = Talker(device, "auto", random.Random(0))
            await talker.listen()
            await talker.converse(NUMBERS[0])
            return await talker.converse(NUMBERS[1])
    except DeviceError as error:
        raise ConfigError(f"not even an uninterrupted turn goes well: {error}") from error
