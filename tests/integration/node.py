"""A whole edge node in this process: gateway, brain, hierarchy, cache, and a cloud worker when there is one; only the engines are scripted.

``node`` takes devices on a real WebSocket of the loopback address. ``quiet_node`` is the same without sockets, for virtual time: a
device's session and the simulated device hold the two ends of a ``Wire``. Every engine works in a slot, so that a slot that is never
given back is seen. Leaving either checks that nothing of any turn is left.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from cloud.worker import PoolWorker
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.hierarchy import Hierarchy
from coordinator.memory_bus import MemoryBus
from coordinator.remote import RemoteCompleter
from coordinator.routing.policy import Policy, PoolTerms
from coordinator.routing.router import Router
from edge import seam
from edge.brain.brain import Brain
from edge.brain.opus import OpusDecoder, OpusEncoder
from edge.brain.pipeline import Pipeline
from edge.brain.segmenter import Endpointing
from edge.brain.session import SessionOptions
from edge.brain.speaker import Speaker
from edge.gateway import framing
from edge.gateway.observer import DeafObserver
from edge.gateway.refusal import Patience
from edge.gateway.server import Gateway
from edge.gateway.session import DeviceSession
from edge.gateway.session import SessionOptions as DeviceOptions
from edge.simulator.bootstrap import Identity
from edge.simulator.client import connect
from edge.simulator.device import Device, Framing, running
from edge.simulator.firmware import Firmware
from models.engines import Completer, Recognizer, Synthesizer
from models.prompts import CompletionDelta, Prompt
from models.scripted import Calls, ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer, tone
from models.slots import Slots
from models.speech import SpeechChunk, Transcript, Utterance

NODE, POOL = "n1", "qwen-14b"
SPEECH = tone(600, 16_000)
ANSWER = "好的。今天天气很好很好。我们一起去公园吧。"
"""Three sentences of 2, 8 and 8 speakable characters."""
SETTLE_S = 5.0
"""How long a node may take to fall idle before the test fails; generous, because it fails then."""
OPTIONS = SessionOptions(endpointing=Endpointing(end_silence_ms=240, hint_silence_ms=120))
"""Short silences, so that a turn takes two seconds."""
EDGE_ONLY, CLOUD_FIRST = 2.0, 0.0
"""Thresholds that send every prompt to the edge, or to the cloud."""


class Slotted:
    """Engines behind one slot each, as the real ones are; ``slots`` shows whether all were given back."""

    def __init__(self, recognizer: Recognizer, completer: Completer, synthesizer: Synthesizer, count: int) -> None:
        self._recognizer, self._completer, self._synthesizer = recognizer, completer, synthesizer
        self._asr, self._llm, self._tts = self.slots = [Slots(name, count) for name in ("asr", "llm", "tts")]

    async def transcribe(self, utterance: Utterance) -> Transcript:
        async with self._asr.hold():
            return await self._recognizer.transcribe(utterance)

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        async with self._llm.hold(), aclosing(self._completer.complete(prompt)) as deltas:
            async for delta in deltas:
                yield delta

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        async with self._tts.hold(), aclosing(self._synthesizer.speak(text, language)) as chunks:
            async for chunk in chunks:
                yield chunk


class Seen(DeafObserver):
    """What the gateway reported."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.refusals: list[str] = []
        self.violations: list[str] = []

    def ended(self, reason: str) -> None:
        self.ends.append(reason)

    def refused(self, code: str) -> None:
        self.refusals.append(code)

    def violation(self, code: str) -> None:
        self.violations.append(code)


class LaggingBus(MemoryBus):
    """A bus between machines: each message takes up to ``lag_s``, those of one subject in order."""

    def __init__(self, lag_s: float, dice: random.Random) -> None:
        super().__init__()
        self._lag_s = lag_s
        self._dice = dice
        self._last_s: dict[str, float] = {}

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        loop = asyncio.get_running_loop()
        due_s = max(loop.time() + self._dice.uniform(0, self._lag_s), self._last_s.get(subject, 0.0) + 1e-6)
        self._last_s[subject] = due_s
        loop.call_at(due_s, self._arrive, subject, payload, reply)

    def _arrive(self, subject: str, payload: bytes, reply: str) -> None:
        arriving = super().publish(subject, payload, reply=reply)
        with suppress(StopIteration):
            arriving.send(None)  # it waits for nothing


