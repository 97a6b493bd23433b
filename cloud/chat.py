"""A prompt as the body of an OpenAI chat completion."""

from __future__ import annotations

import base64
from typing import Any

from models.errors import CompletionError
from models.prompts import Image, Message, Prompt

MEDIA_TYPES = frozenset({"image/jpeg", "image/png"})


class PromptRefusedError(Exception):
    """Stands behind a CompletionError that is the prompt's fault: no replica would answer it."""


def chat(prompt: Prompt, model: str, *, has_vision: bool) -> dict[str, Any]:
    """Return the body; raise CompletionError, by PromptRefusedError, for pictures the model does not see."""
    messages: list[dict[str, Any]] = [{"role": message.role, "content": message.text} for message in prompt.messages]
    if prompt.images:
        asked = _question_index(prompt.messages)
        _check_images(prompt.images, model, has_vision=has_vision and asked is not None)
        if asked is not None:
            messages[asked]["content"] = _parts(prompt.messages[asked].text, prompt.images)
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": prompt.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if prompt.messages and prompt.messages[-1].role == "assistant":  # the beginning of the answer, to go on from
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body


def is_prompts_fault(error: CompletionError) -> bool:
    """Whether every other replica would say the same to this prompt."""
    return isinstance(error.__cause__, PromptRefusedError)


def _question_index(messages: tuple[Message, ...]) -> int | None:
    return next((index for index in reversed(range(len(messages))) if messages[index].role == "user"), None)


def _check_images(images: tuple[Image, ...], model: str, *, has_vision: bool) -> None:
    if not has_vision:
        raise CompletionError(f"{model} takes no pictures with this prompt") from PromptRefusedError()
    for image in images:
        if image.media_type not in MEDIA_TYPES or not image.data:
            raise CompletionError("a picture is no JPEG or PNG") from PromptRefusedError()


def _parts(text: str, images: tuple[Image, ...]) -> list[dict[str, Any]]:
    """Return the pictures, then the question about them, as vision models are trained on."""
    urls = (f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}" for image in images)
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*pictures, {"type": "text", "text": text}]
