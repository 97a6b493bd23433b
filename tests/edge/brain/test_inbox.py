from __future__ import annotations

import asyncio

import pytest

from edge.brain.inbox import Inbox
from edge.seam import Aborted, AudioUp, ListenStarted, ListenStopped
from models.errors import DeviceProtocolError
from tests.virtual_time import run


def audio(seq: int) -> AudioUp:
    return AudioUp(session_id="s", seq=seq, packet=b"x")


def test_full_line_drops_oldest_audio_and_keeps_control_messages_in_place() -> None:
    async def scene() -> None:
        inbox = Inbox(max_audio=2)
        listen, abort = ListenStarted(session_id="s"), Aborted(session_id="s")
        for message in (listen, audio(0), audio(1), abort, audio(2), audio(3)):
            inbox.put(message)
        assert [await inbox.get() for _ in range(4)] == [listen, abort, audio(2), audio(3)]
        assert inbox.dropped_audio == 2

    run(scene())


def test_get_waits_for_a_message() -> None:
    async def scene() -> None:
        inbox = Inbox()
        waiting = asyncio.create_task(inbox.get())
        await asyncio.sleep(1)
        inbox.put(audio(7))
        assert await waiting == audio(7)

    run(scene())


def test_flood_of_control_messages_is_refused() -> None:
    async def scene() -> None:
        inbox = Inbox(max_control=3)
        for _ in range(3):
            inbox.put(Aborted(session_id="s"))
        inbox.put(audio(0))
        with pytest.raises(DeviceProtocolError, match="session s"):
            inbox.put(Aborted(session_id="s"))

    run(scene())


def test_backlog_of_one_session_lets_the_others_have_their_turn() -> None:
    async def scene() -> None:
        order: list[str] = []

        async def serve(name: str, inbox: Inbox, count: int) -> None:
            for _ in range(count):
                await inbox.get()
                order.append(name)

        flooded, quiet = Inbox(), Inbox()
        for seq in range(100):
            flooded.put(audio(seq))
        for seq in range(3):
            quiet.put(audio(seq))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve("flooded", flooded, 100))
            tasks.create_task(serve("quiet", quiet, 3))
        assert [place for place, name in enumerate(order) if name == "quiet"] == [1, 3, 5]

    run(scene())


def test_get_cancelled_between_two_messages_loses_none() -> None:
    async def scene() -> None:
        inbox = Inbox()
        inbox.put(audio(0))
        inbox.put(audio(1))
        waiting = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert [await inbox.get(), await inbox.get()] == [audio(0), audio(1)]

    run(scene())


def test_errand_is_done_in_order_with_the_messages() -> None:
    async def scene() -> None:
        inbox = Inbox(max_control=1)
        inbox.put(ListenStopped(session_id="s"))

        async def errand() -> None: ...

        inbox.note(errand)
        assert isinstance(await inbox.get(), ListenStopped)
        assert await inbox.get() is errand

    run(scene())
