"""Recognition: core seconds a second of audio, and how long final texts take while 150 devices speak and ask for partials."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.report import summary, table_of
from models.engines import Recognizer
from models.errors import CatalogError, ConfigError, RecognitionError
from models.factory.sensevoice_twin import build
from models.fbank import Fbank, FbankSettings
from models.onnx import open_session
from models.sensevoice import SIGNED_FILE, TWIN_FILE, SenseVoiceRecognizer
from models.speech import Utterance
from models.store import default_root, locate
from models.whisper import WhisperRecognizer

RATE_HZ = 16_000
SPEECH_S = 1.8
"""Length of an utterance, the one the other Xiaozhi servers were measured with."""
PARTIAL_EVERY_S = 0.6
DEVICES = 150
STAGGER_S = 0.05
TURNS_AN_HOUR = 12
"""What one device asks in the field; see ``steady``."""
BATCHES = (1, 4, 8)


@dataclass(slots=True)
class _Heard:
    """What a load of utterances came to."""

    finals_ms: list[float] = field(default_factory=list)
    finals_refused: int = 0
    partials_asked: int = 0
    partials_heard: int = 0


def measure(report: Callable[[str], None], *, quick: bool = False, model_dir: Path | None = None) -> dict[str, Any]:
    """Measure and return ``results.asr``; ``report`` hears of the progress. Blocks about three minutes, ``quick`` some seconds.

    ``model_dir`` is a SenseVoice directory; without one the twin beside the models is taken, and made when it is not there.
    """
    folder = model_dir or made_twin(report)
    runs = 2 if quick else 9
    results: dict[str, Any] = {
        "weights": "twin" if (folder / TWIN_FILE).exists() else "real",
        "speech_s": SPEECH_S,
    }
    factors = {}
    for batch in BATCHES:
        report(f"asr: batches of {batch} on one core")
        factors[str(batch)] = _core_seconds(folder, batch, runs)
    results |= {"real_time_factor": factors["1"], "real_time_factor_by_batch": factors}
    if (folder / SIGNED_FILE).exists() and (folder / "model_quant.onnx").exists():
        results["real_time_factor_unsigned_weights"] = _core_seconds(folder, 1, runs, "model_quant.onnx")
    results["features_core_s_per_s"] = _feature_seconds(runs)
    results["alone_ms"] = {str(threads): _alone_ms(folder, threads, runs) for threads in (1, 2)}
    results |= asyncio.run(_under_load(folder, report, quick=quick))
    report("asr: whisper base")
    results["whisper_base_real_time_factor"] = _whisper_seconds(1 if quick else 3)
    return results


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables for people."""
    weights = "random weights (twin)" if results["weights"] == "twin" else "real weights"
    costs = [
        [f"SenseVoice int8, batch {batch}", factor] for batch, factor in results["real_time_factor_by_batch"].items()
    ]
    costs += [
        ["SenseVoice int8 as FunASR stores it, batch 1", results.get("real_time_factor_unsigned_weights")],
        ["of it features", results["features_core_s_per_s"]],
        ["Whisper base int8, real weights", results["whisper_base_real_time_factor"]],
    ]
    burst, steady = results["burst"], results["steady"]
    rows = [
        [
            name,
            load["finals_ms"]["n"],
            load["finals_ms"]["p50"],
            load["finals_ms"]["p95"],
            load["finals_refused"],
            f"{load['partials_heard']} of {load['partials_asked']}",
        ]
        for name, load in (
            (f"{DEVICES} devices, one every {STAGGER_S * 1000:.0f} ms", burst),
            (f"{DEVICES} devices at {TURNS_AN_HOUR} turns an hour each", steady),
        )
    ]
    return [
        table_of(
            f"Recognition, {weights}: core seconds a second of audio",
            ("engine", "real-time factor"),
            [[name, None if factor is None else f"{factor:.3f}"] for name, factor in costs],
        ),
        table_of(
            f"Final text after the end of {SPEECH_S:g} s of speech, {weights}, ms",
            ("load", "finals", "p50", "p95", "refused", "partials heard"),
            rows,
        ),
    ]


def twin_dir() -> Path:
    """Return where the twin lies, beside the directory of models."""
    return default_root().parent / "twins" / "sensevoice-small"


def made_twin(report: Callable[[str], None]) -> Path:
    """Return the twin's directory, made first when it is not there: about a minute."""
    if not twin_dir().exists():
        build(twin_dir(), keep_fp32=False, say=report)
    return twin_dir()


@cache
def speech(duration_s: float) -> bytes:
    """Return noise that swells as syllables do, s16le at 16 kHz; the cost of hearing does not depend on what is said."""
    count = round(duration_s * RATE_HZ)
    swell = np.abs(np.sin(np.arange(count) * (2 * np.pi * 2.3 / RATE_HZ)))
    samples = (swell * np.random.default_rng(0).normal(0, 2500, count)).astype("<i2")
    return bytes(samples.tobytes())


def _saying(name: str, duration_s: float, *, is_final: bool = True) -> Utterance:
    end_ms = round(duration_s * 1000)
    return Utterance(turn_id=name, device_id=name, pcm=speech(duration_s), start_ms=0, end_ms=end_ms, is_final=is_final)


