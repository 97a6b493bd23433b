"""The body of a chat completion: from JSON to what is asked, or to a refusal that names the parameter; pure.

What becomes of OpenAI's parameters:

    honoured    model, messages, stream, stream_options.include_usage, max_tokens, max_completion_tokens, stop, and user,
                safety_identifier or prompt_cache_key: one name gets the same arm of a comparison and the same replica's prefix cache
    ignored     metadata, parallel_tool_calls, prompt_cache_retention, stream_options.include_obfuscation, a message's name,
                a picture's detail: the answer is right without them
    refused     unless null or what happens anyway (in brackets): temperature (1), top_p (1), n (1), presence_penalty (0),
                frequency_penalty (0), logit_bias ({}), logprobs (false), top_logprobs (0), seed, response_format (text), tools ([]),
                tool_choice (none, auto), functions ([]), function_call (none, auto), modalities (["text"]), audio, prediction,
                reasoning_effort, verbosity, web_search_options, store (false), service_tier (auto, default), moderation
    refused     every other name, for a slip of the pen must not change an answer unseen

A temperature cannot be honoured because a prompt on the road has none: every model answers with its own settings. Of messages the roles
system, developer, user and assistant are taken, with text; the last one must be the user's and may hold pictures (``pictures``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from coordinator import wire
from coordinator.openai_api.pictures import picture
from coordinator.openai_api.refusals import Refusal
from models.prompts import Image, Message, Prompt, Role

_OVERHEAD_BYTES = 1024
"""What a request on the bus holds besides its prompt, generously."""


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one request may hold."""

    body_bytes: int = 768 * 1024
    """Of the HTTP body: JSON escapes double Chinese text, base64 adds a third to pictures, and the bus takes 256 KiB of either."""
    messages: int = 256
    text_chars: int = 64_000
    """In all messages. Models with a shorter context refuse on their own."""
    pictures: int = 4
    max_tokens: int = 4096
    default_max_tokens: int = 1024
    stops: int = 4
    """OpenAI's own."""
    stop_chars: int = 128
    budget_ms: int = 120_000
    """For a whole answer; 4,096 tokens at 40 a second take 100 s."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants."""

    model: str
    prompt: Prompt
    is_streamed: bool = False
    wants_usage: bool = False
    """Whether a stream ends with the counts."""
    stops: tuple[str, ...] = ()


class _ImageUrl(msgspec.Struct):
    url: str
    detail: Any = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: _ImageUrl | None = None


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: Any = None
    audio: Any = None
    annotations: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None
    function_call: Any = None


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: Any = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    messages: list[_Said]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: Any = None
    parallel_tool_calls: Any = None
    prompt_cache_retention: Any = None
    temperature: Any = None
    top_p: Any = None
    n: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    seed: Any = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    store: Any = None
    service_tier: Any = None
    moderation: Any = None


NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "temperature": (1,),
    "top_p": (1,),
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "seed": (),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "moderation": (),
}
"""Parameters that are not honoured, with the values that ask for nothing; null always does."""

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_body = msgspec.json.Decoder(_Body)
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