@dataclass(slots=True)
class Plan:
    """How the engines of a node behave; ``cloud`` None leaves the pool without a worker."""

    recognizer: Any = field(default_factory=lambda: ScriptedRecognizer(delay_s=0.05))
    edge: Any = field(default_factory=lambda: ScriptedCompleter(unknown=ANSWER, first_token_s=0.05))
    cloud: Any = None
    synthesizer: Any = field(default_factory=lambda: ScriptedSynthesizer(delay_s=0.05, ms_per_character=40))
    threshold: float = EDGE_ONLY
    slots: int = 100
    options: SessionOptions = OPTIONS
    device_options: DeviceOptions = field(default_factory=DeviceOptions)
    max_devices: int = 150
    patience: Patience = field(default_factory=lambda: Patience(read_s=0.2))
    max_waiting: int = 10**6
    """Calls in line for an engine from which on the brain takes no new session."""
    bus: MemoryBus = field(default_factory=MemoryBus)
    now: Callable[[], float] = time.monotonic


class Node:
    """What every node has, real sockets or not."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.bus = plan.bus
        self.seen = Seen()
        self.engines = Slotted(plan.recognizer, plan.edge, plan.synthesizer, plan.slots)
        tier = MemoryTier(now=plan.now)
        self.hierarchy = Hierarchy(
            self.engines,
            {POOL: RemoteCompleter(self.bus, POOL, NODE, now=plan.now)},
            AnswerCache(Ladder(tier, clock=plan.now)),
            Router(Policy(threshold=plan.threshold, pools=(PoolTerms(name=POOL),)), None, now=plan.now),
            observe=lambda decision: self.brain.observe_decision(decision),  # noqa: PLW0108 - the brain is made of this
            now=plan.now,
        )
        self.brain = Brain(
            self.bus,
            node_id=NODE,
            edge_id=NODE,
            brain_id="b1",
            detector=ScriptedDetector(),
            pipeline=Pipeline(self.engines, self.hierarchy, Speaker(self.engines)),
            options=plan.options,
            max_sessions=plan.max_devices,
            is_overloaded=lambda: any(slot.waiting >= plan.max_waiting for slot in self.engines.slots),
            now=plan.now,
        )
        self.worker = None if plan.cloud is None else PoolWorker(self.bus, POOL, plan.cloud, worker_id="w1")

    @property
    def calls(self) -> list[Calls]:
        """Counts of every scripted engine."""
        parts = (self.plan.recognizer, self.plan.edge, self.plan.cloud, self.plan.synthesizer)
        return [part.calls for part in parts if hasattr(part, "calls")]

    @property
    def work(self) -> dict[str, int]:
        """What a turn needs and must give back, by name; empty when nothing is under way."""
        held = {
            "turns": self.brain.turns,
            "engine calls": sum(calls.running for calls in self.calls),
            "slots held": sum(slot.busy + slot.waiting for slot in self.engines.slots),
            "requests in the cloud": self.worker.running if self.worker else 0,
        }
        return {name: count for name, count in held.items() if count}

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None, None]:
        """Run the brain and the worker while the body runs; afterwards nothing of any turn is left."""
        async with asyncio.TaskGroup() as tasks:
            jobs = [tasks.create_task(self.brain.run(), name="brain")]
            await self.brain.ready.wait()
            if self.worker:
                jobs.append(tasks.create_task(self.worker.run(), name="worker"))
                await self.worker.ready.wait()
            try:
                yield
                await self.until(lambda: not self.work and not self.brain.sessions)
            finally:
                for job in jobs:
                    job.cancel()
        assert not self.work

    async def until(self, reached: Callable[[], object], within_s: float = SETTLE_S) -> None:
        """Wait until ``reached`` holds; fail after ``within_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not reached():  # noqa: ASYNC110 - what is waited for is what nobody tells
                    await asyncio.sleep(0.005)
        assert reached(), f"still {self.work}, {self.brain.sessions} sessions"

    def records(self, outcome: str = "") -> list[Any]:
        """Records of finished turns, of one outcome if named."""
        return [record for record in self.brain.records if outcome in {"", record.outcome}]


