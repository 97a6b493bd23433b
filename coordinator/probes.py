"""What a process shows over HTTP: /metrics, /healthz, /readyz, and routes of its own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.metrics import Metrics, installed
from models.errors import ConfigError

T = TypeVar("T")
STOP_S = 2
"""How long open requests may take when the process ends."""
_SERVICE_UNAVAILABLE = 503
_MAX_LENGTH_DIGITS = 18
"""A longer Content-Length is too long whatever it says; Python takes its time over thousands of digits."""

Checks = Callable[[], Mapping[str, str]]
"""Returns what keeps the process from being ready: a name and the reason in words; empty when it is ready."""


def probes(metrics: Metrics, *, not_ready: Checks, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the application with the three probes and ``routes``."""

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "alive", "version": installed()})

    async def readyz(_request: Request) -> Response:
        reasons = dict(not_ready())
        status = _SERVICE_UNAVAILABLE if reasons else 200
        return JSONResponse({"status": "not ready" if reasons else "ready", "reasons": reasons}, status)

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show_metrics), *routes],
        middleware=[Middleware(_Timed, metrics=metrics)],
    )


class _Timed:
    """Observes each request's time under its route, so that made-up paths cannot fill the metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = "500"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = scope.get("route")
            handler = getattr(route, "path", "unknown")
            method = scope["method"] if scope["method"] in {"GET", "POST", "HEAD"} else "OTHER"
            self._metrics.http_seconds.labels(handler, method, status).observe(time.perf_counter() - began)


async def read_body(request: Request, max_bytes: int) -> bytes | None:
    """Return the body, None as soon as it says or shows that it is longer than ``max_bytes``, or the peer hung up."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > _MAX_LENGTH_DIGITS or int(declared) > max_bytes):
        return None
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                return None
    except ClientDisconnect:
        return None
    return bytes(body)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T], *, name: str) -> T | None:
    """Return what ``work`` returns; None when the client hung up first: the work is then cancelled, and over. The body must be read."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        working.cancel()

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work, name=name)
        watching = tasks.create_task(leave(), name=f"{name}-client")
        await asyncio.wait([working])
        watching.cancel()
    return None if working.cancelled() else working.result()


class _Server(uvicorn.Server):
    """A server inside a process that handles its own signals; ``is_up`` is set once it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start and tell."""
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield


def listening(host: str, port: int, *, variable: str) -> socket.socket:
    """Return a socket that listens; raise ConfigError naming the port and the ``variable`` that sets it when it is in use.

    What is written to its connections is sent at once. asyncio sees to that only for sockets made with a protocol number, which this one
    is not: every answer in two parts, and every word of a stream, waited 40 ms for the client's acknowledgement.
    """
    try:
        listener = socket.create_server((host, port), reuse_port=False)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; set {variable}") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@asynccontextmanager
async def serve_http(app: ASGIApp, host: str, port: int, *, variable: str) -> AsyncGenerator[int, None]:
    """Serve inside an ``async with`` and yield the port in use; 0 takes a free one.

    Raises ConfigError naming the port and the ``variable`` that sets it when it is in use.
    """
    listener = listening(host, port, variable=variable)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="off",
        http="h11",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16 * 1024,
        limit_concurrency=256,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        await server.is_up.wait()
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        try:
            await _ended(serving)
        finally:
            listener.close()


async def _ended(serving: asyncio.Task[None]) -> None:
    """Wait for the server's end, which STOP_S bounds, even while cancelled; then let the cancelling go on."""
    interruption: asyncio.CancelledError | None = None
    while not serving.done():
        try:
            await asyncio.wait([serving])
        except asyncio.CancelledError as error:
            interruption = error
    if interruption:
        raise interruption
