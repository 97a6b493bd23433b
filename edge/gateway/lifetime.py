"""How long a session may last: the rules by which the server ends it, because a device never does (protocol §8.6)."""

from __future__ import annotations

from dataclasses import dataclass

NORMAL, GOING_AWAY, PROTOCOL_ERROR, RESTARTING, TRY_LATER = 1000, 1001, 1002, 1012, 1013
"""Close codes of RFC 6455 §7.4 and its registry; devices do not read them."""
BRAIN_AWAY = "brain-away"
READ_S = 4.0
"""How long a device stays connected after it was told why it is not served: a Close clears its screen. A guess: one sentence is read."""
_EXPECTS_S = 30.0
"""How long after its last word a device still expects an answer: a turn's budget."""
_STALLED_S = 40.0
"""How long a turn that speaks may send nothing before its brain counts as lost; the brain itself gives up after its budget."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may differ between deployments."""

    hello_s: float = 10.0
    """How long a device may take to say hello."""
    idle_s: float = 110.0
    """Silence on the wire before the session is ended; below the 120 s after which firmware distrusts its socket (protocol §4.4)."""
    quiet_s: float = 60.0
    """Sound without a turn before the session is ended; the device itself would listen for ever."""


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """Why a session ended."""

    reason: str
    """Kebab-case."""
    code: int = NORMAL
    """WebSocket close code, 0 to drop the socket without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """A session at one moment."""

    has_greeted: bool = True
    has_listened: bool = True
    is_speaking: bool = False
    """Whether a turn is being spoken."""
    is_brain_away: bool = False
    age_s: float = 0.0
    unheard_s: float = 0.0
    """Since the device's last message."""
    unsent_s: float = 0.0
    """Since our last message."""
    quiet_ms: int = 0
    """Sound heard since the last turn."""
    refusal: str = ""
    """Why the brain does not serve the session, "" when it does."""
    refused_s: float = 0.0
    """Since the device was last told so."""


def overdue(vitals: Vitals, limits: Limits) -> SessionEnd | None:
    """Return the end of a session that has lasted long enough, None of one that goes on."""
    if not vitals.has_greeted:
        return SessionEnd("hello-timeout", PROTOCOL_ERROR) if vitals.age_s >= limits.hello_s else None
    if vitals.refusal:
        return SessionEnd(vitals.refusal, TRY_LATER) if vitals.refused_s >= READ_S else None
    if _misses_brain(vitals):
        return SessionEnd(BRAIN_AWAY, TRY_LATER)
    if min(vitals.unheard_s, vitals.unsent_s) >= limits.idle_s:
        return SessionEnd("idle")
    return SessionEnd("quiet") if not vitals.is_speaking and vitals.quiet_ms >= limits.quiet_s * 1000 else None


def _misses_brain(vitals: Vitals) -> bool:
    """Return whether somebody waits for an answer and nobody is there to give it."""
    if vitals.is_speaking:
        return vitals.is_brain_away or vitals.unsent_s >= _STALLED_S
    return vitals.is_brain_away and vitals.has_listened and vitals.unheard_s < _EXPECTS_S
