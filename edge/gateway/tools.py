"""A session's talk with its device's tools: sends what the MCP client asks and logs once what the device can do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from edge.gateway.mcp import McpClient, Request
from edge.gateway.observer import GatewayObserver
from edge.gateway.vision_tokens import TTL_S, VisionOffer

_log = structlog.get_logger()

RENEW_S = TTL_S / 2
"""So a picture has half a token's life to be taken and sent in."""


class DeviceTools:
    """The tools of one device; ``ask`` sends a request to it. Nothing here waits, and no turn waits for it."""

    def __init__(
        self,
        device_id: str,
        ask: Callable[[Request], None],
        observer: GatewayObserver,
        *,
        offer: Callable[[], VisionOffer | None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``offer`` returns where the camera may show its pictures now, None for nowhere; its token is renewed every RENEW_S."""
        self.client = McpClient()
        self._device_id = device_id
        self._ask = ask
        self._observer = observer
        self._offer = offer
        self._now = now
        self._offered_s: float | None = None
        self._is_told = False

    def begin(self) -> None:
        """Greet the device's tools; call once."""
        vision = self._offer()
        self._offered_s = self._now() if vision else None
        self._ask(self.client.begin(self._now(), vision))

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
        """Give up what was not answered in time, and renew what expires."""
        now_s = self._now()
        self.client.tick(now_s)
        self._tell()
        if self._offered_s is not None and now_s - self._offered_s >= RENEW_S and (vision := self._offer()):
            self._offered_s = now_s
            self._ask(self.client.renew(now_s, vision))

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
