"""The main job on one machine: simulated devices hold real spoken conversations with a whole site, and each turn is checked.

Nothing here is scripted but what the devices say: recognition, models, voices, NATS, Redis and S3 are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from coordinator.bus import Bus
from coordinator.nats_bus import NatsBus
from coordinator.turns import RoutingDecision, Tier, TurnRecord, decode_turn
from coordinator.wire import turn_subject
from edge.seam import ListenMode
from edge.simulator.bootstrap import Identity
from edge.simulator.client import connect
from edge.simulator.sound import write_wav
from edge.simulator.turn import TurnResult
from edge.simulator.voice import speaker, spoken
from manifests.local import Site, site

MAX_STOP_MS = 100.0
"""From an interruption to ``tts/stop``; the promise of the platform."""
MAX_MISHEARD = 0.4
"""Share of characters the recogniser may get wrong before the turn no longer is the one we meant. A guess: Whisper base in Mandarin."""
ANSWER_S = 150.0
"""How long an answer may take with all its speech; the longest ones are about 60 s."""
RECORD_S = 15.0
IDLE_S = 10.0
"""How long everything may take to fall idle after an interruption, generous because two cores do all the work."""
WORKING = ("voice_cloud_requests_running", "voice_brain_turns_running")
"""Gauges that must be back at 0 when nobody speaks."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One turn of the demo and what must come of it."""

    name: str
    device: str
    language: str
    says: str
    tier: Tier
    mode: ListenMode = "auto"
    wake_word: str = ""
    interrupt_after_ms: float | None = None


