"""Voice detection: windows a core judges each second, many devices at once against one, and how soon each of 150 devices knows."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.table import Table

from benchmarks.report import summary, table_of
from benchmarks.spoken import SENTENCES, Samples, frames_of, hesitation, in_room, said, with_pause
from models.engines import VoiceStream
from models.errors import ConfigError
from models.factory.agreement import Floats, compare
from models.onnx import open_session
from models.silero import SileroDetector
from models.speech import AudioFrame
from models.store import locate
from models.variants import MADE, Variant

DEVICES = 150
BATCH = 32
AT_ONCE = 2 * BATCH
"""Devices that send as fast as they are answered: one full batch is heard while the next comes together."""
FRAME_S = 0.06
WINDOW = 512
LOUDNESS = (1.0, 0.3, 0.1, 0.03)
"""Each recording is heard this loud, all in one batch, because a quantizer may let loud neighbours drown quiet devices."""
NOISE = 30.0
TARGET_RATIO, TARGET_FRAME_MS = 2.5, 50.0


def measure(report: Callable[[str], None], *, quick: bool = False, variant: Variant = "fp32") -> dict[str, Any]:
    """Return what the detector does with ``variant`` and how the others compare; blocks half a minute.

    Times are this process's CPU time, so nothing else should run in it. Raises CatalogError or ConfigError naming what is missing.
    """
    rounds, lap, paced_s = (3, 20, 2.0) if quick else (7, 60, 6.0)
    report("voice detection: speaking")
    clips = asyncio.run(said([(one.language, one.text) for one in (SENTENCES[:2] if quick else SENTENCES[:6])]))
    sounds = [_noisy(clip, seed) for seed, clip in enumerate(clips)]
    frames = [frame for sound in sounds for frame in frames_of(sound)]
    with tempfile.TemporaryDirectory() as folder:
        paths = _made(Path(folder), report)
        if variant not in paths:
            raise ConfigError(f"the variant {variant} has to be made: install xiaozhi-fleet[build]")
        report("voice detection: many devices at once against one")
        pairs = asyncio.run(_side_by_side(paths[variant], frames, rounds=rounds, lap=lap))
        report(f"voice detection: {DEVICES} devices in real time for {paced_s:g} s")
        waits_ms, cores = asyncio.run(_paced(paths[variant], frames, paced_s))
        report("voice detection: variants")
        compared = {name: _compared(paths, name, sounds, frames, lap=lap) for name in paths}
    many, single = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "variant": variant,
        "windows_per_core_s": round(many),
        "single_windows_per_core_s": round(single),
        "batched_over_single": round(statistics.median(both / one for both, one in pairs), 2),
        "frame_ms": summary(waits_ms),
        "paced_devices": DEVICES,
        "paced_cpu_cores": round(cores, 3),
        "variants": compared,
    }


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the figures beside their targets, and the variants beside one another."""
    rows = [
        ["windows per core and second, batches of 32", results["windows_per_core_s"], "-"],
        ["windows per core and second, one by one", results["single_windows_per_core_s"], "-"],
        ["ratio", f"{results['batched_over_single']:.2f}", f"at least {TARGET_RATIO}"],
        [f"frame to answer, p50 ms, {results['paced_devices']} devices", f"{results['frame_ms']['p50']}", "-"],
        ["frame to answer, p95 ms", f"{results['frame_ms']['p95']}", f"below {TARGET_FRAME_MS:g}"],
        ["cores used for that", f"{results['paced_cpu_cores']:.2f}", "-"],
    ]
    variants = [
        [
            name,
            f"{one['us_per_window']:.1f}",
            f"{one['size_bytes'] / 1e6:.2f}",
            f"{one['max_difference']:.3f}",
            f"{one['mean_difference']:.5f}",
            f"{one['decisions_alike']:.2%}",
            f"{one['boundary_shift_ms_max']:.0f}",
        ]
        for name, one in results["variants"].items()
    ]
    columns = ["variant", "us a window", "MB", "max diff", "mean diff", "decisions alike", "boundary shift ms max"]
    return [
        table_of(f"Voice detection, {results['variant']}", ["", "measured", "target"], rows),
        table_of("Variants of Silero VAD against fp32", columns, variants),
    ]


