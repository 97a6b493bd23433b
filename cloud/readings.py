"""Asks the replicas of a pool what they have to do: their /metrics pages, all at once, by their addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Self

import httpx

from cloud.scaler import Reading

ANSWER_S = 2.0
"""A replica that does not tell by then is not counted; vLLM answers in milliseconds."""
MAX_AT_ONCE = 32
"""Pages read at the same time."""
MAX_PAGE_BYTES = 4 * 1024 * 1024
"""vLLM's page is some 100 kB."""


class MetricsReader:
    """Reads the pages of replicas; ``connect`` opens one, calling it returns what those that answered said and raises nothing."""

    def __init__(self, client: httpx.AsyncClient, parse: Callable[[str], Reading | None], *, port: int) -> None:
        self._client = client
        self._parse = parse
        self._port = port
        self._free = asyncio.Semaphore(MAX_AT_ONCE)

    @classmethod
    @asynccontextmanager
    async def connect(cls, parse: Callable[[str], Reading | None], *, port: int) -> AsyncGenerator[Self, None]:
        """Open a pool of connections; ``parse`` turns a page into figures, None when it holds none."""
        async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, verify=False) as client:  # noqa: S501 - plain HTTP
            yield cls(client, parse, port=port)

    async def __call__(self, addresses: Collection[str]) -> Mapping[str, Reading]:
        """Return the figures of each replica (IP address) that told them; cancelling ends all requests."""
        async with asyncio.TaskGroup() as tasks:
            asked = {address: tasks.create_task(self._read(address), name=f"read-{address}") for address in addresses}
        said = {address: task.result() for address, task in asked.items()}
        return {address: reading for address, reading in said.items() if reading is not None}

    async def _read(self, address: str) -> Reading | None:
        host = f"[{address}]" if ":" in address else address
        page = bytearray()
        try:
            async with (
                self._free,
                asyncio.timeout(ANSWER_S),
                self._client.stream("GET", f"http://{host}:{self._port}/metrics") as response,
            ):
                if response.status_code != httpx.codes.OK:
                    return None
                async for chunk in response.aiter_bytes():
                    page += chunk
                    if len(page) > MAX_PAGE_BYTES:
                        await response.aclose()  # then the stream ends, and every generator of the library with it
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, TimeoutError):
            return None
        return self._parse(page.decode(errors="replace")) if len(page) <= MAX_PAGE_BYTES else None
