"""More devices than a node can serve: those let in are answered as ever, the others hear why not, and come in later."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from edge.gateway.notices import notice
from edge.gateway.refusal import Patience
from models.errors import DeviceError
from models.scripted import ScriptedCompleter, ScriptedRecognizer, ScriptedSynthesizer
from tests import virtual_time
from tests.integration.node import SPEECH, Plan, QuietNode, RealNode, node, quiet_node
from tests.real_time import run

CAPACITY = 8
BUSY = "{}: {}".format(*notice("full")[:2])


@dataclass
class Told:
    """What became of the devices."""

    answered: list[Any] = field(default_factory=list)
    refused: list[tuple[str, ...]] = field(default_factory=list)

    def all(self, count: int) -> bool:
        return len(self.answered) + len(self.refused) == count


async def comes(here: RealNode, number: int, told: Told, leave: asyncio.Event) -> None:
    """Be a device that is switched on, asks once if it may, and stays."""
    async with here.device(number) as device:
        turn = await device.ask(SPEECH)
        if turn.outcome == "answered":
            assert here.is_well(turn), turn
            told.answered.append(turn)
            await leave.wait()
            assert not device.is_closed
        else:
            assert await device.until(lambda: device.is_closed, 5), "it was told and not let go"
            told.refused.append(turn.alerts)


@pytest.mark.parametrize("times", [2, 5])
def test_of_more_devices_than_there_is_room_for_the_admitted_are_answered_and_the_others_told(times: int) -> None:
    async def work() -> None:
        async with node(Plan(max_devices=CAPACITY)) as here:
            for round_number in range(2):  # when there is room again, nothing of the first crowd is left
                told, leave = Told(), asyncio.Event()
                async with asyncio.TaskGroup() as tasks:
                    for number in range(times * CAPACITY):
                        tasks.create_task(comes(here, 100 * round_number + number, told, leave))
                    await here.until(partial(told.all, times * CAPACITY), 30)
                    assert here.gateway.active_devices == CAPACITY
                    leave.set()
                assert len(told.answered) == CAPACITY
                assert told.refused == [(BUSY,)] * ((times - 1) * CAPACITY)
                await here.until(lambda: not here.gateway.active_devices)
        assert here.seen.refusals == ["full"] * (2 * (times - 1) * CAPACITY)
        assert set(here.seen.ends) == {"device-gone"}

    run(work(), timeout_s=90)


def test_crowd_beyond_those_who_can_be_told_is_turned_away_and_the_admitted_hear_nothing_of_it() -> None:
    async def knocks(here: RealNode, number: int) -> str:
        try:
            async with here.device(number) as device:
                await device.listen()
                await device.until(lambda: device.is_closed, 10)
                return device.firmware.log.alerts[0]
        except DeviceError as error:
            return str(error)

    async def work() -> None:
        full = Plan(max_devices=2, patience=Patience(read_s=2.0))
        async with node(full) as here, here.device(1) as one, here.device(2) as other:
            crowd = [asyncio.create_task(knocks(here, number)) for number in range(10, 210)]
            for _ in range(2):
                for turn in await asyncio.gather(one.ask(SPEECH), other.ask(SPEECH)):
                    assert here.is_well(turn), turn
            ends = await asyncio.gather(*crowd)
        assert sum(end == BUSY for end in ends) >= 50
        assert all(end == BUSY or "503" in end for end in ends), set(ends)

    run(work(), timeout_s=60)


# Where the engines are the narrow place


ARRIVALS_S = 30
EVERY_S = 0.2
ANSWER_S = 0.4
"""The narrow place does 2.5 answers a second, and twice as many are asked for."""


def narrow(max_waiting: int) -> Plan:
    plan = Plan(
        recognizer=ScriptedRecognizer(delay_s=0.05),
        edge=ScriptedCompleter(unknown="好。", first_token_s=ANSWER_S / 2, per_token_s=ANSWER_S / 2),
        synthesizer=ScriptedSynthesizer(delay_s=0.02, ms_per_character=100),
        max_waiting=max_waiting,
    )
    plan.slots = 1
    return plan


async def asks_once(here: QuietNode, number: int, told: Told) -> None:
    async with here.device(number) as (device, _):
        try:
            turn = await device.ask(SPEECH)
        except DeviceError:
            told.refused.append(tuple(device.firmware.log.alerts))
        else:
            (told.answered if turn.outcome == "answered" else told.refused).append(turn)


async def arrive(here: QuietNode, numbers: Sequence[int], told: Told, every_s: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in numbers:
            tasks.create_task(asks_once(here, number, told))
            await asyncio.sleep(every_s)


def p95(waits_ms: list[float]) -> float:
    return sorted(waits_ms)[int(0.95 * len(waits_ms))]


async def offered(max_waiting: int) -> tuple[Told, list[float], list[float]]:
    """Offer twice the capacity, then half of it; return what was told, and the first sounds of both times in ms."""
    told, calm = Told(), Told()
    async with quiet_node(narrow(max_waiting)) as here:
        numbers = itertools.count(1)
        await arrive(here, list(itertools.islice(numbers, round(ARRIVALS_S / EVERY_S))), told, EVERY_S)
        crowded = [record.marks.first_audio_ms for record in here.records("answered")]
        await arrive(here, list(itertools.islice(numbers, 20)), calm, 4 * EVERY_S)
        after = [record.marks.first_audio_ms for record in here.records("answered")][len(crowded) :]
    assert len(calm.answered) == 20
    return told, crowded, after


def test_twice_the_capacity_of_an_engine_leaves_those_let_in_as_quick_as_before() -> None:
    async def work() -> None:
        told, crowded, after = await offered(max_waiting=2)
        capacity = ARRIVALS_S / ANSWER_S
        assert len(told.answered) >= 0.9 * capacity
        assert len(told.answered) + len(told.refused) == round(ARRIVALS_S / EVERY_S)
        # In line are the two that may be, and those who were let in while they still spoke.
        assert p95(crowded) <= 5 * ANSWER_S * 1000
        assert p95(after) <= 1.5 * ANSWER_S * 1000

    virtual_time.run(work())


def test_the_same_without_shedding_makes_everybody_wait_longer_and_longer() -> None:
    async def work() -> None:
        _, crowded, _ = await offered(max_waiting=10**6)
        assert p95(crowded) >= 20 * ANSWER_S * 1000

    virtual_time.run(work())
