"""A simulated device at work: its socket, microphone and loudspeaker in real time, one turn after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from edge.gateway.vision_tokens import VisionOffer
from edge.seam import ListenMode
from edge.simulator.firmware import Firmware, State
from edge.simulator.turn import Interruption, TurnLog, TurnResult, interruption_of, result_of
from edge.simulator.uplink import FRAME_MS, RATE_HZ, Microphone
from models.errors import DeviceError, DeviceProtocolError

HELLO_TIMEOUT_S = 10.0
"""How long a device waits for the server's hello (protocol §4.3)."""
ANSWER_TIMEOUT_S = 60.0
"""How long we wait for ``tts/stop`` and silence after the end of speech. A guess: twice the longest answer we expect."""
OBEY_TIMEOUT_S = 5.0
"""How long we wait for the ``tts/stop`` an abort asks for; the goal is 0.1 s."""
STRAGGLERS_S = 0.15
"""After a turn's end, how long what still comes of it (an alert, late packets) is counted to it. A guess above a network's jitter."""
_ROUNDING_MS = 0.001
"""A timer may fire this much early when its time is rounded; what is due then is due now."""
MAX_PREROLL_FRAMES = 33
"""Two seconds of what was said before the wake word fired (protocol §6.1)."""


class Socket(Protocol):
    """The WebSocket as a device sees it."""

    async def send(self, message: str | bytes) -> None:
        """Send one message; does nothing once the socket is gone."""
        ...

    async def receive(self) -> str | bytes | None:
        """Return the next message, None once the socket is gone."""
        ...


class Encoder(Protocol):
    """PCM to Opus with the memory of one stream."""

    def encode(self, pcm: bytes) -> bytes:
        """Return 60 ms of s16le mono at 16 kHz as one packet."""
        ...


class Camera(Protocol):
    """Shows a picture to the server."""

    async def explain(self, offer: VisionOffer, question: str) -> str:
        """Return what the server said; raise DeviceError when it did not take the picture."""
        ...


@dataclass(frozen=True, slots=True)
class Framing:
    """One Opus packet in a binary message and back, as the protocol version has it."""

    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    """Raises DeviceProtocolError for a header that lies."""


