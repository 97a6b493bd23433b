"""One device's connection: its protocol, its socket and the brain at the other end of the bus.

Three tasks of one TaskGroup: the reader turns what the device says into messages for the brain, the writer sends what is due, the watch
ends sessions nobody uses; a fourth lives for a moment when a turn is held. What the brain says comes through ``receive``, which never
waits. Whoever ends the session sets its end once; when ``run`` returns nothing of it runs any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from coordinator.bus import Bus
from edge import seam
from edge.gateway import device_protocol as device
from edge.gateway.admission import Allowance
from edge.gateway.device_socket import DeviceSocket
from edge.gateway.lifetime import BRAIN_AWAY, PROTOCOL_ERROR, RESTARTING, Limits, SessionEnd, Vitals, overdue
from edge.gateway.notices import notice
from edge.gateway.observer import DeafObserver, GatewayObserver
from edge.gateway.pacing import Outgoing, Pace, Speech
from edge.gateway.tools import DeviceTools
from edge.gateway.vision_tokens import VisionOffer
from edge.gateway.writer import Writer
from models.errors import CloudUnreachableError, DeviceProtocolError, DeviceTooSlowError, VoiceError

_log = structlog.get_logger()

_FAREWELL_S = 1.0
"""How long telling the brain that a session is over may take."""
_TICK_S = 1.0
_MAX_REASON_CHARS = 100
"""A Close frame has room for 123 bytes of reason, RFC 6455 §5.5."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What may differ between deployments."""

    limits: Limits = field(default_factory=Limits)
    send_s: float = 5.0
    """How long one message may take to be read."""
    pace: Pace = field(default_factory=Pace)
    offer: Callable[[str, str, str], VisionOffer | None] = lambda _device_id, _client_id, _session_id: None
    """Where a device may show what its camera sees, by device, client and session; None for nowhere."""


