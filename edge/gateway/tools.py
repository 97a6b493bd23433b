"""A session's talk with its device's tools: sends what the MCP client asks and logs once what the device can do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from edge.gateway.mcp import McpClient, Request
from edge.gateway.observer import GatewayObserver

_log = structlog.get_logger()


class DeviceTools:
    """The tools of one device; ``ask`` sends a request to it. Nothing here waits, and no turn waits for it."""

    def __init__(
        self,
        device_id: str,
        ask: Callable[[Request], None],
        observer: GatewayObserver,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = McpClient()
        self._device_id = device_id
        self._ask = ask
        self._observer = observer
        self._now = now
        self._is_told = False

    def begin(self) -> None:
        """Greet the device's tools; call once."""
        self._ask(self.client.begin(self._now()))

    def receive(self, payload: dict[str, Any]) -> None:
        """Take what the device's tools said; the observer counts what meant nothing."""
        ignored = self.client.ignored
        for step in self.client.receive(payload, self._now()):
            if isinstance(step, dict):
                self._ask(step)
        if self.client.ignored > ignored:
            self._observer.dropped("mcp")
        self._tell()

    def tick(self) -> None:
        """Give up what was not answered in time."""
        self.client.tick(self._now())
        self._tell()

    def _tell(self) -> None:
        if self._is_told or not self.client.is_done:
            return
        self._is_told = True
        _log.info(
            "device-tools",
            device_id=self._device_id,
            count=len(self.client.tools),
            firmware=self.client.firmware_version,
            failure=self.client.failure,
        )