class Device:
    """One stock device; use it inside ``async with running(device)``. One turn at a time."""

    def __init__(
        self,
        socket: Socket,
        firmware: Firmware,
        encoder: Encoder,
        framing: Framing,
        *,
        camera: Camera | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``camera`` is for a ``firmware`` that has one."""
        self.firmware = firmware
        self.microphone = Microphone()
        self.is_closed = False
        """Whether the server, or the network, ended the connection."""
        self._socket = socket
        self._encoder = encoder
        self._framing = framing
        self._camera = camera
        self._shutter = asyncio.Event()
        self._now = now
        self._news = asyncio.Event()
        self._replan = asyncio.Event()
        self._sending = asyncio.Lock()

    @property
    def now_ms(self) -> float:
        """The device's clock."""
        return self._now() * 1000

    async def greet(self, timeout_s: float = HELLO_TIMEOUT_S) -> None:
        """Say hello and wait for the server's; raise DeviceProtocolError as the firmware's error screen would."""
        self.firmware.connect()
        await self._settle()
        if not await self.until(lambda: self.firmware.is_open, timeout_s):
            why = "the connection was closed" if self.is_closed else f"none came within {timeout_s:g} s"
            raise DeviceProtocolError(f"no server hello: {why}")

    async def ask(
        self,
        pcm: bytes,
        *,
        mode: ListenMode = "auto",
        wake_word: str = "",
        preroll: bytes = b"",
        interrupt_after_ms: float | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> TurnResult:
        """Say ``pcm`` (s16le mono at 16 kHz) in real time, hear the answer out and return what happened.

        ``preroll`` goes ahead in a burst with ``wake_word``. ``interrupt_after_ms`` presses the button so long after the first
        sound. Raises DeviceError when the device cannot listen (closed, or in the other mode). Cancelling leaves the device as
        it stands; close it then.
        """
        await self.listen(mode, wake_word=wake_word, preroll=preroll)
        log = self.firmware.log
        self.microphone.say(pcm)
        await self.until(lambda: not self.microphone.has_more_to_say, len(pcm) / 2 / RATE_HZ + timeout_s)
        if mode == "manual":
            self.firmware.release()
            await self._settle()
        if interrupt_after_ms is not None and await self._sounded(interrupt_after_ms, timeout_s):
            await self.interrupt()
        await self.until(lambda: self._is_over(log), timeout_s)
        await self.until(lambda: False, STRAGGLERS_S)
        return self._finish(mode)

    async def listen(self, mode: ListenMode = "auto", *, wake_word: str = "", preroll: bytes = b"") -> None:
        """Have the microphone open in ``mode``; raise DeviceError when the device does not get there."""
        firmware = self.firmware
        if firmware.state is State.LISTENING and firmware.mode != mode:
            raise DeviceError(f"the device listens in mode {firmware.mode}; open another connection for {mode}")
        if preroll:
            await self._burst(preroll)
        firmware.listen(mode, self.now_ms, wake_word=wake_word)
        await self._settle()
        if not await self.until(lambda: self.microphone.is_on, OBEY_TIMEOUT_S):
            raise DeviceError("the device is not listening: " + ("closed" if self.is_closed else firmware.state))

    async def interrupt(self, *, by_wake_word: bool = False, timeout_s: float = OBEY_TIMEOUT_S) -> Interruption:
        """Press the button, wait for ``tts/stop`` and return how long it took."""
        log = self.firmware.log
        self.firmware.interrupt(self.now_ms, by_wake_word=by_wake_word)
        await self._settle()
        await self.until(lambda: log.obeyed_ms is not None, timeout_s)
        return interruption_of(log) or Interruption(stop_ms=None, packets_before_stop=0, packets_after_stop=0)

    async def until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``reached`` holds and return True; False when the time is up or the connection gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not reached() and not self.is_closed:
                    self._news.clear()
                    await self._news.wait()
        return reached()

    async def serve(self) -> None:
        """Read, listen and play until the connection ends; ``running`` does this."""
        try:
            async with asyncio.TaskGroup() as tasks:
                jobs = [tasks.create_task(self._keep_time(), name="device-clock")]
                if self._camera is not None:
                    jobs.append(tasks.create_task(self._photograph(self._camera), name="device-camera"))
                await self._read()
                for job in jobs:
                    job.cancel()
        finally:
            self.firmware.closed()
            self.microphone.switch_off()
            self.is_closed = True
            self._news.set()

    async def _read(self) -> None:
        while (message := await self._socket.receive()) is not None:
            try:
                if isinstance(message, str):
                    self.firmware.on_text(message, self.now_ms)
                else:
                    self.firmware.on_packet(self._framing.unpack(message), self.now_ms)
            except DeviceProtocolError as error:
                self.firmware.fault(str(error))
            await self._settle()

    async def _keep_time(self) -> None:
        while True:
            now_ms = self.now_ms + _ROUNDING_MS
            async with self._sending:
                for frame in self.microphone.due(now_ms):
                    await self._socket.send(self._framing.pack(self._encoder.encode(frame)))
            self.firmware.tick(now_ms)
            await self._settle()
            self._replan.clear()
            dues_ms = [
                due for due in (self.microphone.next_due_ms, self.firmware.playback.drains_ms) if due is not None
            ]
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, (min(dues_ms) - self.now_ms) / 1000) if dues_ms else None):
                    await self._replan.wait()

    async def _photograph(self, camera: Camera) -> None:
        """Show one picture after another; unlike a real device, which does nothing else meanwhile (protocol §10)."""
        firmware = self.firmware
        while True:
            while firmware.photos:
                photo, text = firmware.photos.pop(0), None
                if firmware.vision is not None:
                    with suppress(DeviceError):
                        text = await camera.explain(firmware.vision, photo.question)
                firmware.explained(photo, text)
                await self._settle()
            self._shutter.clear()
            await self._shutter.wait()

    async def _settle(self) -> None:
        """Do what the firmware decided: microphone, messages, and tell whoever waits."""
        firmware, microphone = self.firmware, self.microphone
        if firmware.is_mic_on and not microphone.is_on:
            microphone.switch_on(self.now_ms)
        elif microphone.is_on and not firmware.is_mic_on:
            microphone.switch_off()
        self._replan.set()
        if firmware.photos:
            self._shutter.set()
        async with self._sending:
            while firmware.outbox:
                await self._socket.send(firmware.outbox.pop(0))
        self._news.set()

    async def _burst(self, pcm: bytes) -> None:
        size = RATE_HZ * FRAME_MS // 1000 * 2
        frames = [pcm[start : start + size].ljust(size, b"\0") for start in range(0, len(pcm), size)]
        async with self._sending:
            for frame in frames[-MAX_PREROLL_FRAMES:]:
                await self._socket.send(self._framing.pack(self._encoder.encode(frame)))

    async def _sounded(self, for_ms: float, timeout_s: float) -> bool:
        """Wait until the answer has sounded so long; False when it never began or ended before."""
        sound = self.firmware.playback.sound
        if not await self.until(lambda: sound.first_ms is not None, timeout_s) or sound.first_ms is None:
            return False
        await asyncio.sleep(max(0.0, (sound.first_ms + for_ms - self.now_ms) / 1000))
        return self.firmware.state is State.SPEAKING

    def _is_over(self, log: TurnLog) -> bool:
        firmware = self.firmware
        if log.alerts and log.started_ms is None:
            return True
        settled = firmware.is_mic_on or firmware.mode == "manual"
        return (
            log.stopped_ms is not None
            and firmware.state is not State.SPEAKING
            and firmware.playback.is_drained(self.now_ms)
            and settled
        )

    def _finish(self, mode: ListenMode) -> TurnResult:
        """Close the turn's account; what happens from now on belongs to the next."""
        firmware, microphone = self.firmware, self.microphone
        log, firmware.log = firmware.log, TurnLog()
        end_ms = microphone.spoke_until_ms
        return result_of(
            log,
            firmware.playback.take(),
            mode=mode,
            rate_hz=firmware.playback.rate_hz,
            frame_ms=firmware.playback.frame_ms,
            end_of_speech_ms=self.now_ms if end_ms is None else end_ms,
            unheard_ms=microphone.unheard_ms,
            lost_frames=microphone.lost_frames,
            is_closed=self.is_closed,
        )


@asynccontextmanager
async def running(device: Device) -> AsyncGenerator[Device, None]:
    """Let the device live; when left, its tasks have ended."""
    life = asyncio.create_task(device.serve(), name="device")
    try:
        yield device
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life
