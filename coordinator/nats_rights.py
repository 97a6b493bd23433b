"""Who may say and hear what on NATS: one account for the fleet, a key for each process, rights by its role; pure.

An edge's leaf dials the hub with the edge's key, and the hub holds every message and every subscription of that leaf to the edge's rights.
So a stolen key speaks as that edge alone, hears that edge's answers alone, and what gateway and brain say to each other never leaves the
site: nobody on the hub has a right to it. All are in one account, since rights say all that separate accounts would say, without exports.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from coordinator.wire import FORECAST_BUCKET, POLICY_BUCKET, TURN_STREAM, USAGE_STREAM, token
from models.errors import ConfigError

DOMAIN = "hub"
"""JetStream domain of the hub, as its configuration names it."""
ACCOUNT = "FLEET"


class Role(StrEnum):
    """What a key is for."""

    EDGE = "edge"
    CLOUD = "cloud"
    COORDINATOR = "coordinator"
    OPERATOR = "operator"
    """A person at the command line."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """Subjects with NATS's wildcards."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


_STREAM_APIS = (f"$JS.{DOMAIN}.API", "$JS.API")
"""As it is asked through a leaf, and what the hub makes of it before it looks at the rights of who is connected to it."""


def _reads(*streams: str) -> tuple[str, ...]:
    return tuple(
        f"{api}.{what}.{stream}"
        for api in _STREAM_APIS
        for what in ("CONSUMER.CREATE", "STREAM.INFO")
        for stream in streams
    )


_POLICY = f"KV_{POLICY_BUCKET}"
_FORECAST = f"KV_{FORECAST_BUCKET}"
_FORECASTS = (
    *_reads(USAGE_STREAM),
    *(f"{api}.CONSUMER.MSG.NEXT.{USAGE_STREAM}.*" for api in _STREAM_APIS),
    *(f"{api}.$KV.{FORECAST_BUCKET}.*" for api in _STREAM_APIS),
    f"$KV.{FORECAST_BUCKET}.*",
)
"""Of whom reads what edges use and tells them what will be."""
_MAKE = tuple(
    f"{api}.STREAM.{what}.{stream}"
    for api in _STREAM_APIS
    for what in ("CREATE", "UPDATE", "INFO", "DELETE")
    for stream in (_POLICY, _FORECAST, TURN_STREAM, USAGE_STREAM)
)


_ASKED = ("complete", "cancel", "asking")


def _asks_as(name: str) -> tuple[str, ...]:
    """Return the subjects on which somebody of this name asks any pool, and any worker of it."""
    return tuple(f"voice.{what}.*.{name}{end}" for what in _ASKED for end in ("", ".*"))


def rights_of(role: Role, name: str) -> Rights:
    """Return the rights of a key; ``name`` is the edge's for an edge, and only a label otherwise.

    Raises ConfigError for a name that cannot stand in a subject, and for an edge that calls itself by another role's name.
    """
    token(name)
    if role is Role.EDGE:
        if name in set(Role):
            raise ConfigError(f"an edge cannot be called {name!r}: that is the name of a role")
        own = (f"voice.beat.edge.{name}", f"voice.turn.{name}.*", f"voice.usage.{name}")
        return Rights(
            publish=(*_asks_as(name), *own, *_reads(_POLICY, _FORECAST)),
            subscribe=(f"voice.answer.{name}.>", "voice.beat.pool.>"),
        )
    if role is Role.CLOUD:
        return Rights(
            publish=("voice.answer.>", "voice.beat.pool.>"),
            subscribe=tuple(f"voice.{what}.>" for what in _ASKED),
        )
    if role is Role.COORDINATOR:
        return Rights(
            publish=(*_asks_as(role), *_reads(_POLICY), *_MAKE, *_FORECASTS),
            subscribe=("voice.answer.coordinator.>", "voice.beat.edge.*", "voice.beat.pool.>"),
        )
    return Rights(
        publish=(*_asks_as(role), *(f"{api}.>" for api in _STREAM_APIS), f"$KV.{POLICY_BUCKET}.>"),
        subscribe=("voice.>",),
    )
