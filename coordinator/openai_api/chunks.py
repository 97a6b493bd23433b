"""One answer in OpenAI's JSON: the chunks of a stream, or the whole; pure."""

from __future__ import annotations

from typing import Any

import msgspec

from models.prompts import Usage

DONE = b"data: [DONE]\n\n"
"""What ends a stream."""
_encoder = msgspec.json.Encoder()


def event(payload: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + _encoder.encode(payload) + b"\n\n"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts of one answer repeat."""

    answer_id: str
    """"chatcmpl-..."."""
    created_s: int
    """Seconds since 1970."""
    model: str
    counts: bool = False
    """Whether a stream ends with the counts; its other chunks then say null."""

    def opened(self) -> bytes:
        """Return the first chunk: who speaks."""
        return self._chunk([_choice({"role": "assistant", "content": ""})])

    def said(self, text: str) -> bytes:
        """Return a chunk of text."""
        return self._chunk([_choice({"content": text})])

    def finished(self, reason: str) -> bytes:
        """Return the chunk that says why the answer ends."""
        return self._chunk([_choice({}, reason)])

    def counted(self, usage: Usage | None) -> bytes:
        """Return the chunk with the counts, null where the model told none; only for a client that wants them."""
        return self._chunk([], _usage(usage))

    def whole(self, text: str, reason: str, usage: Usage | None) -> bytes:
        """Return the answer in one object."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return _encoder.encode(self._frame("chat.completion", [choice]) | {"usage": _usage(usage)})

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        chunk = self._frame("chat.completion.chunk", choices)
        return event(chunk | {"usage": usage} if self.counts else chunk)

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "choices": choices,
        }


def finish_reason(usage: Usage | None, max_tokens: int) -> str:
    """Return "length" for an answer that used up its tokens, as far as its model counted, else "stop"."""
    return "length" if usage is not None and usage.completion_tokens >= max_tokens else "stop"


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _usage(usage: Usage | None) -> dict[str, int] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
