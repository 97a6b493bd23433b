"""What is decided before any score: privacy, pictures, wishes that only one side can meet; pure."""

from __future__ import annotations

import msgspec

from coordinator.routing.signals import Signals
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


def rule(prompt: Prompt, signals: Signals) -> Rule | None:
    """Return the first rule that holds, None when the prompt is to be scored; ``signals`` must be read from ``prompt``."""
    if prompt.is_private:
        return _PRIVATE
    if prompt.images:
        return _PICTURE
    if signals.is_device_command:
        return _DEVICE_COMMAND
    if signals.is_real_time:
        return _REAL_TIME
    return _ASKED_TO_THINK if signals.asks_to_think else None
