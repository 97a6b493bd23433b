"""What a device's stream costs before anybody spoke to it: Opus packets through the decoder and the voice detector, many at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.load_sound import sound_of
from benchmarks.report import table_of
from benchmarks.spoken import SENTENCES, said
from edge.brain.opus import OpusDecoder
from edge.simulator.uplink import FRAME_MS
from models.silero import SileroDetector
from models.speech import AudioFrame
from models.store import locate
from models.variants import quickest_path

DEVICES = 64
"""Two full batches: one is judged while the next comes together."""
_SILENT_PACKETS = 30
"""After each sentence, as between two turns."""
TARGET_X = 400


def measure(report: Callable[[str], None], *, quick: bool = False) -> dict[str, Any]:
    """Return seconds of sound per second of one core, both stages together and each alone; blocks some seconds.

    Times are this process's CPU time, all threads. Raises CatalogError or ConfigError naming what is missing.
    """
    laps, repetitions = (40, 2) if quick else (150, 5)
    report("audio: speaking")
    packets = asyncio.run(_packets())
    report(f"audio: {DEVICES} devices through decoder and voice detection")
    both = [asyncio.run(_through(packets, laps)) for _ in range(repetitions)]
    decoded = [_decoded(packets, laps) for _ in range(repetitions)]
    cost = 1 / statistics.median(both)
    decoding = 1 / statistics.median(decoded)
    return {
        "devices": DEVICES,
        "x_real_time_per_core": round(1 / cost),
        "decoder_x_real_time_per_core": round(1 / decoding),
        "cores_at_150_streams": round(150 * cost, 3),
        "runs": [round(value) for value in both],
    }


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the figures for people."""
    rows = [
        [
            "through decoder and voice detection, x real time a core",
            results["x_real_time_per_core"],
            f"at least {TARGET_X}",
        ],
        ["through the decoder alone", results["decoder_x_real_time_per_core"], "-"],
        ["cores for 150 devices that stream", f"{results['cores_at_150_streams']:.2f}", "-"],
    ]
    return [table_of(f"Sound of {results['devices']} devices at once", ("what", "measured", "target"), rows)]


async def _packets() -> list[bytes]:
    """Return what one device sends: sentences with silence between them."""
    packets: list[bytes] = []
    for clip in await said([(one.language, one.text) for one in SENTENCES[:2]]):
        sound = sound_of(clip.tobytes())
        packets += [*sound.lead, *sound.speech, *[sound.silence] * _SILENT_PACKETS]
    return packets


async def _through(packets: Sequence[bytes], laps: int) -> float:
    """Let all devices send ``laps`` packets each as fast as they are judged; return seconds of sound per CPU second."""
    detector = SileroDetector(quickest_path(locate("silero-vad")["model"]))

    async def device(at: int) -> float:
        decoder, stream, heard_ms = OpusDecoder(), detector.listen(), 0.0
        for index in range(at, at + laps):
            pcm = decoder.decode(packets[index % len(packets)])
            frame = AudioFrame(pcm=pcm, start_ms=round(heard_ms))
            heard_ms += frame.duration_ms
            await stream.detect(frame)
        return heard_ms / 1000

    try:
        await asyncio.gather(*(device(number) for number in range(DEVICES)))  # the first lap warms up
        began_s = time.process_time()
        heard_s = await asyncio.gather(*(device(5 * number) for number in range(DEVICES)))
        return sum(heard_s) / (time.process_time() - began_s)
    finally:
        await detector.close()


def _decoded(packets: Sequence[bytes], laps: int) -> float:
    """Return the same for the decoder alone."""
    began_s = time.process_time()
    for number in range(DEVICES):
        decoder = OpusDecoder()
        for index in range(5 * number, 5 * number + laps):
            decoder.decode(packets[index % len(packets)])
    return DEVICES * laps * FRAME_MS / 1000 / (time.process_time() - began_s)