# On real sockets


class RealNode(Node):
    """A node that devices can dial."""

    gateway: Gateway
    lag_ms = 0.0
    """The longest the event loop was held up: nothing can be said of gaps in speech when that is long."""

    @property
    def address(self) -> tuple[str, int]:
        return self.gateway.address

    @property
    def url(self) -> str:
        return "ws://{}:{}/xiaozhi/v1/".format(*self.gateway.address)

    def device(self, number: int = 1, version: int = 1) -> Any:
        """Connect a device; ``number`` makes it another one."""
        return connect(url=self.url, version=version, identity=Identity(device_id=mac(number)))

    def is_well(self, turn: Any) -> bool:
        """Whether the device suffered nothing, as far as a machine that kept up can tell."""
        assert turn.outcome == "answered", (turn.outcome, turn.alerts, turn.problems)
        return self.lag_ms > 100 or (turn.problems, turn.gaps_ms) == ((), ())

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in itertools.count():
            began = loop.time()
            await asyncio.sleep(0.02)
            self.lag_ms = max(self.lag_ms, (loop.time() - began - 0.02) * 1000)


def mac(number: int) -> str:
    return f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"


@asynccontextmanager
async def node(plan: Plan | None = None) -> AsyncGenerator[RealNode, None]:
    """Run a node on a free port; afterwards it is empty."""
    asyncio.get_running_loop().set_debug(False)  # its bookkeeping would be heard as gaps
    plan = plan or Plan()
    here = RealNode(plan)
    here.gateway = Gateway(
        here.bus,
        node_id=NODE,
        authenticator=Everybody(),
        host="127.0.0.1",
        port=0,
        max_devices=plan.max_devices,
        options=plan.device_options,
        patience=plan.patience,
        observer=here.seen,
    )
    async with here.serving(), here.gateway:
        watching = asyncio.create_task(here.watch(), name="lag")
        try:
            yield here
            await here.until(lambda: not here.gateway.active_devices and not here.brain.sessions and not here.work)
        finally:
            watching.cancel()
            await asyncio.wait([watching])


class Everybody:
    """Lets every device in."""

    def check(self, device_id: str, client_id: str, token: str) -> None:
        pass


# Without sockets, on virtual time


class Wire:
    """A WebSocket without a network: both ends at once; ``is_read`` cleared, the device reads nothing more."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.down: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.is_read = asyncio.Event()
        self.is_read.set()
        self.is_open = True
        self.sent: list[str | bytes] = []
        """Everything that went down, in order."""

    # The gateway's end.

    async def recv(self) -> str | bytes | None:
        return await self.up.get()

    async def close(self, code: int, reason: str) -> None:
        self.abort()

    def abort(self) -> None:
        self.is_open = False
        self.down.put_nowait(None)

    # Both ends: a message says which by who calls.

    async def send(self, message: str | bytes) -> None:
        await self.is_read.wait()
        if self.is_open:
            self.sent.append(message)
            self.down.put_nowait(message)


class Far:
    """The device's end of a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send(self, message: str | bytes) -> None:
        if self._wire.is_open:
            self._wire.up.put_nowait(message)

    async def receive(self) -> str | bytes | None:
        return await self._wire.down.get()


