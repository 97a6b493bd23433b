"""The nouns of language: what is asked and how an answer arrives."""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a dialogue."""

    role: Role
    text: str


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that belongs to a question."""

    media_type: str
    """"image/jpeg" or "image/png"."""
    data: bytes


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A dialogue that wants its next answer; the last message is the user's, or the assistant's beginning of it, to go on from."""

    turn_id: str
    messages: tuple[Message, ...]
    device_id: str = ""
    language: str = ""
    """BCP-47 primary tag of the last message, "" when unknown."""
    images: tuple[Image, ...] = ()
    """What the last message shows."""
    is_private: bool = False
    """Whether the device's owner wants nothing of it to leave the edge."""
    max_tokens: int = 256
    budget_ms: int = 30_000
    """Milliseconds left for the whole answer, counted from when the receiver got the prompt."""

    @property
    def question(self) -> str:
        """Text of the last user message, "" when there is none."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class CompletionDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The next piece of an answer; pieces joined in order are the answer."""

    text: str
    model: str = ""
    """Name of the model that wrote it; "" inside a stream means the same as before."""
    usage: Usage | None = None
    """Set on the last delta by engines that count."""
    logprobs: tuple[float, ...] = ()
    """Natural log-probability of each token behind ``text`` before sampling changed it, by engines that tell; at most 0."""
    is_kept: bool = False
    """Set on the last delta of an answer that is remembered: others who ask the same are told the same words."""
