"""The loop that the product runs on, for the benchmark's own processes, and what a process used."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STIME_FIELDS = slice(11, 13)
"""utime and stime behind the command's closing bracket in /proc/PID/stat (proc(5))."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's loop, None where that is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process used so far, 0.01 s exact; 0 where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    return cpu_s_of(stat.read_text())


def cpu_s_of(stat: str) -> float:
    """Return user and system seconds from the text of /proc/PID/stat; the command in it may hold blanks and brackets."""
    return sum(map(int, stat.rpartition(")")[2].split()[_STIME_FIELDS])) / _TICKS_PER_S
