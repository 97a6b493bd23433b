from __future__ import annotations

import asyncio

import structlog.testing

from coordinator.jetstream import JetStream
from coordinator.stores import AGAIN_S, make_stores
from tests.coordinator.streams import HeaderMemoryBus, refusal, server
from tests.virtual_time import run

ALL = {"STREAM.CREATE": {}, "STREAM.DELETE": {"success": True}}


def test_the_buckets_the_turns_and_the_usage_are_made() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, ALL) as asked:
            await make_stores(JetStream(bus, domain="hub"), keep_turns_hours=24)
            assert asked == [
                "STREAM.CREATE.KV_policy",
                "STREAM.CREATE.KV_forecast",
                "STREAM.CREATE.USAGE",
                "STREAM.CREATE.TURNS",
            ]

    run(scenario())


def test_turns_and_usage_are_deleted_when_none_are_to_be_kept() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        with structlog.testing.capture_logs() as logs:
            async with server(bus, ALL) as asked:
                await make_stores(JetStream(bus, domain="hub"), keep_usage_days=0)
                assert asked == [
                    "STREAM.CREATE.KV_policy",
                    "STREAM.DELETE.USAGE",
                    "STREAM.DELETE.KV_forecast",
                    "STREAM.DELETE.TURNS",
                ]
        assert [(entry["event"], entry["turns_deleted"]) for entry in logs] == [("stores_made", True)]

    run(scenario())


def test_a_hub_that_is_away_and_then_refuses_is_told_once_each_and_asked_until_it_takes_it() -> None:
    async def scenario() -> None:
        bus, loop = HeaderMemoryBus(), asyncio.get_running_loop()
        with structlog.testing.capture_logs() as logs:
            making = asyncio.create_task(make_stores(JetStream(bus, domain="hub"), replicas=3))
            await asyncio.sleep(2.5 * AGAIN_S)
            async with server(bus, {"STREAM.CREATE": refusal(500, 10074, "replicas > 1 not supported")}):
                await asyncio.sleep(2 * AGAIN_S)
            assert not making.done()
            async with server(bus, ALL):
                await making
            assert loop.time() == 5 * AGAIN_S
        assert [entry["event"] for entry in logs] == ["stores_not_made", "stores_not_made", "stores_made"]
        assert "out of reach" in logs[0]["reason"]
        assert "replicas" in logs[1]["reason"]

    run(scenario())
