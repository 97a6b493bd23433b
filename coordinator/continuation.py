"""An answer begun by one model and ended by another: the prompt that hands it over; pure."""

from __future__ import annotations

from msgspec.structs import replace

from models.prompts import Message, Prompt


def continued(prompt: Prompt, begun: str, left_s: float) -> Prompt:
    """Return the prompt with the beginning of its answer as a last message of the assistant's, and ``left_s`` to answer.

    A completer writes on from there and repeats none of it. ``begun`` may be "".
    """
    messages = prompt.messages
    if begun and messages[-1].role == "assistant":
        begun = messages[-1].text + begun
        messages = messages[:-1]
    if begun:
        messages = (*messages, Message(role="assistant", text=begun))
    return replace(prompt, messages=messages, budget_ms=max(round(left_s * 1000), 1))
