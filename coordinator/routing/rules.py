"""What is decided before any score: privacy, pictures, wishes that only one side can meet; pure."""

from __future__ import annotations

import msgspec

from coordinator.routing.wishes import asks_to_think, is_device_command, is_real_time
from coordinator.turns import Tier
from models.prompts import Prompt


class Rule(msgspec.Struct, frozen=True):
    """A decision that needs no score."""

    tier: Tier
    reason: str
    """"private", "picture", "real-time", "device-command" or "asked-to-think"."""
    needs_vision: bool = False


_PRIVATE = Rule(Tier.EDGE, "private")
_PICTURE = Rule(Tier.CLOUD, "picture", needs_vision=True)
_DEVICE_COMMAND = Rule(Tier.EDGE, "device-command")
_REAL_TIME = Rule(Tier.EDGE, "real-time")
_ASKED_TO_THINK = Rule(Tier.CLOUD, "asked-to-think")


def rule(prompt: Prompt, text: str) -> Rule | None:
    """Return the first rule that holds, None when the prompt is to be scored; ``text`` is its question as ``wording.plain`` leaves it."""
    if prompt.is_private:
        return _PRIVATE
    if prompt.images:
        return _PICTURE
    if is_device_command(text):
        return _DEVICE_COMMAND
    if is_real_time(text):
        return _REAL_TIME
    return _ASKED_TO_THINK if asks_to_think(text) else None