class _RefusedError(ValueError):
    """Carries a refusal out of the parts of this module."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.refusal = Refusal(status=400, message=message, param=param, code=code)


def read_ask(body: bytes, turn_id: str, limits: RequestLimits) -> Ask | Refusal:
    """Return what the body asks; a refusal has status 400 and names the parameter."""
    try:
        said = _decoded(body)
        _check_neutral(said)
        prompt = _prompt(said, turn_id, limits)
        return Ask(
            model=said.model,
            prompt=prompt,
            is_streamed=bool(said.stream),
            wants_usage=bool(said.stream_options and said.stream_options.include_usage),
            stops=_stops(said.stop, limits),
        )
    except _RefusedError as error:
        return error.refusal


def _decoded(body: bytes) -> _Body:
    try:
        return _body.decode(body)
    except msgspec.ValidationError as error:
        raise _misshaped(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _RefusedError("the body is not JSON in UTF-8") from error


def _misshaped(reason: str) -> _RefusedError:
    """Return what is said of a body of the wrong shape: types and places, never values."""
    found = _PLACE.search(reason)
    place = found.group(1).replace("[...]", "") if found else ""
    what = reason[: found.start()] if found else reason
    if unknown := _UNKNOWN.search(what):
        name = unknown.group(1)[:64]
        param = f"{place}.{name}" if place else name
        return _RefusedError(f"{param} is not known here: leave it out", param, "unknown_parameter")
    if missing := _MISSING.search(what):
        param = f"{place}.{missing.group(1)}" if place else missing.group(1)
        return _RefusedError(f"{param} is missing", param, "missing_required_parameter")
    return _RefusedError(f"{place or 'the body'}: {what[:1].lower()}{what[1:]}", place or None, "invalid_type")


def _check_neutral(said: _Body) -> None:
    for name, neutral in NEUTRAL.items():
        value = getattr(said, name)
        if value is not None and not any((type(value) is not bool and value == one) or value is one for one in neutral):
            allowed = " or ".join(["null", *(msgspec.json.encode(one).decode() for one in neutral)])
            raise _RefusedError(
                f"{name} is not honoured here, so it may only be {allowed}: leave it out", name, "unsupported_parameter"
            )


def _prompt(said: _Body, turn_id: str, limits: RequestLimits) -> Prompt:
    messages, images = _dialogue(said.messages, limits)
    prompt = Prompt(
        turn_id=turn_id,
        messages=messages,
        device_id=_asker(said),
        images=images,
        max_tokens=_max_tokens(said, limits),
        budget_ms=limits.budget_ms,
    )
    if len(wire.encode(prompt)) > wire.MAX_PAYLOAD_BYTES - _OVERHEAD_BYTES:
        raise _RefusedError(
            f"text and pictures together are over the {wire.MAX_PAYLOAD_BYTES} bytes that a request to a model may hold",
            "messages",
            "context_length_exceeded",
        )
    return prompt


def _dialogue(said: list[_Said], limits: RequestLimits) -> tuple[tuple[Message, ...], tuple[Image, ...]]:
    """Return the messages, and the pictures of the last one."""
    if not 1 <= len(said) <= limits.messages:
        raise _RefusedError(f"messages must be 1 to {limits.messages}", "messages")
    read = [_message(one, f"messages[{place}]", limits) for place, one in enumerate(said)]
    for place, (_, shown) in enumerate(read[:-1]):
        if shown:
            param = f"messages[{place}].content"
            raise _RefusedError("only the last message may show pictures: leave those of earlier ones out", param)
    last, images = read[-1]
    if last.role != "user":
        raise _RefusedError(
            "the last message must be the user's: an answer begun elsewhere is not gone on with", "messages"
        )
    if not last.text.strip() and not images:
        raise _RefusedError("the last message asks nothing", f"messages[{len(read) - 1}].content")
    if sum(len(message.text) for message, _ in read) > limits.text_chars:
        raise _RefusedError(
            f"the messages hold more than {limits.text_chars} characters: shorten them",
            "messages",
            "context_length_exceeded",
        )
    return tuple(message for message, _ in read), images


def _message(said: _Said, param: str, limits: RequestLimits) -> tuple[Message, tuple[Image, ...]]:
    role = _ROLES.get(said.role)
    if role is None:
        raise _RefusedError(f"{param}.role must be one of {', '.join(_ROLES)}", f"{param}.role", "unsupported_value")
    for name in ("tool_calls", "tool_call_id", "function_call", "audio", "refusal"):
        if getattr(said, name):
            raise _RefusedError(
                f"{param}.{name} is not taken: there are no tools here", f"{param}.{name}", "unsupported_parameter"
            )
    if said.content is None:
        raise _RefusedError(f"{param}.content is missing", f"{param}.content", "missing_required_parameter")
    if isinstance(said.content, str):
        return Message(role=role, text=said.content), ()
    return _parts(said.content, role, f"{param}.content", limits)


def _parts(parts: list[_Part], role: Role, param: str, limits: RequestLimits) -> tuple[Message, tuple[Image, ...]]:
    texts: list[str] = []
    images: list[Image] = []
    for place, part in enumerate(parts):
        where = f"{param}[{place}]"
        if part.type == "text" and part.text is not None:
            texts.append(part.text)
        elif part.type == "image_url" and part.image_url is not None and role == "user":
            shown = picture(part.image_url.url, wire.MAX_PAYLOAD_BYTES - _OVERHEAD_BYTES)
            if isinstance(shown, str):
                raise _RefusedError(f"{where}.image_url.url: {shown}", f"{where}.image_url.url", "invalid_image")
            images.append(shown)
        else:
            raise _RefusedError(
                f"{where} must be text, or a picture of the user's as image_url", where, "unsupported_value"
            )
    if len(images) > limits.pictures:
        raise _RefusedError(f"{param} has more than {limits.pictures} pictures", param)
    return Message(role=role, text="\n".join(texts)), tuple(images)


def _max_tokens(said: _Body, limits: RequestLimits) -> int:
    """Return the longest answer wanted; the new name of the parameter counts when both are there."""
    name = "max_completion_tokens" if said.max_completion_tokens is not None else "max_tokens"
    wanted = getattr(said, name)
    if wanted is None:
        return limits.default_max_tokens
    if not 1 <= wanted <= limits.max_tokens:
        raise _RefusedError(f"{name} must be 1 to {limits.max_tokens}", name)
    return int(wanted)


def _stops(stop: str | list[str] | None, limits: RequestLimits) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > limits.stops or any(not 1 <= len(one) <= limits.stop_chars for one in stops):
        raise _RefusedError(f"stop must be at most {limits.stops} texts of 1 to {limits.stop_chars} characters", "stop")
    return stops


def _asker(said: _Body) -> str:
    """Return a name for whoever asks that tells nothing of them, "" when the client gives none."""
    name = said.prompt_cache_key or said.safety_identifier or said.user or ""
    return f"api-{hashlib.sha256(name.encode()).hexdigest()[:16]}" if name else ""
