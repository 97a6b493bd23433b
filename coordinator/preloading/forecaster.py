"""Forecasts a fleet's hours one after the other from reports of use, and learns from how the last forecast came true; pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from coordinator.preloading.forecast import Calibration, GroupForecast, forecast, recent_of, trusted
from coordinator.preloading.foreseen import Content
from coordinator.preloading.reports import UsageReport
from coordinator.preloading.usage import HOURS, Usage

MIN_AT_EDGE = 0.02
"""Contents less likely at an edge are not told: none of them pays on a shelf of any size measured (``python -m benchmarks cache``)."""
MIN_IN_FLEET = 0.5
"""Nor are those, where they are less likely in the whole fleet: nothing is made for them."""

Floats = npt.NDArray[np.float64]


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an hour's preparations."""

    made: int
    """Contents that edges made before anybody asked."""
    wasted: int
    """Those of them nobody asked for in that hour."""


class Forecaster:
    """A fleet's usage, and what experience says of forecasts made from it."""

    def __init__(self, usage: Usage | None = None) -> None:
        self._usage = usage or Usage()
        self._calibrations: dict[str, Calibration] = {}
        self._of_fleet = Calibration()
        self._edges: dict[str, dict[str, int]] = {}
        """Last hour each edge reported, by group."""
        self._foretold: dict[str, GroupForecast] = {}
        self._foretold_fleet: Floats = np.zeros(0)
        self._foretold_hour = -1
        self._rows: dict[str, int] = {}
        """Place of each content in what was foretold."""
        self._came: dict[str, set[str]] = {}
        self._made: set[str] = set()

    def take(self, report: UsageReport, now_hour: int) -> bool:
        """Take over what an edge reports and return True; False when it is of another time, or of one group too many."""
        if not self._usage.add(report, now_hour):
            return False
        edges = self._edges.setdefault(report.group, {})
        edges[report.edge_id] = max(report.hour, edges.get(report.edge_id, 0))
        if report.hour == self._foretold_hour:
            self._came.setdefault(report.group, set()).update(report.counts)
            self._made.update(report.made)
        return True

    def judge(self) -> Judged:
        """Learn from how the last forecast came true and return what its preparations were worth; once for each forecast."""
        everybody: set[str] = set().union(*self._came.values()) if self._came else set()
        for group, foretold in self._foretold.items():
            if group in self._came:
                self._calibrations.setdefault(group, Calibration()).learn(
                    foretold.raw(), self._which(self._came[group])
                )
        if self._came:
            self._of_fleet.learn(self._foretold_fleet, self._which(everybody))
        judged = Judged(made=len(self._made), wasted=len(self._made - everybody))
        self._foretold, self._came, self._made = {}, {}, set()
        return judged

    def foresee(self, hour: int) -> dict[str, list[Content]]:
        """Return what each group will ask for in ``hour``, the most worth telling first.

        ``hour`` counts from 1970 and is the one after those reported.
        """
        usage = self._usage
        usage.advance(hour - 1)
        self._foretold = forecast(usage, hour, self._calibrations)
        self._rows = {content: row for row, content in enumerate(usage.contents)}
        self._foretold_hour = hour
        never = np.ones(len(usage.contents))
        for foretold in self._foretold.values():
            never *= 1 - foretold.probability()
        self._foretold_fleet = 1 - never
        in_fleet = trusted(self._of_fleet.corrected(self._foretold_fleet), recent_of(usage))
        return {group: list(self._told(group, foretold, in_fleet)) for group, foretold in self._foretold.items()}

    def _told(self, group: str, foretold: GroupForecast, in_fleet: Floats) -> Iterator[Content]:
        share = 1 / max(self._edges_of(group), 1)
        at_edge = foretold.probability(share)
        expected = foretold.expected * share
        rows = np.nonzero((at_edge >= MIN_AT_EDGE) | (in_fleet >= MIN_IN_FLEET))[0]
        for row in rows[np.argsort(-(at_edge[rows] + in_fleet[rows]), kind="stable")].tolist():
            key = self._usage.contents[row]
            yield Content(
                key, float(at_edge[row]), float(in_fleet[row]), float(expected[row]), self._usage.texts.get(key, "")
            )

    def _edges_of(self, group: str) -> int:
        """Return how many edges of the group reported within a day."""
        return sum(hour >= self._foretold_hour - HOURS for hour in self._edges.get(group, {}).values())

    def _which(self, contents: set[str]) -> npt.NDArray[np.bool_]:
        came = np.zeros(len(self._rows), bool)
        came[[self._rows[content] for content in contents if content in self._rows]] = True
        return came