class DeviceSession:
    """One device from its connection to its end; ``run`` it once."""

    def __init__(
        self,
        socket: DeviceSocket,
        bus: Bus,
        *,
        node_id: str,
        session_id: str,
        device_id: str,
        client_id: str = "",
        version: int | None = None,
        options: SessionOptions | None = None,
        observer: GatewayObserver | None = None,
        is_brain_away: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device_id = device_id
        self.session_id = session_id
        self._socket = socket
        self._bus = bus
        self._subject = seam.up_subject(node_id)
        self._client_id = client_id
        self._options = options or SessionOptions()
        self._observer: GatewayObserver = observer or DeafObserver()
        self._is_brain_away = is_brain_away
        self._now = now
        self._protocol = device.DeviceProtocol(session_id, version=version)
        self._outgoing = Outgoing(now=now)
        self._tools = self._new_tools()
        self._end: SessionEnd | None = None
        self._over = asyncio.Event()
        self._is_draining = False
        self._fence = 0
        self._seq = 0
        self._frame_ms = 60
        self._allowance = Allowance.of_frames(self._frame_ms)
        self._language = ""
        self._refusal, self._refused_s = "", 0.0
        self._quiet_ms = 0
        """Sound heard since the last turn."""
        self._heard_s = self._began_s = now()
        self._writer = Writer(
            socket,
            self._outgoing,
            self._protocol,
            self._observer,
            send_s=self._options.send_s,
            report=lambda speech: self._report(speech, self._fence),
            rest=self._rest,
            now=now,
        )

    def _new_tools(self) -> DeviceTools:
        return DeviceTools(
            self.device_id,
            lambda ask: self._say(self._protocol.mcp(ask)),
            self._observer,
            offer=lambda: self._options.offer(self.device_id, self._client_id, self.session_id),
            now=self._now,
        )

    @property
    def has_greeted(self) -> bool:
        """Whether the device said hello."""
        return self._protocol.has_greeted

    async def run(self) -> SessionEnd:
        """Serve until the device is gone or the session is ended, and return why; cancelling drops the socket."""
        end = SessionEnd("broken", 0)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                work = {"reader": self._read(), "writer": self._write(), "watch": self._watch()}
                jobs = [tasks.create_task(job, name=f"device-{name}-{self.session_id}") for name, job in work.items()]
                await self._over.wait()
                for job in jobs:
                    job.cancel()
            end = self._end or SessionEnd("device-gone")
        finally:
            await self._farewell()
            if not end.code:
                self._socket.abort()
        if end.code:
            await self._socket.close(end.code, end.reason)
        return end

    def end(self, end: SessionEnd) -> None:
        """End the session once what is urgent was sent; the first end counts."""
        if self._end is None:
            self._end = end
            self._outgoing.end()

    def drain(self) -> None:
        """End the session as soon as no turn is being spoken."""
        self._is_draining = True
        if self._outgoing.speech is None:
            self.end(SessionEnd("draining", RESTARTING))

    def receive(self, message: seam.DownMessage) -> None:
        """Take a message from the brain; never waits nor raises."""
        if message.fence < self._fence or not self.has_greeted:
            self._observer.dropped("stale")
            return
        match message:
            case seam.Heard():
                self._begin_turn(message)
            case seam.TurnEnded():
                self._end_turn(message)
            case seam.SpeechHeld() | seam.SpeechResumed():
                self._hold(message)
            case seam.SessionRefused():
                self._refuse(message.code)
            case _:
                self._queue(message)

    # What the device says.

    async def _read(self) -> None:
        while (message := await self._socket.recv()) is not None:
            self._heard_s = self._now()
            for event in self._protocol.receive(message):
                await self._take(event)
            if delay_s := self._allowance.delay_s(self._now()):
                await asyncio.sleep(delay_s)
        self._over.set()

    async def _take(self, event: device.DeviceEvent) -> None:
        match event:
            case device.AudioPacket():
                await self._hear(event)
            case device.Hello():
                await self._open(event)
            case device.Abort():
                await self._abort(event)
            case device.Violation():
                self._observer.violation(event.code)
                if event.fatal:
                    self.end(SessionEnd(DeviceProtocolError.code, PROTOCOL_ERROR))
            case device.Goodbye():
                self.end(SessionEnd("goodbye"))
            case device.Ignored():
                self._observer.dropped(event.kind)
            case _:
                await self._tell(event)

    async def _open(self, hello: device.Hello) -> None:
        self._say(self._protocol.hello())
        if hello.has_mcp:
            self._tools.begin()
        self._frame_ms = hello.frame_ms
        self._allowance = Allowance.of_frames(hello.frame_ms)
        self._language = hello.language
        opened = seam.SessionOpened(
            session_id=self.session_id,
            fence=self._fence,
            device_id=self.device_id,
            client_id=self._client_id,
            language=hello.language,
            frame_ms=hello.frame_ms,
        )
        await self._publish(opened)

    async def _hear(self, packet: device.AudioPacket) -> None:
        seq, self._seq = self._seq, self._seq + 1
        self._quiet_ms = 0 if self._outgoing.speech else self._quiet_ms + self._frame_ms
        await self._publish(seam.AudioUp(session_id=self.session_id, fence=self._fence, seq=seq, packet=packet.payload))

    async def _tell(self, event: device.ListenStart | device.ListenStop | device.WakeWord | device.Mcp) -> None:
        session_id, fence = self.session_id, self._fence
        match event:
            case device.ListenStart():
                await self._publish(seam.ListenStarted(session_id=session_id, fence=fence, mode=event.mode))
            case device.ListenStop():
                await self._publish(seam.ListenStopped(session_id=session_id, fence=fence))
            case device.WakeWord():
                await self._publish(seam.WakeWordHeard(session_id=session_id, fence=fence, text=event.text))
            case device.Mcp():
                self._tools.receive(event.payload)

    async def _abort(self, event: device.Abort) -> None:
        """Silence the turn before anybody is told; a device that interrupts always gets its ``tts/stop`` (protocol §8.5)."""
        speech, fence = self._outgoing.speech, self._fence
        self._outgoing.speech = None
        self._fence += 1
        self._quiet_ms = 0
        if self._protocol.has_listened:
            self._say(self._protocol.tts_stop())
        if speech is not None:
            await self._report(speech, fence)
        await self._publish(seam.Aborted(session_id=self.session_id, fence=self._fence, reason=event.reason))

    # What the brain says.

    def _begin_turn(self, heard: seam.Heard) -> None:
        """Show the transcript and open the loudspeaker; what was still spoken of another turn ends."""
        if not self._protocol.has_listened:
            self._observer.dropped("not-listening")
            return
        self._silence()
        protocol = self._protocol
        opening = (protocol.stt(heard.text), protocol.tts_start())
        self._quiet_ms = 0
        self._outgoing.speech = Speech(heard.turn_id, opening, protocol.tts_stop(), self._options.pace)
        self._outgoing.changed()

    def _end_turn(self, ended: seam.TurnEnded) -> None:
        speech = self._outgoing.speech
        is_current = speech is not None and speech.turn_id == ended.turn_id
        if speech is not None and is_current and ended.outcome == "answered":
            speech.end()
            self._outgoing.changed()
        elif is_current:
            self._silence()
            self._rest()
        if ended.outcome == "failed":
            self._alert(ended.code)

    def _hold(self, message: seam.SpeechHeld | seam.SpeechResumed) -> None:
        """Stop sending the turn where it is, or go on; while held it still counts as being spoken."""
        speech = self._outgoing.speech
        if speech is None or speech.turn_id != message.turn_id:
            self._observer.dropped("no-turn")
        elif isinstance(message, seam.SpeechResumed):
            speech.resume(self._now())
        elif not self._over.is_set():
            speech.hold()
            # What was handed over is played to its end while nothing follows; should the turn end here, that is what was heard.
            self._tasks.create_task(self._report(speech, self._fence), name=f"device-report-{self.session_id}")
        self._outgoing.changed()

    def _queue(self, message: seam.Felt | seam.SentenceStarted | seam.SpeechDown) -> None:
        speech = self._outgoing.speech
        if speech is None or speech.turn_id != message.turn_id:
            self._observer.dropped("no-turn")
            return
        try:
            for item in self._items(message):
                speech.put(item)
        except DeviceTooSlowError as error:
            self._fail(error)
        self._outgoing.changed()

    def _items(self, message: seam.Felt | seam.SentenceStarted | seam.SpeechDown) -> list[str | bytes]:
        if isinstance(message, seam.Felt):
            return [self._protocol.emotion(message.emotion)]
        if isinstance(message, seam.SentenceStarted):
            return [self._protocol.sentence_start(message.text)]
        return [packet for packet in message.packets if 0 < len(packet) <= device.MAX_PACKET_BYTES]

    def _silence(self) -> None:
        """Forget what waits of the turn, and close the loudspeaker if it was opened."""
        speech, self._outgoing.speech = self._outgoing.speech, None
        if speech is not None and speech.has_opened and not speech.has_closed:
            self._say(self._protocol.tts_stop())

    # What the device hears.

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except DeviceTooSlowError as error:
            self._fail(error)
        self._over.set()

    def _rest(self) -> None:
        self._quiet_ms = 0
        if self._is_draining:
            self.drain()

    async def _report(self, speech: Speech, fence: int) -> None:
        played_ms = speech.played_ms
        if played_ms > speech.reported_ms:
            speech.reported_ms = played_ms
            played = seam.Played(session_id=self.session_id, fence=fence, turn_id=speech.turn_id, played_ms=played_ms)
            await self._publish(played)

    def _say(self, message: str) -> None:
        try:
            self._outgoing.say(message)
        except DeviceTooSlowError as error:
            self._fail(error)

    def _refuse(self, code: str) -> None:
        """Tell the device that nobody serves it, and leave it a moment to be read: a device clears its screen when the socket closes."""
        if self._protocol.has_listened:
            self._alert(code)
        self._refusal, self._refused_s = code[:_MAX_REASON_CHARS], self._now()

    def _alert(self, code: str) -> None:
        self._say(self._protocol.alert(*notice(code, self._language)))

    # The end.

    async def _watch(self) -> None:
        while self._socket.is_open:
            if end := overdue(self._vitals(), self._options.limits):
                if end.reason != BRAIN_AWAY or self._refusal:
                    self.end(end)
                    return
                self._refuse(BRAIN_AWAY)
            self._tools.tick()
            await asyncio.sleep(_TICK_S)
        self._over.set()

    def _vitals(self) -> Vitals:
        now_s = self._now()
        return Vitals(
            has_greeted=self.has_greeted,
            has_listened=self._protocol.has_listened,
            is_speaking=self._outgoing.speech is not None,
            is_brain_away=self._is_brain_away(),
            age_s=now_s - self._began_s,
            unheard_s=now_s - self._heard_s,
            unsent_s=now_s - self._writer.sent_s,
            quiet_ms=self._quiet_ms,
            refusal=self._refusal,
            refused_s=now_s - self._refused_s,
        )

    def _fail(self, error: VoiceError) -> None:
        """Drop the socket: this device cannot be told anything any more."""
        _log.warning("device-failed", session_id=self.session_id, code=error.code, error=str(error))
        self._end = SessionEnd(error.code, 0)
        self._over.set()

    async def _farewell(self) -> None:
        if not self.has_greeted:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._publish(seam.SessionClosed(session_id=self.session_id, fence=self._fence))

    async def _publish(self, message: seam.UpMessage) -> None:
        try:
            await self._bus.publish(self._subject, seam.encode(message))
        except CloudUnreachableError:
            self._observer.dropped("unsendable")
