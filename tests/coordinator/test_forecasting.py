from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import structlog.testing

from coordinator import forecasting
from coordinator.buckets import MemoryBucket
from coordinator.forecasting import HOUR_S, Forecasting
from coordinator.jetstream import Kept
from coordinator.preloading.forecaster import Judged
from coordinator.preloading.foreseen import decode_foreseen
from coordinator.preloading.reports import UsageReport, encode_report
from models.errors import CloudUnreachableError
from tests.coordinator.preloading.test_reports import content
from tests.real_time import run

HOUR = 500_000
NOW_S = HOUR * HOUR_S + 100.0


class Stream:
    """A hub that keeps reports."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.since: list[float] = []
        self.away = 0

    def add(self, payload: bytes, *, edge: str = "edge-1", at_s: float = NOW_S - 60) -> None:
        self.kept.append(Kept(payload=payload, sequence=len(self.kept) + 1, at_s=at_s, subject=f"voice.usage.{edge}"))

    async def read(self, _stream: str, _subject: str, *, since_s: float) -> AsyncGenerator[Kept, None]:
        if self.away:
            self.away -= 1
            raise CloudUnreachableError("USAGE: the hub is out of reach")
        self.since.append(since_s)
        for kept in list(self.kept):
            if kept.at_s >= since_s:
                yield kept


def report(counts: dict[str, int], *, edge: str = "edge-1", group: str = "north", hour: int = HOUR - 1) -> bytes:
    asked = {content(name): count for name, count in counts.items()}
    words = {content(name): f"zh {name}" for name in counts}
    return encode_report(UsageReport(edge_id=edge, group=group, hour=hour, counts=asked, texts=words))


def service(stream: Any, bucket: MemoryBucket, now: Callable[[], float] = lambda: NOW_S, **fields: Any) -> Forecasting:
    return Forecasting(stream, bucket, days=7, now=now, **fields)


def test_each_group_is_told_what_its_edges_reported() -> None:
    async def scenario() -> None:
        stream, bucket = Stream(), MemoryBucket()
        stream.add(report({"cats": 50}))
        stream.add(report({"dogs": 50}, edge="edge-2", group="south"), edge="edge-2")
        await service(stream, bucket).tell(HOUR)
        for group, name in (("north", "cats"), ("south", "dogs")):
            entry = await bucket.get(group)
            assert entry is not None
            told = decode_foreseen(entry.value)
            assert (told.group, told.hour) == (group, HOUR)
            assert (told.contents[0].key, told.contents[0].text) == (content(name), f"zh {name}")
        assert stream.since == [NOW_S - 7 * 24 * HOUR_S]

    run(scenario())


def test_what_is_no_report_or_speaks_for_another_edge_is_dropped_and_counted() -> None:
    async def scenario() -> None:
        stream, bucket, dropped = Stream(), MemoryBucket(), []
        stream.add(b"junk")
        stream.add(report({"lies": 50}), edge="edge-2")
        stream.add(report({"cats": 50}))
        await service(stream, bucket, dropped=lambda: dropped.append(1)).tell(HOUR)
        entry = await bucket.get("north")
        assert entry is not None
        assert [each.key for each in decode_foreseen(entry.value).contents] == [content("cats")]
        assert len(dropped) == 2

    run(scenario())


def test_a_report_is_read_once_and_one_of_a_stream_made_anew_as_well() -> None:
    async def scenario() -> None:
        stream, bucket, judged = Stream(), MemoryBucket(), list[Judged]()
        here = service(stream, bucket, observe=judged.append)
        stream.add(report({"cats": 50}))
        await here.tell(HOUR)
        made = UsageReport(edge_id="edge-1", group="north", hour=HOUR, counts={}, made=(content("cats"),))
        stream.kept.clear()
        stream.add(encode_report(made), at_s=NOW_S + HOUR_S)
        await here.tell(HOUR + 1)
        await here.tell(HOUR + 2)
        assert judged == [Judged(made=0, wasted=0), Judged(made=1, wasted=1), Judged(made=0, wasted=0)]

    run(scenario())


def test_a_hub_that_is_away_is_told_once_and_asked_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "AGAIN_S", 0.0)

    async def scenario() -> None:
        stream, bucket = Stream(), MemoryBucket()
        stream.add(report({"cats": 50}))
        stream.away = 3
        with structlog.testing.capture_logs() as logs:
            task = asyncio.create_task(service(stream, bucket).run())
            watching = bucket.watch("north")
            assert decode_foreseen((await anext(watching)).value).hour == HOUR
            await watching.aclose()
            task.cancel()
            await asyncio.wait([task])
        assert [entry["event"] for entry in logs] == ["forecast_not_told", "forecast_told"]

    run(scenario())


def test_the_next_hour_is_told_when_its_reports_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "SETTLE_S", 0.0)

    async def scenario() -> None:
        stream, bucket = Stream(), MemoryBucket()
        stream.add(report({"cats": 50}))
        now_s = [(HOUR + 1) * HOUR_S - 0.02]

        def now() -> float:
            now_s[0] += 0.01
            return now_s[0]

        task = asyncio.create_task(service(stream, bucket, now).run())
        async with asyncio.timeout(10):
            watching = bucket.watch("north")
            hours = {decode_foreseen((await anext(watching)).value).hour for _ in range(2)}
        await watching.aclose()
        task.cancel()
        await asyncio.wait([task])
        assert hours == {HOUR, HOUR + 1}

    run(scenario())
