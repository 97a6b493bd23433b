"""How often each group asked for each content, by hour of the day and lately; bounded, and forgotten over days; pure.

Every group has a table, contents by hours of the day, whose column fades by ``DAY_FADES`` each time its hour comes round again, and beside it
the asks of the last hours, fading by ``HOUR_FADES``. Reports of an hour may come in any order and from any number of edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.preloading.reports import UsageReport

HOURS = 24
DAY_FADES = 0.8
"""What a day's asks weigh a day later: half after three days. A guess: habits last weeks, topics days."""
HOUR_FADES = 0.7
"""The same by hours for what is asked lately: half after two. A guess."""
MAX_CONTENTS = 20_000
MAX_GROUPS = 64
"""With MAX_CONTENTS at most 128 MB of float32 tables; a group takes no room before its first report."""
KEPT_SHARE = 0.9
"""Share of the contents that stays when there is no more room: those asked most."""
LATEST_HOURS = 3
"""Reports older than this are not taken: an edge that was cut off tells of yesterday."""

Floats = npt.NDArray[np.float32]


class GroupUsage:
    """One group's asks: ``by_hour`` is (contents, 24), ``recent`` (contents,); ``weights`` are the faded days seen, by hour."""

    def __init__(self, rows: int) -> None:
        self.by_hour: Floats = np.zeros((rows, HOURS), np.float32)
        self.recent: Floats = np.zeros(rows, np.float32)
        self.weights: Floats = np.zeros(HOURS, np.float32)

    def fade(self, hour: int) -> None:
        """Begin ``hour``."""
        self.by_hour[:, hour % HOURS] *= DAY_FADES
        self.weights[hour % HOURS] = self.weights[hour % HOURS] * DAY_FADES + 1
        self.recent *= HOUR_FADES


class Usage:
    """What a fleet asked for, merged from reports."""

    def __init__(self, *, max_contents: int = MAX_CONTENTS, max_groups: int = MAX_GROUPS) -> None:
        """``max_contents`` is at least 2."""
        self.contents: list[str] = []
        """Contents by row of every group's table."""
        self.groups: dict[str, GroupUsage] = {}
        self.texts: dict[str, str] = {}
        """Words of the contents that at least one edge may tell."""
        self.hour = -1
        """The hour of the latest report."""
        self._max_contents = max_contents
        self._max_groups = max_groups
        self._rows: dict[str, int] = {}

    def add(self, report: UsageReport, now_hour: int) -> bool:
        """Take a report over and return True; False when it is too old, of an hour to come, or of one group too many."""
        is_new_group = report.group not in self.groups
        if not max(self.hour, now_hour) - LATEST_HOURS <= report.hour <= now_hour:
            return False
        if is_new_group and len(self.groups) >= self._max_groups:
            return False
        self.advance(report.hour)
        if is_new_group:
            self.groups[report.group] = GroupUsage(self._max_contents)
            self.groups[report.group].weights[self.hour % HOURS] = 1
        group = self.groups[report.group]
        rows = np.fromiter((self._row(content) for content in self._taken(report)), np.intp)
        counts = np.fromiter(report.counts.values(), np.float32)[: len(rows)]
        group.by_hour[rows, report.hour % HOURS] += counts
        group.recent[rows] += counts * HOUR_FADES ** max(self.hour - report.hour, 0)
        self.texts.update({content: text for content, text in report.texts.items() if content in self._rows})
        return True

    def advance(self, hour: int) -> None:
        """Begin ``hour``, so that what was asked before fades; an earlier one changes nothing."""
        if self.hour < 0:
            self.hour = hour
        if hour - self.hour > HOURS * HOURS:
            self.hour = hour - HOURS * HOURS
        for begun in range(self.hour + 1, hour + 1):
            for group in self.groups.values():
                group.fade(begun)
        self.hour = max(self.hour, hour)

    def _taken(self, report: UsageReport) -> list[str]:
        """Return the report's contents after making room for them; no more than there can ever be room for."""
        contents = list(report.counts)[: self._max_contents // 2]
        unknown = sum(content not in self._rows for content in contents)
        if len(self.contents) + unknown > self._max_contents:
            self._forget(min(int(self._max_contents * KEPT_SHARE), self._max_contents - len(contents)))
        return contents

    def _row(self, content: str) -> int:
        row = self._rows.get(content)
        if row is None:
            row = self._rows[content] = len(self.contents)
            self.contents.append(content)
        return row

    def _forget(self, kept: int) -> None:
        """Keep the contents asked for most, all groups together; what is asked lately weighs more."""
        held = len(self.contents)
        weight: npt.NDArray[Any] = np.zeros(held)
        for group in self.groups.values():
            weight += group.by_hour[:held].sum(axis=1) + group.recent[:held]
        rows = np.sort(np.argsort(-weight, kind="stable")[:kept])
        for group in self.groups.values():
            for table in (group.by_hour, group.recent):
                table[: len(rows)] = table[rows]
                table[len(rows) :] = 0
        self.contents = [self.contents[row] for row in rows]
        self._rows = {content: row for row, content in enumerate(self.contents)}
        self.texts = {content: text for content, text in self.texts.items() if content in self._rows}
