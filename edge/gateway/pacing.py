"""When what goes to a device: messages at once, speech with a small lead on an absolute clock.

A device has no jitter buffer and room for 40 packets, of which it loses the newest without a word (protocol §6.2); so we send a lead
in a burst and then a packet as each one is played. ``Schedule`` is the arithmetic, ``Speech`` one turn's line of messages and packets
from ``tts/start`` to ``tts/stop``, ``Outgoing`` what a connection's writer awaits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge.seam import DOWNLINK_FRAME_MS, SPEECH_WINDOW_MS
from models.errors import DeviceTooSlowError

MAX_SPEECH_ITEMS = 2 * SPEECH_WINDOW_MS // DOWNLINK_FRAME_MS
"""Packets and sentences of one turn that may wait: what the brain may be ahead, and as much for texts."""
MAX_URGENT = 64
"""Messages that may wait to be sent at once; a device that reads has none waiting. A guess."""
_EARLY_S = 0.001
"""What is due within a millisecond is due: event loops keep time no better."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How far ahead of the loudspeaker we are."""

    lead_packets: int = 4
    """In [1, 5]: 240 ms. More delays barge-in, because a device plays out what it has (protocol §6.3)."""
    frame_s: float = DOWNLINK_FRAME_MS / 1000
    gap_s: float = 0.06
    """Between ``tts/start`` and the first packet, which a device would drop while it enters Speaking: 20 to 60 ms (protocol §6.2)."""


@dataclass(slots=True)
class Schedule:
    """When the next packet is due, and when the device will have played all it got; all times on one monotonic clock."""

    pace: Pace
    first_s: float
    """The first packet goes no sooner."""
    plays_until_s: float = field(init=False)
    sent_packets: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.plays_until_s = self.first_s

    @property
    def due_s(self) -> float:
        """When the next packet is to be sent: so late that the device then holds the lead, it included."""
        return max(self.first_s, self.plays_until_s - (self.pace.lead_packets - 1) * self.pace.frame_s)

    def packet_sent(self, now_s: float) -> float:
        """Count a packet and return the seconds of silence heard before it; after a silence the clock starts anew."""
        silence_s = max(0.0, now_s - self.plays_until_s)
        self.plays_until_s += silence_s + self.pace.frame_s
        self.sent_packets += 1
        return silence_s if self.sent_packets > 1 else 0.0

    def restart(self, now_s: float) -> None:
        """Go on after a wait that was meant: what of it was silence is none of ours, and the lead is built anew."""
        self.plays_until_s = max(self.plays_until_s, now_s)


class Speech:
    """One turn on its way to the device: ``opening`` at once, then messages and packets in order as due, then ``closing``."""

    def __init__(self, turn_id: str, opening: Sequence[str], closing: str, pace: Pace) -> None:
        self.turn_id = turn_id
        self.has_opened = False
        """Whether the last message of the opening, ``tts/start``, was sent or is being sent."""
        self.has_closed = False
        """Whether ``tts/stop`` was sent or is being sent."""
        self.reported_ms = 0
        """How much the brain was told was played."""
        self._opening = deque(opening)
        self._closing = closing
        self._pace = pace
        self._line: deque[str | bytes] = deque()
        self._is_ended = False
        self._is_held = False
        self._schedule: Schedule | None = None

    @property
    def played_ms(self) -> int:
        """Sound handed to the device."""
        return self._schedule.sent_packets * DOWNLINK_FRAME_MS if self._schedule else 0

    @property
    def is_all_sent(self) -> bool:
        """Whether the brain said the end and everything before it was sent."""
        return self._is_ended and not self._line

    def put(self, item: str | bytes) -> None:
        """Add a message or packet; raise DeviceTooSlowError when MAX_SPEECH_ITEMS wait."""
        if len(self._line) >= MAX_SPEECH_ITEMS:
            raise DeviceTooSlowError(f"{len(self._line)} packets of turn {self.turn_id} wait")
        self._line.append(item)

    def end(self) -> None:
        """Nothing more comes: close once all of it was played."""
        self._is_ended = True

    def hold(self) -> None:
        """Keep what waits; a turn whose last packet was sent has nothing to keep and closes as it would."""
        self._is_held = True

    def resume(self, now_s: float) -> None:
        """Go on where it was held; repeating it changes nothing."""
        if self._is_held and self._schedule:
            self._schedule.restart(now_s)
        self._is_held = False

    @property
    def due_s(self) -> float | None:
        """When ``take`` is to be called, None while there is nothing to say."""
        if self._opening:
            return 0.0
        if self._schedule is None or self.has_closed:
            return None
        if self._line:
            return None if self._is_held else self._schedule.due_s
        return self._schedule.plays_until_s if self._is_ended else None

    def take(self) -> str | bytes:
        """Return what is due."""
        if self._opening:
            item = self._opening.popleft()
            self.has_opened = not self._opening
            return item
        if self._line:
            return self._line.popleft()
        self.has_closed = True
        return self._closing

    def sent(self, item: str | bytes, now_s: float) -> float:
        """Note that ``item`` was sent; return the seconds of silence heard before it."""
        if self._schedule is None:
            if self.has_opened:
                self._schedule = Schedule(self._pace, first_s=now_s + self._pace.gap_s)
        elif isinstance(item, bytes):
            return self._schedule.packet_sent(now_s)
        return 0.0


class Outgoing:
    """Everything that waits to be sent to one device; the urgent first."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self.speech: Speech | None = None
        """The turn that speaks; put another in its place, or None, to silence it."""
        self._now = now
        self._urgent: deque[str] = deque()
        self._is_ending = False
        self._changed = asyncio.Event()

    def say(self, message: str) -> None:
        """Send before anything else; raise DeviceTooSlowError when MAX_URGENT messages wait."""
        if len(self._urgent) >= MAX_URGENT:
            raise DeviceTooSlowError(f"{MAX_URGENT} messages wait to be read")
        self._urgent.append(message)
        self._changed.set()

    def changed(self) -> None:
        """Tell that ``speech``, or what it holds, is another."""
        self._changed.set()

    def end(self) -> None:
        """Silence the speech, and end ``next`` when what is urgent was sent."""
        self.speech = None
        self._is_ending = True
        self._changed.set()

    async def next(self) -> tuple[str | bytes, Speech | None] | None:
        """Return what is to be sent now and the speech it belongs to, waiting until something is due; None after ``end``."""
        while True:
            if self._urgent:
                return self._urgent.popleft(), None
            if self._is_ending:
                return None
            due_s = self.speech.due_s if self.speech else None
            if self.speech and due_s is not None and due_s <= self._now() + _EARLY_S:
                return self.speech.take(), self.speech
            await self._wait_until(due_s)

    async def _wait_until(self, due_s: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(None if due_s is None else due_s - self._now()):
                await self._changed.wait()
        except TimeoutError:
            return
