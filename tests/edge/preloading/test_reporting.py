from __future__ import annotations

import asyncio
import random

from coordinator.bus import BusMessage
from coordinator.memory_bus import MemoryBus
from coordinator.preloading.reports import UsageReport, decode_report
from edge.preloading.reporting import HOUR_S, MAX_WAITING, SPREAD_S, UsageReporter, words_from, words_of
from models.errors import CloudUnreachableError
from models.prompts import Message, Prompt
from tests.coordinator.preloading.test_reports import content
from tests.virtual_time import run

HOUR = 500_000


class FlakyBus(MemoryBus):
    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        if self.is_away:
            raise CloudUnreachableError("not connected")
        await super().publish(subject, payload, reply=reply)


def prompt(question: str = "猫怕水吗", device: str = "d1") -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=question),), device_id=device, language="zh")


def reporter(bus: MemoryBus) -> UsageReporter:
    loop = asyncio.get_running_loop()
    return UsageReporter(bus, "edge-1", "north", now=lambda: HOUR * HOUR_S + loop.time(), dice=random.Random(1))


async def told(messages: list[BusMessage], bus: MemoryBus) -> None:
    async with bus.subscribe("voice.usage.edge-1") as line:
        async for message in line:
            messages += [message]


def reports(messages: list[BusMessage]) -> list[UsageReport]:
    return [decode_report(message.payload) for message in messages]


def test_an_hour_is_told_soon_after_its_end_and_the_rest_when_it_stops() -> None:
    async def scenario() -> None:
        bus, messages = MemoryBus(), list[BusMessage]()
        hearing = asyncio.create_task(told(messages, bus))
        here = reporter(bus)
        running = asyncio.create_task(here.run())
        for device in ("d1", "d2"):
            here.asked(content("cats"), prompt(device=device))
        await asyncio.sleep(HOUR_S - 1)
        assert messages == []
        await asyncio.sleep(SPREAD_S + 2)
        assert [(report.hour, report.counts) for report in reports(messages)] == [(HOUR, {content("cats"): 2})]
        assert reports(messages)[0].texts == {content("cats"): "zh 猫怕水吗"}
        here.asked(content("dogs"), prompt("狗呢怕吗"))
        here.made(content("birds"))
        running.cancel()
        await asyncio.wait([running])
        await asyncio.sleep(0)
        last = reports(messages)[-1]
        assert (last.hour, last.counts, last.made) == (HOUR + 1, {content("dogs"): 1}, (content("birds"),))
        hearing.cancel()
        await asyncio.wait([hearing])

    run(scenario())


def test_reports_wait_while_nats_is_away_and_the_oldest_give_way() -> None:
    async def scenario() -> None:
        bus, messages = FlakyBus(), list[BusMessage]()
        hearing = asyncio.create_task(told(messages, bus))
        here = reporter(bus)
        running = asyncio.create_task(here.run())
        bus.is_away = True
        for _ in range(MAX_WAITING + 2):
            here.asked(content("cats"), prompt())
            await asyncio.sleep(HOUR_S)
        bus.is_away = False
        here.asked(content("cats"), prompt())
        await asyncio.sleep(HOUR_S + SPREAD_S)
        hours = [report.hour for report in reports(messages)]
        assert len(hours) == MAX_WAITING
        assert hours == list(range(hours[0], hours[0] + MAX_WAITING))
        running.cancel()
        hearing.cancel()
        await asyncio.wait([running, hearing])

    run(scenario())


def test_an_hour_in_which_nobody_asked_is_not_told() -> None:
    async def scenario() -> None:
        bus, messages = MemoryBus(), list[BusMessage]()
        hearing = asyncio.create_task(told(messages, bus))
        running = asyncio.create_task(reporter(bus).run())
        await asyncio.sleep(3 * HOUR_S)
        assert messages == []
        running.cancel()
        hearing.cancel()
        await asyncio.wait([running, hearing])

    run(scenario())


def test_words_come_back_as_they_were() -> None:
    for question in ("猫怕水吗", "what do cats eat", "a"):
        assert words_from(words_of(prompt(question))) == ("zh", question)