SCENES = (
    Scene("easy, Mandarin", "1", "zh", "法国的首都是哪个城市？", Tier.EDGE, wake_word="你好小智"),
    Scene("easy, English", "2", "en", "What is the capital city of Japan?", Tier.EDGE, mode="manual"),
    Scene("hard, Mandarin", "1", "zh", "请为初学者设计一个学习计划，详细解释每一步的原因和优点。", Tier.CLOUD),
    Scene(
        "hard, English",
        "3",
        "en",
        "Please explain in detail why the sky is blue, and give an example of the same principle.",
        Tier.CLOUD,
    ),
    Scene("repeated by another device", "4", "zh", "法国的首都是哪个城市？", Tier.CACHE),
    Scene(
        "interrupted while the cloud answers",
        "1",
        "zh",
        "请分析地球变暖的原因和影响，详细解释，并举例说明。",
        Tier.CLOUD,
        interrupt_after_ms=1200,
    ),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of a scene."""

    scene: Scene
    result: TurnResult
    record: TurnRecord | None
    wav: Path | None
    failures: tuple[str, ...]


async def demo(console: Console, out: Path, *, stay: bool = False) -> bool:
    """Hold the conversations and return whether every turn went as said; raise VoiceError when the site does not come up."""
    began = time.monotonic()
    console.print("Voices for the devices: what they will say is spoken by voices the edge does not use.")
    speech = await _speech(SCENES)
    console.print(
        "Starting the site: NATS hub and leaf, Redis, SeaweedFS, cloud model, coordinator, cloud worker, edge."
    )
    async with site(report=lambda line: console.print(f"  {line}", style="dim")) as running:
        turns = await _converse(console, running, speech, out)
        left = await _left_running(running)
        failed = [turn for turn in turns if turn.failures]
        console.rule()
        for line in left:
            console.print(f"[red]still running after the last turn: {line}")
        good = not failed and not left and len(turns) == len(SCENES)
        console.print(
            f"{len(turns) - len(failed)} of {len(SCENES)} turns went as said, in {time.monotonic() - began:.0f} s; speech saved in {out}/",
            style="bold green" if good else "bold red",
        )
        if stay:
            await _stay(console, running)
    return good


async def up(console: Console, engines: str) -> None:
    """Start a site, print its addresses and stay until cancelled."""
    async with site(engines=engines, report=lambda line: console.print(f"  {line}", style="dim")) as running:
        await _stay(console, running)


async def _stay(console: Console, running: Site) -> None:
    for name, address in running.addresses.items():
        console.print(f"  {name:<20} {address}", soft_wrap=True, highlight=False)
    console.print(f'Try:  xiaozhi-fleet say --ota {running.ota_url} "你好，你是谁？"', soft_wrap=True, highlight=False)
    hub = f"--nats-url {running.hub_url} --nkey-seed-file {running.operator_seed}"
    console.print(f"And:  xiaozhi-fleet explain {hub}", soft_wrap=True, highlight=False)
    console.print("Ctrl-C ends it.")
    await asyncio.Event().wait()


async def _speech(scenes: Sequence[Scene]) -> dict[str, bytes]:
    """Return what is said, by text: s16le mono at 16 kHz."""
    said: dict[str, bytes] = {}
    for language in dict.fromkeys(scene.language for scene in scenes):
        async with speaker(language) as voice:
            for scene in scenes:
                if scene.language == language and scene.says not in said:
                    said[scene.says] = await spoken(scene.says, voice, language)
    return said


async def _converse(console: Console, running: Site, speech: dict[str, bytes], out: Path) -> list[Turn]:
    turns = []
    async with NatsBus.connect(running.nats_url, name="demo") as bus, _records(bus) as records:
        for number, scene in enumerate(SCENES, start=1):
            console.rule(f"{number}. {scene.name}", align="left")
            turn = await _play(
                running, scene, speech[scene.says], records, out / f"{number}-{scene.tier}-{scene.language}.wav"
            )
            _print(console, turn)
            turns.append(turn)
    return turns


async def _play(running: Site, scene: Scene, pcm: bytes, records: asyncio.Queue[TurnRecord], wav: Path) -> Turn:
    identity = Identity(
        device_id=f"02:00:00:00:00:0{scene.device}", language="zh-CN" if scene.language == "zh" else "en-US"
    )
    async with connect(running.ota_url, identity=identity) as device:
        result = await device.ask(
            pcm,
            mode=scene.mode,
            wake_word=scene.wake_word,
            interrupt_after_ms=scene.interrupt_after_ms,
            timeout_s=ANSWER_S,
        )
    record = await _record_of(records, identity.device_id)
    if result.pcm:
        write_wav(wav, result.pcm, result.rate_hz)
    return Turn(scene, result, record, wav if result.pcm else None, failures(scene, result, record))


def failures(scene: Scene, result: TurnResult, record: TurnRecord | None) -> tuple[str, ...]:
    """Return in words what did not go as said; pure."""
    wanted = "answered" if scene.interrupt_after_ms is None else "interrupted"
    tier = record.decisions[-1].tier if record and record.decisions else None
    stop_ms = result.interruption.stop_ms if result.interruption else None
    checks = (
        (result.outcome == wanted, f"the turn was {result.outcome}, not {wanted}"),
        (bool(result.pcm), "no speech came back"),
        (misheard(scene.says, result.heard) <= MAX_MISHEARD, "it was misheard"),
        (record is not None, "the edge published no record of the turn"),
        (tier == scene.tier, f"it was answered by {tier}, not {scene.tier}"),
        (wanted == "answered" or (stop_ms is not None and stop_ms <= MAX_STOP_MS), f"tts/stop took {stop_ms} ms"),
    )
    return tuple(words for holds, words in checks if not holds)


def misheard(said: str, heard: str) -> float:
    """Return the edit distance over the length of what was said, by letters and Chinese characters; 0 is perfect."""
    one, other = _letters(said), _letters(heard)
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        previous, row[0] = row[0], number
        for column, heard_letter in enumerate(other, start=1):
            cost = previous + (letter != heard_letter)
            previous, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, cost)
    return row[-1] / max(len(one), 1)


def _letters(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())


@asynccontextmanager
async def _records(bus: Bus) -> AsyncGenerator[asyncio.Queue[TurnRecord], None]:
    """Give the records of turns as they end."""
    queue: asyncio.Queue[TurnRecord] = asyncio.Queue(64)
    async with bus.subscribe(turn_subject("*")) as subscription:

        async def listen() -> None:
            async for message in subscription:
                with contextlib.suppress(asyncio.QueueFull):
                    queue.put_nowait(decode_turn(message.payload))

        listening = asyncio.create_task(listen(), name="records")
        try:
            yield queue
        finally:
            listening.cancel()
            await asyncio.wait([listening])


async def _record_of(records: asyncio.Queue[TurnRecord], device_id: str) -> TurnRecord | None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECORD_S):
            while (record := await records.get()).device_id != device_id or record.outcome == "silent":
                continue
            return record
    return None


async def _left_running(running: Site) -> list[str]:
    """Return the gauges of work that do not fall to 0 although nobody speaks."""
    left: list[str] = []
    urls = [url for name, url in running.addresses.items() if name.endswith("metrics")]
    deadline = time.monotonic() + IDLE_S
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            left = [line for url in urls for line in await _at_work(client, url)]
            if not left:
                break
            await asyncio.sleep(0.1)
    return left


async def _at_work(client: httpx.AsyncClient, url: str) -> list[str]:
    try:
        text = (await client.get(url)).text
    except httpx.HTTPError as error:
        return [f"{url} does not answer ({type(error).__name__})"]
    return [line for line in text.splitlines() if line.startswith(WORKING) and float(line.split()[-1])]


def _print(console: Console, turn: Turn) -> None:
    scene, result, record = turn.scene, turn.result, turn.record
    rows = [("said", scene.says), ("heard", result.heard)]
    if record is not None:
        rows += [("route", _route(decision)) for decision in record.decisions]
        rows.append(("answered by", f"{record.decisions[-1].tier if record.decisions else '-'} {record.model}"))
        rows.append(("answer", record.answer))
        rows.append(("times", _times(result, record)))
    if result.interruption is not None:
        stop_ms = result.interruption.stop_ms
        rows.append(("interrupted", "no tts/stop came" if stop_ms is None else f"tts/stop after {stop_ms:.0f} ms"))
    rows += [("noticed", problem) for problem in result.problems]
    rows.append(("saved", str(turn.wav) if turn.wav else "nothing"))
    for name, value in rows:
        console.print(f"  {name:<12}{value}", markup=False, highlight=False, soft_wrap=True)
    for failure in turn.failures:
        console.print(f"  FAILED      {failure}", style="bold red", markup=False, highlight=False)


def _route(decision: RoutingDecision) -> str:
    return f"{decision.tier}: {decision.reason} (score {decision.score:.2f}, threshold {decision.threshold:.2f})"


def _times(result: TurnResult, record: TurnRecord) -> str:
    marks = record.marks
    first_token_ms = None if marks.first_token_ms is None else marks.endpoint_wait_ms + marks.first_token_ms
    shown = (
        ("transcript", result.transcript_ms),
        ("first token", first_token_ms),
        ("first audio", result.first_audio_ms),
    )
    known = ", ".join(f"{name} {at_ms:.0f} ms" for name, at_ms in shown if at_ms is not None)
    return f"{known} after the end of speech (wait for silence of {marks.endpoint_wait_ms:.0f} ms included)"
