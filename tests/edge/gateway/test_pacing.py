from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gateway.pacing import MAX_SPEECH_ITEMS, MAX_URGENT, Outgoing, Pace, Schedule, Speech
from models.errors import DeviceTooSlowError
from tests.virtual_time import run

PACE = Pace()
FRAME_S = 0.06


def sent_at(arrivals_s: list[float], pace: Pace = PACE) -> list[float]:
    """Send packets that arrive at these times as soon as they are due; return when."""
    schedule, now_s, times = Schedule(pace, first_s=0.0), 0.0, []
    for arrival_s in arrivals_s:
        now_s = max(now_s, arrival_s, schedule.due_s)
        schedule.packet_sent(now_s)
        times.append(round(now_s, 3))
    return times


@pytest.mark.parametrize(
    ("lead", "times"),
    [
        (1, [0.0, 0.06, 0.12, 0.18, 0.24, 0.3]),
        (2, [0.0, 0.0, 0.06, 0.12, 0.18, 0.24]),
        (4, [0.0, 0.0, 0.0, 0.0, 0.06, 0.12]),
        (5, [0.0, 0.0, 0.0, 0.0, 0.0, 0.06]),
    ],
)
def test_packets_that_are_there_go_as_a_lead_then_one_a_frame(lead: int, times: list[float]) -> None:
    assert sent_at([0.0] * 6, Pace(lead_packets=lead)) == times


def test_no_burst_beyond_the_lead_follows_an_underrun() -> None:
    assert sent_at([0.0] * 4 + [1.0] * 6) == [0.0] * 4 + [1.0] * 4 + [1.06, 1.12]


def test_packets_a_little_late_are_caught_up_within_the_lead() -> None:
    assert sent_at([0.0] * 4 + [0.2] * 5) == [0.0] * 4 + [0.2, 0.2, 0.2, 0.24, 0.3]


def test_clock_is_absolute_so_that_late_wake_ups_do_not_add_up() -> None:
    schedule = Schedule(PACE, first_s=0.0)
    for _ in range(5_000):
        schedule.packet_sent(schedule.due_s + 0.01)
    assert schedule.due_s == pytest.approx(0.01 + 5_000 * FRAME_S - 3 * FRAME_S)


def test_silence_between_packets_is_reported_but_not_the_wait_for_the_first() -> None:
    schedule = Schedule(PACE, first_s=1.0)
    assert schedule.packet_sent(3.0) == 0.0
    assert schedule.packet_sent(3.05) == 0.0
    assert schedule.packet_sent(3.62) == pytest.approx(0.5)


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200), st.integers(1, 5))
def test_device_never_holds_more_than_the_lead_and_never_starves_without_need(gaps: list[float], lead: int) -> None:
    arrivals = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    times = sent_at(arrivals, Pace(lead_packets=lead))
    plays_until_s = 0.0
    for arrival_s, time_s in zip(arrivals, times, strict=True):
        held_s = max(0.0, plays_until_s - time_s)
        assert held_s <= (lead - 1) * FRAME_S + 0.002
        assert time_s <= max(arrival_s, plays_until_s) + 0.002
        plays_until_s = max(plays_until_s, time_s) + FRAME_S


def speech(**options) -> Speech:
    return Speech("t", ("stt", "start"), "stop", PACE, **options)


async def played(outgoing: Outgoing, until: str | bytes = "stop") -> list[tuple[float, str | bytes]]:
    """Send what is due until ``until`` was sent; return when each went."""
    loop, log = asyncio.get_running_loop(), []
    while (out := await outgoing.next()) is not None:
        item, owner = out
        log.append((round(loop.time(), 3), item))
        if owner:
            owner.sent(item, loop.time())
        if item == until:
            break
    return log


async def outgoing_with(*items: str | bytes, ended: bool = True) -> Outgoing:
    outgoing = Outgoing(now=asyncio.get_running_loop().time)
    outgoing.speech = speech()
    for item in items:
        outgoing.speech.put(item)
    if ended:
        outgoing.speech.end()
    return outgoing


def test_turn_opens_at_once_leaves_a_gap_paces_and_stops_when_all_was_played() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with("one", b"1", b"2", b"3", b"4", "two", b"5")
        assert await played(outgoing) == [
            (0.0, "stt"),
            (0.0, "start"),
            (0.06, "one"),
            *((0.06, packet) for packet in (b"1", b"2", b"3", b"4")),
            (0.12, "two"),
            (0.12, b"5"),
            (0.36, "stop"),
        ]
        assert outgoing.speech
        assert outgoing.speech.played_ms == 300
        assert outgoing.speech.due_s is None

    run(scene())


def test_turn_without_sound_still_stops() -> None:
    async def scene() -> None:
        assert await played(await outgoing_with()) == [(0.0, "stt"), (0.0, "start"), (0.06, "stop")]

    run(scene())


