"""What devices and node showed, into the figures of the report: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.capacity_node import Measured, quantile_ms
from benchmarks.load import MAX_LAG_MS
from benchmarks.load_device import TurnSample
from benchmarks.report import summary, table_of
from benchmarks.targets import Target

TABLE_DEVICES = (1, 20, 50, 100, 150, 300)
"""Devices at once in the table; beyond, half as many more at a time until it breaks."""
GROWTH = 1.5
BREAKS_AT_RATIO = 2.0
"""First audio (p95) over the single device's (p50) at which the node no longer carries its load. A guess."""
PROMISED_DEVICES = 150
"""The load the promises are about."""
TURNS_PER_HOUR = 12
"""How often one device is spoken to."""
CORES = 2
MAX_BUSY = 0.8
"""Share of the cores that may be busy; the promise for a node at its full number of devices."""

SCRIPTED_TARGETS = (
    Target(
        key="ratio_p95_over_single_p50", at="most", limit=1.15, what="first audio: p95 over the single device's p50"
    ),
    Target(key="gaps_over_120ms", at="most", limit=0, what="audio gaps over 120 ms"),
    Target(key="errors", at="most", limit=0, what="errors"),
    Target(key="server_cpu_cores", at="most", limit=1.0, what="gateway and brain, cores"),
    Target(key="server_rss_mib", at="most", limit=300, what="gateway and brain, MiB"),
)
REAL_TARGETS = (
    Target(key="stages.vad.p95", at="most", limit=50, what="voice detected, p95 ms"),
    Target(key="stages.text.p95", at="most", limit=500, what="final text after the last speech, p95 ms"),
    Target(key="stages.tts.p95", at="most", limit=300, what="first speech of a sentence, p95 ms"),
    Target(key="errors", at="most", limit=0, what="errors"),
    Target(key="gaps_over_120ms", at="most", limit=0, what="audio gaps over 120 ms"),
    Target(
        key="audio.x_real_time_per_core",
        at="least",
        limit=400,
        what="sound through decoder and VAD, x real time a core",
    ),
)


def figures(measured: Measured) -> dict[str, Any]:
    """Return one load's figures; turns are those whose speech ended while all devices were at work."""
    load = measured.load
    turns = [turn for turn in load.turns if turn.at_s >= load.full_s]
    gaps = sum(turn.packets + turn.lost - 1 for turn in load.turns)
    stutters = sum(turn.stutters for turn in load.turns)
    return {
        "turns": len(turns),
        "first_audio_ms": summary([turn.first_audio_ms for turn in turns]),
        "transcript_ms": summary([turn.transcript_ms for turn in turns]),
        "gaps_over_120ms": stutters,
        "gaps_over_120ms_percent": round(100 * stutters / gaps, 3) if gaps else None,
        "longest_gap_ms": round(max((turn.longest_gap_ms for turn in load.turns), default=0.0), 1),
        "underruns": sum(turn.underruns for turn in load.turns),
        "silence_ms": round(sum(turn.silence_ms for turn in load.turns), 1),
        "packets_lost": sum(turn.lost for turn in load.turns),
        "errors": sum(load.faults.values()),
        "errors_by_kind": load.faults,
        "server_cpu_cores": round(measured.cpu_s / measured.wall_s, 3),
        "server_rss_mib": round(measured.peak_rss_mib, 1),
        "nats_cpu_cores": round(measured.nats_cpu_s / measured.wall_s, 3),
        "others_cpu_cores": round(measured.others_cores, 3),
        "measured_s": round(measured.wall_s, 1),
        "stages": stages(measured),
        "generator": {
            "cpu_cores": round(load.cpu_cores, 3),
            "loop_lag_p99_ms": round(load.loop_lag_p99_ms, 2),
            "has_uvloop": load.has_uvloop,
            "is_valid": load.loop_lag_p99_ms <= MAX_LAG_MS,
        },
    }


def stages(measured: Measured) -> dict[str, dict[str, float | None]]:
    """Return the brain's own stage times in ms, read between the bounds of its histograms."""
    return {
        stage: {name: _rounded(quantile_ms(buckets, share)) for name, share in (("p50", 0.5), ("p95", 0.95))}
        for stage, buckets in measured.stages.items()
    }