def _core_seconds(folder: Path, batch: int, runs: int, file: str = "") -> float:
    """Return process CPU seconds a second of audio: features, model and text, one thread; the median of ``runs``."""
    session = open_session(folder / file) if file else None
    recognizer = SenseVoiceRecognizer(folder, workers=1, batch=batch, session=session)
    utterances = [_saying(str(number), SPEECH_S) for number in range(batch)]

    async def work() -> float:
        await recognizer.warm(SPEECH_S)
        spent = []
        for _ in range(runs):
            began_s = time.process_time()
            await asyncio.gather(*map(recognizer.transcribe, utterances))
            spent.append(time.process_time() - began_s)
        await recognizer.close()
        return statistics.median(spent)

    return round(asyncio.run(work()) / (batch * SPEECH_S), 4)


def _feature_seconds(runs: int) -> float:
    """Return process CPU seconds a second of audio for the features alone."""
    settings = FbankSettings()
    fbank = Fbank(settings, np.zeros(settings.width), np.ones(settings.width))
    pcm = np.frombuffer(speech(SPEECH_S), "<i2")
    spent = []
    for _ in range(runs):
        began_s = time.process_time()
        fbank.features(pcm)
        spent.append(time.process_time() - began_s)
    return round(statistics.median(spent) / SPEECH_S, 4)


def _alone_ms(folder: Path, threads: int, runs: int) -> float:
    """Return the median milliseconds of one utterance with nothing else in line."""
    recognizer = SenseVoiceRecognizer(folder, workers=1, threads=threads, batch=1)

    async def work() -> float:
        await recognizer.warm(SPEECH_S)
        heard = _Heard()
        for _ in range(runs):
            await _final(recognizer, _saying("alone", SPEECH_S), heard, asyncio.get_running_loop().time())
        await recognizer.close()
        return statistics.median(heard.finals_ms)

    return round(asyncio.run(work()), 1)


async def _under_load(folder: Path, report: Callable[[str], None], *, quick: bool) -> dict[str, Any]:
    """Return the loads "burst" and "steady"."""
    workers = os.cpu_count() or 1
    recognizer = SenseVoiceRecognizer(folder, workers=workers, max_waiting=DEVICES)
    await recognizer.warm(SPEECH_S)
    devices = 20 if quick else DEVICES
    report(f"asr: {devices} devices, one every {STAGGER_S * 1000:.0f} ms")
    burst = await load(recognizer, [number * STAGGER_S for number in range(devices)])
    starts = arrivals(DEVICES * TURNS_AN_HOUR / 3600, 4.0 if quick else 90.0)
    report(f"asr: {DEVICES} devices at {TURNS_AN_HOUR} turns an hour each")
    steady = await load(recognizer, starts)
    await recognizer.close()
    return {
        "model_file": recognizer.model_name,
        "batch": recognizer.batch,
        "workers": workers,
        "burst": burst,
        "steady": steady,
    }


def arrivals(per_s: float, length_s: float, seed: int = 7) -> list[float]:
    """Return moments in [0, ``length_s``) at which somebody begins to speak, independent of each other; at least one."""
    chance, at_s, moments = random.Random(seed), 0.0, list[float]()
    while at_s < length_s:
        moments.append(at_s)
        at_s += chance.expovariate(per_s)
    return moments


async def load(
    recognizer: Recognizer, starts_s: list[float], *, partial_every_s: float = PARTIAL_EVERY_S
) -> dict[str, Any]:
    """Return how ``recognizer`` served devices that begin to speak at ``starts_s`` and want partials meanwhile."""
    heard = _Heard()
    async with asyncio.TaskGroup() as group:
        for number, start_s in enumerate(starts_s):
            group.create_task(_device(recognizer, f"d{number}", start_s, partial_every_s, heard))
    return {
        "finals_ms": summary(heard.finals_ms),
        "finals_refused": heard.finals_refused,
        "partials_asked": heard.partials_asked,
        "partials_heard": heard.partials_heard,
    }


async def _device(recognizer: Recognizer, name: str, start_s: float, every_s: float, heard: _Heard) -> None:
    """Speak once: a partial every ``every_s``, dropped when the next or the final is due, then the final."""
    clock = asyncio.get_running_loop()
    began_s = clock.time() + start_s
    spoken_s = every_s
    while spoken_s < SPEECH_S - every_s / 2:
        await asyncio.sleep(began_s + spoken_s - clock.time())
        heard.partials_asked += 1
        with suppress(TimeoutError, RecognitionError):
            async with asyncio.timeout_at(began_s + spoken_s + every_s):
                await recognizer.transcribe(_saying(name, spoken_s, is_final=False))
            heard.partials_heard += 1
        spoken_s += every_s
    await asyncio.sleep(began_s + SPEECH_S - clock.time())
    await _final(recognizer, _saying(name, SPEECH_S), heard, began_s + SPEECH_S)


async def _final(recognizer: Recognizer, utterance: Utterance, heard: _Heard, ended_s: float) -> None:
    """Ask for the final text and note how long after ``ended_s``, on the loop's clock, it came."""
    try:
        await recognizer.transcribe(utterance)
    except RecognitionError:
        heard.finals_refused += 1
    else:
        heard.finals_ms.append((asyncio.get_running_loop().time() - ended_s) * 1000)


def _whisper_seconds(runs: int) -> float | None:
    """Return process CPU seconds a second of audio for the starter engine, None when it is not there."""
    try:
        recognizer = WhisperRecognizer(locate("whisper-base")["model"].parent, threads=1)
    except (CatalogError, ConfigError):
        return None

    async def work() -> float:
        spent = []
        for _ in range(runs + 1):
            began_s = time.process_time()
            await recognizer.transcribe(_saying("w", SPEECH_S))
            spent.append(time.process_time() - began_s)
        return statistics.median(spent[1:])

    try:
        return round(asyncio.run(work()) / SPEECH_S, 4)
    finally:
        recognizer.close()
