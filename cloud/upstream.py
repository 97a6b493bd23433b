"""An OpenAI-compatible server as a Completer: prompts to streaming chat completions over HTTP."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Self

import httpx
import msgspec

from cloud.chat import PromptRefusedError, chat
from cloud.connections import Connections
from cloud.vllm_metrics import MAX_METRICS_BYTES, Figures, parse
from coordinator.bus import without_password
from models.errors import CloudUnreachableError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Prompt, Usage

CONNECT_S = 2.0
"""A replica on the same network that does not accept by then is away."""
PROBE_S = 0.75
"""A replica that says nothing for so long is silent; two silent probes are noticed within 3 s."""
END_S = 0.05
"""How long the end of the stream may come after the end of the answer before the connection is given up; a guess."""
SPARE_CONNECTIONS = 4
"""Beyond one for each request: probes, and answers that were just stopped."""
METRICS_AGAIN = 30
"""A server without figures is asked for them at every so many probes."""
MAX_LINE_CHARS = 256 * 1024
"""One server-sent event is a few hundred characters; a line that never ends must not fill the memory."""
MAX_ANSWER_CHARS = 16 * 1024
"""Several minutes of speech; a model that never stops is cut here."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""What JSON numbers hold exactly; one over 64 bits could not be sent on."""
_TOO_MANY = 429
_UNAVAILABLE = 503
_PROMPTS_FAULT = frozenset({400, 413, 422})
"""Statuses with which a server refuses what was asked, as a prompt that is too long, and would again."""
_TOOL_CALL = "<tool_call>"
"""One token in Qwen's vocabulary; what follows is for machines, and nobody offered a tool."""


class _Piece(msgspec.Struct, frozen=True):
    content: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Piece = _Piece()
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0