def against_single(loaded: Mapping[str, Any], single: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loaded node's figures with the single device's beside them."""
    kept = ("first_audio_ms", "transcript_ms", "turns", "server_cpu_cores", "errors", "gaps_over_120ms", "underruns")
    return {
        **loaded,
        "single_device": {key: single[key] for key in kept},
        "ratio_p95_over_single_p50": ratio(loaded, single),
    }


def ratio(loaded: Mapping[str, Any], single: Mapping[str, Any]) -> float | None:
    """Return the loaded first audio's p95 over the single device's p50; None when either was not measured."""
    p95, p50 = loaded["first_audio_ms"]["p95"], single["first_audio_ms"]["p50"]
    return round(p95 / p50, 3) if p95 and p50 else None


def broken(row: Mapping[str, Any], single: Mapping[str, Any]) -> str:
    """Return in words why a node no longer carries this load; "" while it does."""
    over = ratio(row, single)
    if row["errors"]:
        return f"{row['errors']} errors"
    if row["gaps_over_120ms"] or row["underruns"]:
        return f"{row['gaps_over_120ms']} gaps, {row['underruns']} silences"
    if over is None or over > BREAKS_AT_RATIO:
        return "nobody was answered" if over is None else f"first audio {over:g} x the single device's"
    return ""


def promised_row(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the row that the promises are about; nothing when the node broke before."""
    return next((row for row in rows if row["devices"] == PROMISED_DEVICES), {})


def next_devices(done: Sequence[int]) -> int:
    """Return how many devices the table's next row has."""
    if len(done) < len(TABLE_DEVICES):
        return TABLE_DEVICES[len(done)]
    return round(done[-1] * GROWTH)


def devices_carried(turn_cpu_s: float, turn_s: float, streaming_cores: float) -> dict[str, Any]:
    """Return how many devices CORES carry at TURNS_PER_HOUR, busy to MAX_BUSY.

    ``turn_cpu_s`` is the server's processor time for one turn of ``turn_s``, streaming included; ``streaming_cores`` what one device
    costs that is connected, streams silence and says nothing. Either devices stream all the time between their turns, or they close
    the socket as stock firmware does when a conversation is over; what is true lies between.
    """
    turns_per_s = TURNS_PER_HOUR / 3600
    closed = turns_per_s * turn_cpu_s
    always = closed + max(0.0, 1 - turns_per_s * turn_s) * streaming_cores
    room = CORES * MAX_BUSY
    return {
        "turns_per_hour": TURNS_PER_HOUR,
        "cores": CORES,
        "busy_at_most": MAX_BUSY,
        "cpu_s_per_turn": round(turn_cpu_s, 4),
        "s_per_turn": round(turn_s, 2),
        "cores_per_silent_device": round(streaming_cores, 5),
        "always_streaming": int(room / always) if always > 0 else None,
        "closed_between_turns": int(room / closed) if closed > 0 else None,
    }


def cost_of_a_turn(measured: Measured, devices: int) -> tuple[float, float] | None:
    """Return processor seconds and wall seconds of one turn, from turns held back to back; None when there were none."""
    turns = _ended_within(measured.load.turns, measured.load.full_s)
    if not turns:
        return None
    return measured.cpu_s / turns, devices * measured.wall_s / turns


def tables_of(results: Mapping[str, Any]) -> list[Table]:
    """Return the results for people."""
    single = results["single_device"]
    marks = ("p50", "p95", "max", "n")
    both = ((results["devices"], results), (1, single))
    rows = [
        (f"{what}, {count} device{'s' * (count > 1)}", *(part[key][mark] for mark in marks))
        for key, what in (("first_audio_ms", "first audio"), ("transcript_ms", "transcript"))
        for count, part in both
    ]
    counts = [
        (name.replace("_", " "), f"{results[name]:g}")
        for name in ("gaps_over_120ms", "longest_gap_ms", "underruns", "packets_lost", "errors")
    ]
    loads = [
        (name.replace("_", " "), f"{results[name]:g}")
        for name in ("server_cpu_cores", "server_rss_mib", "nats_cpu_cores", "others_cpu_cores")
    ]
    generator = [(f"generator {name.replace('_', ' ')}", str(value)) for name, value in results["generator"].items()]
    stage_rows = [(stage, part["p50"], part["p95"]) for stage, part in results["stages"].items()]
    tables = [
        table_of("After the last audible packet, ms", ("what", *marks), rows),
        table_of("And", ("what", "value"), counts + loads + generator),
    ]
    if stage_rows:
        tables.append(table_of("Stages as the node saw them, ms", ("stage", "p50", "p95"), stage_rows))
    return tables


def table_of_rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of growing loads for people."""
    columns = ("n", "text p50/p95", "audio p50/p95", "gaps", "dry", "err", "cores", "MiB", "lag", "breaks")
    cells = [
        (
            row["devices"],
            _pair(row["transcript_ms"]),
            _pair(row["first_audio_ms"]),
            row["gaps_over_120ms"],
            row["underruns"],
            row["errors"],
            f"{row['server_cpu_cores']:.2f}",
            f"{row['server_rss_mib']:.0f}",
            f"{row['generator']['loop_lag_p99_ms']:.0f}",
            row["broken"] or ("" if row["generator"]["is_valid"] else "generator too slow"),
        )
        for row in rows
    ]
    return table_of("Growing loads, ms after the last audible packet", columns, cells)


def _pair(marks: Mapping[str, float | None]) -> str:
    return "/".join("-" if marks[name] is None else f"{marks[name]:.0f}" for name in ("p50", "p95"))


def _ended_within(turns: Sequence[TurnSample], full_s: float) -> int:
    return sum(turn.at_s >= full_s for turn in turns)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