class QuietNode(Node):
    """A node without sockets."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.sessions: dict[str, DeviceSession] = {}

    @asynccontextmanager
    async def device(self, number: int = 1, version: int = 1) -> AsyncGenerator[tuple[Device, Wire], None]:
        """Connect a device and give it with its wire; leaving hangs up, and its session ends."""
        wire = Wire()
        session = DeviceSession(
            wire,
            self.bus,
            node_id=NODE,
            session_id=f"{number:032x}",
            device_id=mac(number),
            version=version,
            options=self.plan.device_options,
            observer=self.seen,
            now=self.plan.now,
        )
        self.sessions[session.session_id] = session
        serving = asyncio.create_task(session.run(), name="gateway-session")
        pack = Framing(
            pack=lambda packet: framing.pack(packet, version), unpack=lambda message: framing.unpack(message, version)
        )
        device = Device(
            Far(wire),
            Firmware(OpusDecoder, version=version),
            OpusEncoder(16_000, 60, complexity=0),
            pack,
            now=self.plan.now,
        )
        try:
            async with running(device):
                await device.greet()
                yield device, wire
        finally:
            wire.up.put_nowait(None)
            self.seen.ended((await serving).reason)
            del self.sessions[session.session_id]

    async def route(self) -> None:
        """Hand the brain's messages to the sessions, as the gateway does."""
        async with self.bus.subscribe(seam.down_subject(NODE), max_pending=100_000) as messages:
            async for packed in messages:
                message = seam.decode_down(packed.payload)
                if session := self.sessions.get(message.session_id):
                    session.receive(message)


@asynccontextmanager
async def quiet_node(plan: Plan | None = None) -> AsyncGenerator[QuietNode, None]:
    """Run a node on the loop's own clock, without sockets."""
    plan = plan or Plan()
    loop = asyncio.get_running_loop()
    loop.set_debug(False)  # its bookkeeping costs more than everything else together
    plan.now = loop.time
    here = QuietNode(plan)
    async with here.serving(), asyncio.TaskGroup() as tasks:
        routing = tasks.create_task(here.route(), name="route")
        try:
            yield here
            await here.until(lambda: not here.brain.sessions and not here.work)
        finally:
            routing.cancel()


# Engines that are told apart


BASE_HZ, STEP_HZ = 300, 40
"""Voices of device n lie n steps above the base: Opus keeps them apart."""


def voice(number: int, length_ms: int = 600, rate_hz: int = 16_000) -> bytes:
    """Return a tone that only device ``number`` has, s16le mono."""
    seconds = np.arange(length_ms * rate_hz // 1000) / rate_hz
    return (8000 * np.sin(2 * np.pi * (BASE_HZ + STEP_HZ * number) * seconds)).astype("<i2").tobytes()


def number_of(pcm: bytes, rate_hz: int) -> int:
    """Return whose voice the loudest part of ``pcm`` is."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return round((float(np.argmax(spectrum)) * rate_hz / len(samples) - BASE_HZ) / STEP_HZ)


class SingingSynthesizer:
    """Speaks with the voice whose number the sentence names."""

    def __init__(self) -> None:
        self.calls = Calls()

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        with self.calls.one():
            number = int("".join(letter for letter in text if letter.isdigit()) or 0)
            await asyncio.sleep(0.02)
            yield SpeechChunk(pcm=voice(number, 480, 24_000), sample_rate_hz=24_000)


def hears_voices() -> ScriptedRecognizer:
    """Return a recognizer that hears the number of the voice."""
    return ScriptedRecognizer(lambda utterance: f"{number_of(utterance.pcm, 16_000)}号的问题", delay_s=0.05)


def answers_numbers(**options: Any) -> ScriptedCompleter:
    """Return a completer whose answer names the number in the question."""
    return ScriptedCompleter(lambda prompt: f"给{prompt.question.partition('号')[0]}号的回答。", **options)


def squeezed(sent: Sequence[str | bytes]) -> list[str]:
    """Return the messages by type and state, a run of packets as one "audio"."""
    told: deque[str] = deque()
    for message in sent:
        name = "audio"
        if isinstance(message, str):
            fields = msgspec.json.decode(message)
            name = "/".join(fields[key] for key in ("type", "state") if key in fields)
        if name != "audio" or not told or told[-1] != "audio":
            told.append(name)
    return list(told)
