"""The HTTP side: POST /v1/chat/completions and GET /v1/models."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from coordinator.openai_api.access import Access
from coordinator.openai_api.answering import Answering
from coordinator.openai_api.choice import candidates, models
from coordinator.openai_api.chunks import Form
from coordinator.openai_api.opening import Opener, Speaking
from coordinator.openai_api.refusals import Refusal
from coordinator.openai_api.request import Ask, RequestLimits, read_ask
from coordinator.pools import Pools
from coordinator.probes import read_body
from coordinator.routing.policy import Conditions, Policy
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision
from models.engines import Completer

_log = structlog.get_logger()

MAX_RUNNING = 64
"""Requests taken in at once; the pools have their own limits. A guess."""
BODY_S = 10.0
"""How long a body may take to come."""
OWNER = "xiaozhi-fleet"
_NO_BODY, _TOO_LARGE, _TOO_SLOW = 415, 413, 408


def _ignore(_pool: str, _result: str) -> None:
    """Observe nothing."""


class OpenAIApi:
    """The endpoint over the ways to the pools; put ``routes`` into the application.

    Without ``api_keys`` only this machine itself may ask (``access``). ``observe`` hears of each request the pool that spoke ("" for none)
    and the result: "answered", "client-gone", an error's code or "refused".
    """

    def __init__(
        self,
        clouds: Mapping[str, Completer],
        router: Router,
        *,
        api_keys: Collection[str] = (),
        vision_pools: Collection[str] = (),
        limits: RequestLimits | None = None,
        max_running: int = MAX_RUNNING,
        conditions: Callable[[], Conditions] = Conditions,
        observe: Callable[[str, str], None] = _ignore,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``clouds`` has a way to each pool on offer, ``vision_pools`` names those that take pictures beside the policy's own.

        ``now`` is seconds since 1970.
        """
        self.running = 0
        """Requests under way."""
        self._pools = Pools(clouds)
        self._names = tuple(clouds)
        self._router = router
        self._opener = Opener(self._pools, router.charge)
        self._access = Access(api_keys)
        self._vision_pools = frozenset(vision_pools)
        self._limits = limits or RequestLimits()
        self._max_running = max_running
        self._conditions = conditions
        self._observe = observe
        self._now = now
        self._began_s = int(now())

    @property
    def routes(self) -> list[Route]:
        """The two paths official clients use, and the one model by its name."""
        return [
            Route("/v1/chat/completions", _Endpoint(self.complete), methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model}", self.model, methods=["GET"]),
        ]

    async def models(self, request: Request) -> Response:
        """List what ``model`` may be."""
        if refusal := self._at_the_door(request):
            return _refused(refusal)
        return _json({"object": "list", "data": [self._described(name) for name in models(self._names)]})

    async def model(self, request: Request) -> Response:
        """Describe one model."""
        if refusal := self._at_the_door(request):
            return _refused(refusal)
        name = request.path_params["model"]
        if name in models(self._names):
            return _json(self._described(name))
        message = f"there is no such model: take one of {', '.join(models(self._names))}"
        return _refused(Refusal(status=404, message=message, param="model", code="model_not_found"))

    async def complete(self, request: Request, receive: Receive, send: Send) -> Response | None:
        """Answer a chat completion through ``send``; return the response to send when not a word was."""
        refusal = self._at_the_door(request) or self._not_now(request)
        if refusal is None:
            self.running += 1
            try:
                refusal = await self._answer(request, receive, send)
            finally:
                self.running -= 1
        if refusal is None:
            return None
        return _refused(refusal)

    async def _answer(self, request: Request, receive: Receive, send: Send) -> Refusal | None:
        asked = await self._asked(request)
        if isinstance(asked, Refusal):
            return self._turned_away(asked)
        policy = self._router.policy_for(asked.prompt.device_id)
        steps = self._steps(asked, policy)
        if isinstance(steps, Refusal):
            return self._turned_away(steps)

        async def opening(stack: AsyncExitStack) -> Speaking:
            return await self._opener.speaking(steps, asked.prompt, policy.first_token_ms / 1000, stack)

        form = Form(
            answer_id=f"chatcmpl-{asked.prompt.turn_id.removeprefix('api-')}",
            created_s=int(self._now()),
            model=asked.model,
            counts=asked.wants_usage,
        )
        answering = Answering(asked, form, send)
        try:
            return await answering.run(opening, receive)
        finally:
            pool = answering.decision.pool if answering.decision else ""
            self._observe(pool, answering.result)
            _log.info("api_answered", turn=asked.prompt.turn_id, pool=pool, result=answering.result)

    def _steps(self, asked: Ask, policy: Policy) -> tuple[RoutingDecision, ...] | Refusal:
        conditions = self._conditions()
        closed = conditions.closed_pools | self._pools.closed(policy)
        conditions = replace(conditions, closed_pools=closed)
        return candidates(asked, self._router, self._names, conditions, self._vision_pools)

    async def _asked(self, request: Request) -> Ask | Refusal:
        limits = self._limits
        try:
            async with asyncio.timeout(BODY_S):
                body = await read_body(request, limits.body_bytes)
        except TimeoutError:
            return Refusal(status=_TOO_SLOW, message=f"the body did not come within {BODY_S:g} s", code="too_slow")
        if body is None:
            message = f"the body is over {limits.body_bytes} bytes"
            return Refusal(status=_TOO_LARGE, message=message, code="request_too_large")
        return read_ask(body, f"api-{uuid.uuid4().hex}", limits)

    def _at_the_door(self, request: Request) -> Refusal | None:
        return self._access.refusal(request.headers, request.client.host if request.client else "")

    def _not_now(self, request: Request) -> Refusal | None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return Refusal(
                status=_NO_BODY, message="send Content-Type: application/json", code="unsupported_media_type"
            )
        if self.running < self._max_running:
            return None
        message = f"{self.running} requests are under way, {self._max_running} are taken in: try again in a moment"
        return self._turned_away(Refusal(status=429, message=message, type="rate_limit_error", code="llm-overloaded"))

    def _turned_away(self, refusal: Refusal) -> Refusal:
        self._observe("", "refused")
        return refusal

    def _described(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._began_s, "owned_by": OWNER}


class _Endpoint:
    """An ASGI application of one path that may answer by itself or return a response to send."""

    def __init__(self, serve: Callable[[Request, Receive, Send], Awaitable[Response | None]]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._serve(Request(scope, receive), receive, send)
        if response is not None:
            await response(scope, receive, send)


def _refused(refusal: Refusal) -> Response:
    return _json(refusal.body, refusal.status, refusal.headers)


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers=headers, media_type="application/json")