def _noisy(clip: Samples, seed: int) -> Samples:
    at = hesitation(clip)
    return in_room(with_pause(clip[:at], clip[at:], 500), before_ms=500, after_ms=700, noise=NOISE, seed=seed)


def _made(folder: Path, report: Callable[[str], None]) -> dict[Variant, Path]:
    """Return the pulled model and, if they can be made here, its variants, made anew in ``folder``."""
    pulled = locate("silero-vad")["model"]
    paths: dict[Variant, Path] = {"fp32": pulled}
    if find_spec("onnx") is None:
        report("onnx is missing (xiaozhi-fleet[build]): the variants are left out")
        return paths
    from models.factory.quantize import make

    copy = Path(shutil.copy(pulled, folder))
    return paths | {name: Path(make("silero-vad", copy, name).path) for name in MADE}


async def _side_by_side(
    path: Path, frames: Sequence[AudioFrame], *, rounds: int, lap: int
) -> list[tuple[float, float]]:
    """Return windows per CPU second in batches and one by one, measured by turns so that a busy machine slows both alike."""
    many, single = SileroDetector(path, batch=BATCH), SileroDetector(path, batch=1)
    try:
        for detector in (many, single):
            await detector.warm()
            await _windows_per_s(detector, frames, AT_ONCE, 2)
        return [
            (await _windows_per_s(many, frames, AT_ONCE, lap), await _windows_per_s(single, frames, 4, lap))
            for _ in range(rounds)
        ]
    finally:
        await many.close()
        await single.close()


async def _windows_per_s(detector: SileroDetector, frames: Sequence[AudioFrame], devices: int, lap: int) -> float:
    """Let ``devices`` send ``lap`` frames each, the next one as soon as one is answered; return windows per CPU second."""

    async def device(stream: VoiceStream, at: int) -> int:
        samples = 0
        for index in range(at, at + lap):
            frame = frames[index % len(frames)]
            await stream.detect(frame)
            samples += len(frame.pcm) // 2
        return samples // WINDOW

    began_s = time.process_time()
    windows = await asyncio.gather(*(device(detector.listen(), 7 * number) for number in range(devices)))
    return sum(windows) / (time.process_time() - began_s)


async def _paced(path: Path, frames: Sequence[AudioFrame], seconds: float) -> tuple[list[float], float]:
    """Return how long each frame of all devices waited for its answer, in ms, and the cores used meanwhile."""
    detector = SileroDetector(path, batch=BATCH)
    loop = asyncio.get_running_loop()
    waits_ms: list[float] = []

    async def device(number: int, start_s: float) -> None:
        stream = detector.listen()
        for turn in range(int(seconds / FRAME_S)):
            # A frame that is due is timed from when it was due: a late answer must not make the next one look prompt.
            due_s = start_s + turn * FRAME_S
            await asyncio.sleep(max(due_s - loop.time(), 0))
            await stream.detect(frames[(7 * number + turn) % len(frames)])
            waits_ms.append((loop.time() - due_s) * 1000)

    try:
        await detector.warm()
        start_s, cpu_s = loop.time() + 0.1, time.process_time()
        await asyncio.gather(*(device(number, start_s + number * FRAME_S / DEVICES) for number in range(DEVICES)))
        return waits_ms, (time.process_time() - cpu_s) / (loop.time() - start_s)
    finally:
        await detector.close()


def _compared(
    paths: Mapping[Variant, Path], name: Variant, sounds: Sequence[Samples], frames: Sequence[AudioFrame], *, lap: int
) -> dict[str, Any]:
    """Return what a variant costs and how far its ear is from the pulled model's."""

    async def speed() -> float:
        detector = SileroDetector(paths[name], batch=BATCH)
        try:
            await detector.warm()
            return max([await _windows_per_s(detector, frames, AT_ONCE, lap) for _ in range(3)])
        finally:
            await detector.close()

    heard: list[Floats] = [
        (sound * np.float32(loud / 32768)).astype(np.float32) for sound in sounds for loud in LOUDNESS
    ]
    alike = compare(open_session(paths["fp32"]), open_session(paths[name]), heard)
    found: dict[str, Any] = msgspec.to_builtins(alike)
    return {"us_per_window": round(1e6 / asyncio.run(speed()), 1), "size_bytes": paths[name].stat().st_size} | found
