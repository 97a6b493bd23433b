"""An OpenAI-compatible server as a Completer: prompts to streaming chat completions over HTTP."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Self

import httpx
import msgspec

from coordinator.bus import without_password
from models.errors import CloudUnreachableError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Prompt, Usage

CONNECT_S = 2.0
"""A replica on the same network that does not accept by then is away."""
MAX_LINE_CHARS = 256 * 1024
"""One server-sent event is a few hundred characters; a line that never ends must not fill the memory."""
MAX_ANSWER_CHARS = 16 * 1024
"""Several minutes of speech; a model that never stops is cut here."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""What JSON numbers hold exactly; one over 64 bits could not be sent on."""
_TOO_MANY = 429
_UNAVAILABLE = 503


class _Piece(msgspec.Struct, frozen=True):
    content: str | None = None


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

    def __init__(self, first_token_s: float, stall_s: float) -> None:
        self.until_s = asyncio.get_running_loop().time() + first_token_s
        self._first_token_s = first_token_s
        self._stall_s = stall_s
        self._has_begun = False

    def renew(self) -> None:
        """Note that a token came; what only shows that the server lives is none."""
        self.until_s = asyncio.get_running_loop().time() + self._stall_s
        self._has_begun = True

    def over(self) -> CompletionError:
        """Return what to raise when the time is over."""
        if self._has_begun:
            return CloudUnreachableError(f"upstream: it stalled for {self._stall_s:g} s")
        return DeadlineError(f"upstream: no first token within {self._first_token_s:g} s")


_event = msgspec.json.Decoder(_Event)
_DONE = _Event(choices=[_Choice(finish_reason="stop")])
"""What ``[DONE]`` stands for; some servers give no other reason."""


class OpenAIUpstream:
    """A Completer over POST /v1/chat/completions; open it with ``connect``."""

    def __init__(
        self, client: httpx.AsyncClient, model: str, *, first_token_s: float = 20.0, stall_s: float = 10.0
    ) -> None:
        self._client = client
        self._model = model
        self._first_token_s = first_token_s
        self._stall_s = stall_s

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, base_url: str, model: str, *, api_key: str = "", first_token_s: float = 20.0, stall_s: float = 10.0
    ) -> AsyncGenerator[Self, None]:
        """Open a pool of connections to ``base_url``, with or without /v1; raise ConfigError when that is no address."""
        async with _client(base_url, api_key) as client:
            yield cls(client, model, first_token_s=first_token_s, stall_s=stall_s)

    async def is_ready(self) -> bool:
        """Whether the server lists its models."""
        try:
            async with asyncio.timeout(CONNECT_S):
                return (await self._client.get("/v1/models")).status_code == httpx.codes.OK
        except (httpx.HTTPError, TimeoutError):
            return False

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer; closing it closes the HTTP stream, on which the server aborts.

        Raises OverloadedError (429, 503), CloudUnreachableError (no connection, cut, stalled), DeadlineError (no first token in
        time) or CompletionError (anything else it answers).
        """
        body = {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.text} for message in prompt.messages],
            "max_tokens": prompt.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.messages and prompt.messages[-1].role == "assistant":  # the beginning of the answer, to go on from
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        try:
            async with aclosing(self._stream(body)) as deltas:
                async for delta in deltas:
                    yield delta
        except httpx.HTTPError as error:
            raise CloudUnreachableError(f"upstream: {type(error).__name__}") from error

    async def _stream(self, body: dict[str, Any]) -> AsyncGenerator[CompletionDelta, None]:
        request = self._client.build_request("POST", "/v1/chat/completions", json=body)
        patience = _Patience(self._first_token_s, self._stall_s)
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
                    is_over = is_over or choice.finish_reason is not None
                    text = (choice.delta.content or "")[: MAX_ANSWER_CHARS - said]
                    said += len(text)
                    if text:
                        yield CompletionDelta(text=text, model=self._model)
                        patience.renew()  # after it, for the reader's time does not count
                if said == MAX_ANSWER_CHARS:
                    return
        if not is_over:
            raise CloudUnreachableError("upstream: the stream ended before the answer did")
        yield CompletionDelta(text="", usage=usage)


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


def _client(base_url: str, api_key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    wrong = f"the upstream's address {without_password(base_url)!r} is none: write http://host:port"
    try:
        url = httpx.URL(base_url.rstrip("/").removesuffix("/v1"))
        client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=timeout,
            limits=limits,
            trust_env=False,
            verify=url.scheme == "https",  # else certificates are read for nothing
        )
    except httpx.InvalidURL as error:
        raise ConfigError(wrong) from error
    except UnicodeEncodeError:  # not from it: that one repeats the key
        raise ConfigError("the upstream's API key holds characters that are not ASCII") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(wrong)
    return client


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
    if status != httpx.codes.OK:
        raise CompletionError(f"upstream: it answered {status}")