def test_gap_counts_from_when_start_was_sent_not_from_when_it_was_due() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(b"1")
        assert outgoing.speech
        for _ in range(2):
            item, owner = await outgoing.next() or ("", None)
            await asyncio.sleep(1)
            assert owner is outgoing.speech
            owner.sent(item, asyncio.get_running_loop().time())
        assert await played(outgoing) == [(2.06, b"1"), (2.12, "stop")]

    run(scene())


def test_urgent_message_overtakes_speech_and_replaced_speech_is_silent() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(*[b"x"] * 100)

        async def interrupt() -> None:
            await asyncio.sleep(0.1)
            outgoing.speech = None
            outgoing.say("stop now")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(interrupt())
            log = await played(outgoing, "stop now")
        assert log[-1] == (0.1, "stop now")
        assert sum(item == b"x" for _, item in log) == 4

    run(scene())


def test_packets_that_come_while_the_writer_waits_wake_it() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(ended=False)
        assert outgoing.speech

        async def feed() -> None:
            assert outgoing.speech
            for _ in range(2):
                await asyncio.sleep(1)
                outgoing.speech.put(b"x")
                outgoing.changed()
            outgoing.speech.end()
            outgoing.changed()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed())
            log = await played(outgoing)
        assert log[2:] == [(1.0, b"x"), (2.0, b"x"), (2.06, "stop")]

    run(scene())


def test_end_lets_the_urgent_out_and_nothing_else() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(b"1")
        outgoing.say("alert")
        outgoing.end()
        assert await played(outgoing) == [(0.0, "alert")]
        assert await outgoing.next() is None

    run(scene())


def test_lines_are_bounded() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(*[b"x"] * MAX_SPEECH_ITEMS)
        assert outgoing.speech
        with pytest.raises(DeviceTooSlowError):
            outgoing.speech.put(b"x")
        for _ in range(MAX_URGENT):
            outgoing.say("x")
        with pytest.raises(DeviceTooSlowError):
            outgoing.say("x")

    run(scene())


def test_end_of_sending_is_known() -> None:
    talk = speech()
    talk.put("sentence")
    talk.end()
    assert not talk.is_all_sent
    while talk.due_s is not None and not talk.is_all_sent:
        talk.sent(talk.take(), 0.0)
    assert talk.is_all_sent
    assert talk.has_opened
    assert not talk.has_closed
    assert talk.played_ms == 0


async def held_for(outgoing: Outgoing, from_s: float, until_s: float) -> None:
    """Hold what speaks between two moments."""
    await asyncio.sleep(from_s)
    assert outgoing.speech
    outgoing.speech.hold()
    outgoing.changed()
    await asyncio.sleep(until_s - from_s)
    outgoing.speech.resume(asyncio.get_running_loop().time())
    outgoing.changed()


def test_held_speech_goes_on_where_it_was_with_a_new_lead_and_no_gap() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(*[bytes([n]) for n in range(12)])
        loop, log, gaps = asyncio.get_running_loop(), [], []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(held_for(outgoing, 0.2, 3.0))
            while (out := await outgoing.next()) is not None:
                item, owner = out
                assert owner
                log.append((round(loop.time(), 3), item))
                gaps.append(owner.sent(item, loop.time()))
                if item == "stop":
                    break
        sound = [(at_s, item) for at_s, item in log if isinstance(item, bytes)]
        assert [item for _, item in sound] == [bytes([n]) for n in range(12)]
        assert [at_s for at_s, _ in sound] == [0.06] * 4 + [0.12, 0.18] + [3.0] * 4 + [3.06, 3.12]
        assert log[-1] == (3.36, "stop")
        assert max(gaps) < 0.001

    run(scene())


def test_hold_shorter_than_the_lead_changes_nothing() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(*[b"x"] * 8)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(held_for(outgoing, 0.19, 0.22))
            log = await played(outgoing)
        assert [at_s for at_s, item in log if item == b"x"] == [0.06] * 4 + [0.12, 0.18, 0.24, 0.3]

    run(scene())


@pytest.mark.parametrize("ended", [True, False])
def test_speech_held_from_its_beginning_still_opens_the_loudspeaker(*, ended: bool) -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(b"x", ended=ended)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(held_for(outgoing, 0.0, 1.0))
            log = await played(outgoing, "stop" if ended else b"x")
        assert log[:3] == [(0.0, "stt"), (0.0, "start"), (1.0, b"x")]

    run(scene())


def test_hold_after_the_last_packet_does_not_keep_the_loudspeaker_open() -> None:
    async def scene() -> None:
        outgoing = await outgoing_with(b"x", b"x")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(held_for(outgoing, 0.1, 5.0))
            log = await played(outgoing)
        assert log[-1] == (0.18, "stop")

    run(scene())


def test_resuming_what_is_not_held_changes_nothing() -> None:
    talk = speech()
    talk.put(b"x")
    talk.resume(5.0)
    assert talk.due_s == 0.0
