"""The door for what devices' cameras see: a picture and a question in, the answer out as the JSON that firmware reads.

It stands in the process of the brain, for there the hierarchy is that answers, and a picture need not cross the seam; the gateway only
tells devices the address (``vision_tokens``). Firmware takes status 200 only and hands the body on as it is, so whatever its person
should hear comes with 200: ``{"success": true, "result": ...}`` or ``{"success": false, "message": ...}``. Other statuses are for what
no device of ours sends. Pictures, questions and answers are neither logged nor remembered.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coordinator.probes import read_body, unless_gone
from coordinator.wire import MAX_PAYLOAD_BYTES
from edge.gateway.admission import Caller, caller
from edge.gateway.vision_tokens import VisionTokens
from edge.gateway.vision_upload import Upload, read_upload
from edge.gateway.vision_words import SYSTEM_PROMPTS, language_of, told
from models.engines import Completer
from models.errors import CompletionError, DeadlineError, DeviceAuthError, DeviceProtocolError
from models.prompts import Image, Message, Prompt

_log = structlog.get_logger()

PATHS = ("/xiaozhi/vision/", "/xiaozhi/vision")
"""With and without the last slash: firmware follows no redirect."""
MAX_BODY_BYTES = 1024 * 1024
"""Read whole before anything is said, or a device might miss the answer; cameras of devices stay below."""
MAX_PICTURE_BYTES = MAX_PAYLOAD_BYTES - 16 * 1024
"""What the road to the cloud carries beside a question; a picture of 640 x 480 has 30 to 90 kB."""
MAX_ANSWER_CHARS = 4_000
"""A device hands the answer on in a message of 8 kB at most (protocol §4.1); a character may take three bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionLimits:
    """What may differ between deployments."""

    uploads: int = 8
    """Pictures under way at once, one of each device; 8 MiB at most."""
    upload_s: float = 15.0
    """How long a picture may take to come; 100 kB over a bad Wi-Fi take seconds."""
    answer_s: float = 20.0
    """How long the answer may take; firmware waits 30 s (protocol §2.1)."""
    max_tokens: int = 128


def _ignore(_result: str) -> None:
    """Observe nothing."""


class Vision:
    """The door; put ``routes`` into an application that devices can reach.

    ``completer`` must be one that sends pictures to a model that sees, or fails. ``is_private`` says whether nothing of a device may
    leave this node; ``observe`` hears how each upload ended: "answered", an error's code, "private", "busy", "gone", or a status.
    """

    def __init__(
        self,
        completer: Completer,
        tokens: VisionTokens,
        *,
        is_private: Callable[[str], bool] = lambda _device_id: False,
        limits: VisionLimits | None = None,
        language: str = "zh",
        observe: Callable[[str], None] = _ignore,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``language`` is that of questions that do not show theirs."""
        self._completer = completer
        self._tokens = tokens
        self._is_private = is_private
        self._limits = limits or VisionLimits()
        self._language = language
        self._observe = observe
        self._now = now
        self._under_way: set[str] = set()

    @property
    def routes(self) -> list[Route]:
        """Where cameras post."""
        return [Route(path, self.explain, methods=["POST"]) for path in PATHS]

    @property
    def uploads(self) -> int:
        """Pictures under way."""
        return len(self._under_way)

    async def explain(self, request: Request) -> Response:
        """Answer one upload; an upload whose device hangs up ends at once."""
        try:
            who = _caller(request)
            self._tokens.check(who.device_id, who.client_id, who.token)
        except DeviceProtocolError as error:
            return self._refused(400, str(error))
        except DeviceAuthError as error:
            return self._refused(401, str(error))
        if len(self._under_way) >= self._limits.uploads or who.device_id in self._under_way:
            self._observe("busy")
            return _answer(503, success=False, message=told("busy", self._language))
        self._under_way.add(who.device_id)
        try:
            return await self._taken(request, who)
        finally:
            self._under_way.discard(who.device_id)

    async def _taken(self, request: Request, who: Caller) -> Response:
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        if self._is_private(who.device_id):
            return self._turned_down("private", self._language)
        try:
            upload = read_upload(request.headers.get("content-type", ""), body)
        except DeviceProtocolError as error:
            return self._refused(400, str(error))
        language = language_of(upload.question, self._language)
        if len(upload.jpeg) > MAX_PICTURE_BYTES:
            return self._turned_down("too-large", language)
        answer = await unless_gone(request.receive, self._answered(upload, who, language), name="photo")
        if answer is None:
            self._observe("gone")
        return answer or Response()

    async def _body(self, request: Request) -> bytes | Response:
        try:
            async with asyncio.timeout(self._limits.upload_s):
                body = await read_body(request, MAX_BODY_BYTES)
        except TimeoutError:
            return self._refused(408, "the picture did not come in time")
        if body is None:
            return self._refused(413, f"the body is over {MAX_BODY_BYTES} bytes, or did not come to its end")
        return body

    async def _answered(self, upload: Upload, who: Caller, language: str) -> Response:
        began_s, code = self._now(), "answered"
        try:
            text = await self._asked(self._prompt(upload, who.device_id, language))
        except CompletionError as error:
            text, code = "", error.code
        _log.info(
            "photo-answered",
            device_id=who.device_id,
            size_bytes=len(upload.jpeg),
            width=upload.size.width,
            height=upload.size.height,
            code=code,
            took_ms=round((self._now() - began_s) * 1000),
        )
        if not text:
            return self._turned_down(code if code != "answered" else CompletionError.code, language)
        self._observe("answered")
        return _answer(200, success=True, result=text[:MAX_ANSWER_CHARS])

    async def _asked(self, prompt: Prompt) -> str:
        """Return the whole answer; raise CompletionError for a part of one too."""
        try:
            async with asyncio.timeout(self._limits.answer_s), aclosing(self._completer.complete(prompt)) as deltas:
                return "".join([delta.text async for delta in deltas]).strip()
        except TimeoutError as error:
            raise DeadlineError("no answer about the picture in time") from error

    def _prompt(self, upload: Upload, device_id: str, language: str) -> Prompt:
        return Prompt(
            turn_id=f"photo-{uuid.uuid4().hex}",
            messages=(
                Message(role="system", text=SYSTEM_PROMPTS[language]),
                Message(role="user", text=upload.question),
            ),
            device_id=device_id,
            language=language,
            images=(Image(media_type="image/jpeg", data=upload.jpeg),),
            max_tokens=self._limits.max_tokens,
            budget_ms=int(self._limits.answer_s * 1000),
        )

    def _turned_down(self, code: str, language: str) -> Response:
        """Say politely why there is no answer."""
        self._observe(code)
        return _answer(200, success=False, message=told(code, language))

    def _refused(self, status: int, message: str) -> Response:
        self._observe(str(status))
        return _answer(status, success=False, message=message)


def _answer(status: int, **said: object) -> Response:
    return JSONResponse(said, status)


def _caller(request: Request) -> Caller:
    headers = request.headers
    return caller(headers.getlist("Device-Id"), headers.getlist("Client-Id"), headers.getlist("Authorization"), [])
