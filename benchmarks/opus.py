"""What encoding speech costs and keeps at every level: processor time and bytes a packet, and how far the sound is from the voice's.

``python -m benchmarks opus``. The distances compare spectra and samples; nobody listened. Packets are decoded as a device would.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.report import report_of, show, table_of, write_json
from edge.brain.opus import Application, OpusDecoder, OpusEncoder, SpeechEncoder
from edge.brain.quality import LEVELS, Quality
from edge.seam import DOWNLINK_FRAME_MS, DOWNLINK_RATE_HZ
from edge.simulator.voice import speaker
from models.scripted import tone
from models.speech import SpeechChunk

Samples = npt.NDArray[np.float64]

TEXTS = {
    "zh": ("今天天气非常好，我们一起去公园散步吧。", "法国的首都是巴黎。", "多喝水，多休息，你很快就会好起来的。"),
    "en": (
        "The weather is fine today, so let us go out and see the very old town.",
        "Water boils at a hundred degrees.",
    ),
}
APPLICATIONS: tuple[Application, ...] = ("voip", "audio", "restricted_lowdelay")
CHOSEN: Application = "restricted_lowdelay"
BITRATES = (32_000, 24_000, 16_000, 12_000)
COMPLEXITIES = tuple(range(11))
PACKETS_A_SECOND = 1_400
"""150 devices in back-to-back turns of 7 s with 4 s of answer: 150 / 7 * 4 / 0.06, rounded down."""
ROUNDS = 3
"""Every cost is the least of so many: whatever else the machine did only adds."""

_WINDOW = DOWNLINK_RATE_HZ // 50
"""20 ms: speech hardly changes within it."""
_AUDIBLE = 1e-4
"""Windows with less energy than this share of the loudest one's are pauses and not compared."""
_FLOOR = 1e4
"""Power of a spectral line below which differences are nobody's concern: about one step of 16 bits."""


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    scripted: Annotated[bool, typer.Option(help="Encode a tone: a dry run without models.")] = False,
) -> None:
    """Encode the starter voices at every level and compare."""
    console = Console()
    started_at = datetime.now(UTC)
    pcm = tone(3000, DOWNLINK_RATE_HZ) if scripted else asyncio.run(voices_pcm())
    results = results_of(pcm)
    report = report_of(
        "opus",
        shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        engines="scripted" if scripted else "real",
        results=results,
        started_at=started_at,
    )
    show(console, report, tables_of(results))
    if json is not None:
        write_json(report, json)


async def voices_pcm() -> bytes:
    """Return the texts spoken by the starter voices, s16le mono at DOWNLINK_RATE_HZ."""
    resampled = SpeechEncoder(recorder := _Recorder())
    for language, texts in TEXTS.items():
        async with speaker(language) as voice:
            for text in texts:
                async with aclosing(voice.speak(text, language)) as chunks:
                    async for chunk in chunks:
                        for _ in resampled.encode(chunk):
                            pass
                for _ in resampled.flush():
                    pass
    return bytes(recorder.pcm)


class _Recorder(OpusEncoder):
    """An encoder that also keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(application=CHOSEN, complexity=0)
        self.pcm = bytearray()

    def encode(self, pcm: bytes) -> bytes:
        self.pcm += pcm
        return super().encode(pcm)


def results_of(pcm: bytes) -> dict[str, Any]:
    """Return the levels in use and the whole field they were chosen from."""
    return {
        "speech_s": round(len(pcm) / 2 / DOWNLINK_RATE_HZ, 1),
        "packets_a_second": PACKETS_A_SECOND,
        "levels": [measured(pcm, CHOSEN, level) for level in LEVELS],
        "field": [
            measured(pcm, application, Quality(bitrate=bitrate, complexity=complexity))
            for application in APPLICATIONS
            for bitrate in BITRATES
            for complexity in COMPLEXITIES
        ],
    }


def measured(pcm: bytes, application: Application, quality: Quality) -> dict[str, Any]:
    """Return cost, size and distances of one way to encode s16le mono at DOWNLINK_RATE_HZ."""
    packets, lookahead, cost_s = [], 0, float("inf")
    for _ in range(ROUNDS):
        encoder = OpusEncoder(bitrate=quality.bitrate, complexity=quality.complexity, application=application)
        lookahead, speech = encoder.lookahead, SpeechEncoder(encoder)
        began_s = time.thread_time()
        packets = [*speech.encode(SpeechChunk(pcm=pcm, sample_rate_hz=DOWNLINK_RATE_HZ)), *speech.flush()]
        cost_s = min(cost_s, time.thread_time() - began_s)
    decoder = OpusDecoder(DOWNLINK_RATE_HZ)
    heard = samples_of(b"".join(map(decoder.decode, packets)))[lookahead:]
    meant = samples_of(pcm)[: len(heard)]
    return {
        "application": application,
        "level": quality.name,
        "cpu_ms_per_packet": round(cost_s / len(packets) * 1000, 4),
        "cores_at_150_devices": round(cost_s / len(packets) * PACKETS_A_SECOND, 3),
        "bytes_per_packet": round(sum(map(len, packets)) / len(packets), 1),
        "spectral_distance_db": round(spectral_distance_db(meant, heard), 2),
        "segmental_snr_db": round(segmental_snr_db(meant, heard), 1),
    }


def samples_of(pcm: bytes) -> Samples:
    """Return s16le ``pcm`` as numbers."""
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def spectral_distance_db(meant: Samples, heard: Samples) -> float:
    """Return the mean over audible windows of the root mean square difference of log power spectra; 0 for equal sounds."""
    powers = [np.abs(np.fft.rfft(windows * np.hanning(_WINDOW))) ** 2 + _FLOOR for windows in _audible(meant, heard)]
    return float(np.mean(np.sqrt(np.mean((10 * np.log10(powers[0] / powers[1])) ** 2, axis=1))))


def segmental_snr_db(meant: Samples, heard: Samples) -> float:
    """Return the mean over audible windows of signal to difference, each in -10..35 dB as is usual."""
    signal, sound = _audible(meant, heard)
    ratio = np.sum(signal**2, axis=1) / (np.sum((signal - sound) ** 2, axis=1) + 1e-9)
    return float(np.mean(np.clip(10 * np.log10(ratio), -10, 35)))


def _audible(meant: Samples, heard: Samples) -> tuple[Samples, Samples]:
    length = min(len(meant), len(heard)) // _WINDOW * _WINDOW
    windows = meant[:length].reshape(-1, _WINDOW), heard[:length].reshape(-1, _WINDOW)
    energy = np.sum(windows[0] ** 2, axis=1)
    kept = energy > _AUDIBLE * energy.max()
    return windows[0][kept], windows[1][kept]


COLUMNS = ("mode", "level", "ms", "cores", "bytes", "dB off", "SNR dB")


def tables_of(results: dict[str, Any]) -> list[Table]:
    """Return the levels in use and the field as tables."""
    titles = {"levels": "Levels in use, best first", "field": f"All of libopus at {DOWNLINK_FRAME_MS} ms"}
    note = "CPU and bytes a packet, cores at 150 devices, spectral distance, computed and not heard"
    return [table_of(f"{title}; {note}", COLUMNS, _rows(results[name])) for name, title in titles.items()]


def _rows(ways: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            way["application"].removeprefix("restricted_"),
            way["level"],
            f"{way['cpu_ms_per_packet']:.3f}",
            f"{way['cores_at_150_devices']:.2f}",
            f"{way['bytes_per_packet']:.0f}",
            f"{way['spectral_distance_db']:.2f}",
            f"{way['segmental_snr_db']:.1f}",
        ]
        for way in ways
    ]