class _Event(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None
    object: str = ""


class _Patience:
    """Until when the next token must have come, on the loop's clock: the first and the later ones have times of their own."""

    def __init__(self, first_token_s: float, stall_s: float, budget_s: float) -> None:
        began_s = asyncio.get_running_loop().time()
        self._over_s = began_s + budget_s
        self.until_s = min(began_s + first_token_s, self._over_s)
        self._first_token_s = min(first_token_s, budget_s)
        self._stall_s = stall_s
        self._has_begun = False

    def renew(self) -> None:
        """Note that a token came; what only shows that the server lives is none."""
        self.until_s = min(asyncio.get_running_loop().time() + self._stall_s, self._over_s)
        self._has_begun = True

    def over(self) -> CompletionError:
        """Return what to raise when the time is over."""
        if self._has_begun and self.until_s == self._over_s:
            return DeadlineError("upstream: the budget ran out before the answer did")
        if self._has_begun:
            return CloudUnreachableError(f"upstream: it stalled for {self._stall_s:g} s")
        return DeadlineError(f"upstream: no first token within {self._first_token_s:g} s")


_event = msgspec.json.Decoder(_Event)
_ABORTED = "abort"
"""vLLM's reason when the engine drops a request, as it does when it is stopped."""
_DONE = _Event(choices=[_Choice(finish_reason="stop")])
"""What ``[DONE]`` stands for; some servers give no other reason."""


class OpenAIUpstream:
    """A Completer over POST /v1/chat/completions; open it with ``connect``."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        model: str,
        *,
        has_vision: bool = False,
        first_token_s: float = 20.0,
        stall_s: float = 10.0,
    ) -> None:
        self._client = client
        self._model = model
        self._has_vision = has_vision
        self._without_metrics = 0
        self._first_token_s = first_token_s
        self._stall_s = stall_s

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        has_vision: bool = False,
        max_running: int = 64,
        first_token_s: float = 20.0,
        stall_s: float = 10.0,
    ) -> AsyncGenerator[Self, None]:
        """Open connections for ``max_running`` requests at once to ``base_url``, with or without /v1; raise ConfigError when that is no address."""
        async with _client(base_url, api_key, max_running + SPARE_CONNECTIONS) as client:
            yield cls(client, model, has_vision=has_vision, first_token_s=first_token_s, stall_s=stall_s)

    async def probe(self) -> Figures | None:
        """Return what the server says of its work, None when it lists its models but tells no figures.

        Raises DeadlineError when nothing came within ``PROBE_S`` and CloudUnreachableError when it is away or answered with an error.
        """
        try:
            async with asyncio.timeout(PROBE_S):
                figures = await self._figures()
                if figures is None:
                    await self._list_models()
                return figures
        except (TimeoutError, httpx.TimeoutException) as error:
            raise DeadlineError(f"upstream: no answer to a probe within {PROBE_S:g} s") from error
        except (httpx.HTTPError, OSError) as error:
            raise CloudUnreachableError(f"upstream: {type(error).__name__}") from error

    async def _figures(self) -> Figures | None:
        if self._without_metrics % METRICS_AGAIN:
            self._without_metrics += 1
            return None
        page = b""
        async with self._client.stream("GET", "/metrics") as response:
            if response.status_code == httpx.codes.OK:
                chunks = response.aiter_bytes()
                async for chunk in chunks:
                    page += chunk
                    if len(page) > MAX_METRICS_BYTES:
                        page = b""
                        break
                await _closed(response, chunks)
        figures = parse(page.decode("utf-8", "replace"))
        self._without_metrics = 0 if figures else self._without_metrics + 1
        return figures

    async def _list_models(self) -> None:
        status = (await self._client.get("/v1/models")).status_code
        if status != httpx.codes.OK:
            raise CloudUnreachableError(f"upstream: it answered {status}")

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer; closing it closes the HTTP stream, on which the server aborts.

        Raises OverloadedError (429, 503), CloudUnreachableError (no connection, cut, stalled), DeadlineError (no first token in
        time, or the prompt's budget is over) or CompletionError (anything else it answers; see ``is_prompts_fault``).
        """
        patience = _Patience(self._first_token_s, self._stall_s, prompt.budget_ms / 1000)
        body = chat(prompt, self._model, has_vision=self._has_vision)
        try:
            async with aclosing(self._stream(body, patience)) as deltas:
                async for delta in deltas:
                    yield delta
        except (httpx.HTTPError, OSError) as error:  # OSError: TLS that breaks inside a stream
            raise CloudUnreachableError(f"upstream: {type(error).__name__}") from error

    async def _stream(self, body: dict[str, Any], patience: _Patience) -> AsyncGenerator[CompletionDelta, None]:
        request = self._client.build_request("POST", "/v1/chat/completions", json=body)
        try:
            async with asyncio.timeout_at(patience.until_s):
                response = await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise patience.over() from error
        chunks = aiter(response.aiter_bytes())
        try:
            _check_status(response)
            async with aclosing(self._deltas(_lines(chunks, patience), patience)) as deltas:
                async for delta in deltas:
                    yield delta
            await _ended(chunks)
        finally:
            await _closed(response, chunks)

    async def _deltas(
        self, lines: AsyncGenerator[str, None], patience: _Patience
    ) -> AsyncGenerator[CompletionDelta, None]:
        said, usage, is_over = 0, None, False
        async with aclosing(_events(lines)) as events:
            async for event in events:
                if event.error is not None or event.object == "error":
                    raise CompletionError("upstream: it reported an error inside the stream")
                if event.usage is not None:
                    usage = Usage(
                        prompt_tokens=event.usage.prompt_tokens, completion_tokens=event.usage.completion_tokens
                    )
                for choice in event.choices[:1]:
                    is_over = _is_last(choice) or is_over
                    text = _text(choice.delta)[: MAX_ANSWER_CHARS - said]
                    said += len(text)
                    if text:
                        yield CompletionDelta(text=text, model=self._model)
                        patience.renew()  # after it, for the reader's time does not count
                if said == MAX_ANSWER_CHARS:
                    return
        if not is_over:
            raise CloudUnreachableError("upstream: the stream ended before the answer did")
        yield CompletionDelta(text="", usage=usage)


def _is_last(choice: _Choice) -> bool:
    if choice.finish_reason == _ABORTED:
        raise CloudUnreachableError("upstream: it gave the answer up")
    return choice.finish_reason is not None


def _text(piece: _Piece) -> str:
    text = piece.content or ""
    if piece.tool_calls or _TOOL_CALL in text:
        raise CompletionError("upstream: it called a tool, and none was offered")
    return text


async def _events(lines: AsyncGenerator[str, None]) -> AsyncGenerator[_Event, None]:
    """Yield server-sent events until ``[DONE]`` or the end of the stream."""
    async with aclosing(lines):
        async for line in lines:
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                yield _DONE
                return
            try:
                event = _event.decode(data)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise CompletionError(f"upstream: an event of {len(data)} characters is not one") from error
            yield event


async def _lines(chunks: AsyncIterator[bytes], patience: _Patience) -> AsyncGenerator[str, None]:
    """Yield lines without their ends; raise what ``patience`` says when it is over."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while True:
        try:
            async with asyncio.timeout_at(patience.until_s):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise patience.over() from error
        if chunk is None:
            break
        rest += decoder.decode(chunk)
        *lines, rest = rest.split("\n")
        if len(rest) > MAX_LINE_CHARS:
            raise CompletionError(f"upstream: a line is longer than {MAX_LINE_CHARS} characters")
        for line in lines:
            yield line.rstrip("\r")
    yield rest


def _client(base_url: str, api_key: str, max_connections: int) -> httpx.AsyncClient:
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    timeout = httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S)
    wrong = f"the upstream's address {without_password(base_url)!r} is none: write http://host:port"
    try:
        url = httpx.URL(base_url.rstrip("/").removesuffix("/v1"))
        client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=timeout,
            trust_env=False,
            transport=Connections(
                max_busy=max_connections,
                ssl_context=httpx.create_ssl_context(trust_env=False) if url.scheme == "https" else None,
            ),
        )
    except httpx.InvalidURL as error:
        raise ConfigError(wrong) from error
    except UnicodeEncodeError:  # not from it: that one repeats the key
        raise ConfigError("the upstream's API key holds characters that are not ASCII") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(wrong)
    return client


async def _ended(chunks: AsyncIterator[bytes]) -> None:
    """Read what comes after the answer, the end of the last chunk, so that the connection can be used again."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(END_S):
            async for _ in chunks:
                pass


async def _closed(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Close the connection, then run the library's nested generators to their end, or the loop would in tasks nobody owns."""
    await response.aclose()
    with suppress(httpx.HTTPError, httpx.StreamError):
        async for _ in chunks:
            pass


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in {_TOO_MANY, _UNAVAILABLE}:
        raise OverloadedError(f"upstream: it is full ({status})")
    if status in _PROMPTS_FAULT:
        raise CompletionError(f"upstream: it answered {status}") from PromptRefusedError()
    if status != httpx.codes.OK:
        raise CompletionError(f"upstream: it answered {status}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise CompletionError("upstream: it packed its answer, though asked not to")
