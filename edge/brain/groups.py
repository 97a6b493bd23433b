"""Groups of devices that are listened to differently: patient with children and the old, quick with a kitchen timer."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from edge.brain.segmenter import Endpointing
from models.errors import ConfigError


class DeviceGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices by the pattern of their ids, and their rules."""

    devices: str
    """A shell pattern of device ids, e.g. "aa:bb:*"; case does not matter."""
    endpointing: Endpointing = Endpointing()


def groups_from_json(text: str) -> tuple[DeviceGroup, ...]:
    """Return the groups of a JSON list, none for ""; raise ConfigError.

    E.g. ``[{"devices": "aa:bb:*", "endpointing": {"end_by": "silence", "end_silence_ms": 900}}]``.
    """
    if not text.strip():
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[DeviceGroup, ...])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"endpointing of device groups: {error}; a JSON list of devices and endpointing is needed"
        ) from error


def endpointing_of(device_id: str, groups: Sequence[DeviceGroup], otherwise: Endpointing) -> Endpointing:
    """Return the rules of the first group the device belongs to, else ``otherwise``."""
    return next((group.endpointing for group in groups if is_one_of(device_id, [group.devices])), otherwise)


def is_one_of(device_id: str, patterns: Sequence[str]) -> bool:
    """Return whether one of the shell patterns fits the device's id; case does not matter."""
    return any(fnmatchcase(device_id.lower(), pattern.lower()) for pattern in patterns)
