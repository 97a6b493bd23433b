from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx
import pytest

from cloud import readings as module
from cloud.readings import ANSWER_S, MAX_AT_ONCE, MetricsReader
from tests import virtual_time


@dataclass(frozen=True)
class Figures:
    running: int
    waiting: int = 0
    kv_usage: float = 0.0


def parse(page: str) -> Figures | None:
    return Figures(int(page)) if page.isdigit() else None


class Replicas:
    """Pages by host; and how many are read at once."""

    def __init__(self, **pages: object) -> None:
        self.pages = pages
        self.reading = self.most = 0
        self.asked: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            await asyncio.sleep(0.01)
            page = self.pages.get(request.url.host.replace(".", "_").replace(":", "_"), "7")
            if isinstance(page, Exception):
                raise page
            if page == "hangs":
                await asyncio.sleep(3600)
            if isinstance(page, int):
                return httpx.Response(page)
            if page == "endless":
                return httpx.Response(200, stream=Endless())
            return httpx.Response(200, content=str(page).encode())
        finally:
            self.reading -= 1


class Endless(httpx.AsyncByteStream):
    """A page without an end, until it is closed."""

    is_closed = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        while not self.is_closed:
            yield b"1" * 10_000

    async def aclose(self) -> None:
        self.is_closed = True


def read(replicas: Replicas, *addresses: str) -> dict[str, int]:
    async def scenario() -> dict[str, int]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(replicas)) as client:
            found = await MetricsReader(client, parse, port=8000)(addresses)
        return {address: reading.running for address, reading in found.items()}

    return virtual_time.run(scenario())


def test_each_replica_is_asked_for_its_page() -> None:
    replicas = Replicas(h10_0_0_1="1")
    assert read(replicas, "10.0.0.1", "fd00::1") == {"10.0.0.1": 7, "fd00::1": 7}
    assert sorted(replicas.asked) == ["http://10.0.0.1:8000/metrics", "http://[fd00::1]:8000/metrics"]


@pytest.mark.parametrize(
    "page", [500, 404, "no figures", "hangs", httpx.ConnectError("no"), httpx.ReadError("cut"), "endless"]
)
def test_who_does_not_tell_is_left_out(page: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", 50_000)
    assert read(Replicas(bad=page), "bad", "good") == {"good": 7}


def test_nobody_to_ask_is_nobody() -> None:
    assert read(Replicas()) == {}


def test_only_so_many_are_asked_at_once() -> None:
    replicas = Replicas()
    assert len(read(replicas, *(f"10.0.0.{number}" for number in range(100)))) == 100
    assert replicas.most == MAX_AT_ONCE


def test_cancelling_ends_all_requests() -> None:
    async def scenario() -> None:
        replicas = Replicas(bad="hangs")
        async with httpx.AsyncClient(transport=httpx.MockTransport(replicas)) as client:
            asking = asyncio.create_task(_gather(MetricsReader(client, parse, port=8000)))
            await asyncio.sleep(ANSWER_S / 2)
            assert replicas.reading == 1
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert replicas.reading == 0

    virtual_time.run(scenario())


async def _gather(reader: MetricsReader) -> None:
    await reader(["bad", "good"])


def test_it_opens_a_client_of_its_own() -> None:
    async def scenario() -> None:
        async with MetricsReader.connect(parse, port=1) as reader:
            assert await reader([]) == {}

    virtual_time.run(scenario())
