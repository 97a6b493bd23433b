from __future__ import annotations

import pytest

from edge.gateway.lifetime import Limits, Vitals, overdue

LIMITS = Limits()


@pytest.mark.parametrize(
    ("vitals", "reason"),
    [
        (Vitals(), None),
        (Vitals(has_greeted=False, age_s=9.9), None),
        (Vitals(has_greeted=False, age_s=10), "hello-timeout"),
        (Vitals(has_greeted=False, age_s=1, is_brain_away=True), None),
        (Vitals(unheard_s=110, unsent_s=110), "idle"),
        (Vitals(unheard_s=110, unsent_s=109), None),
        (Vitals(unheard_s=0, unsent_s=3600), None),
        (Vitals(quiet_ms=60_000), "quiet"),
        (Vitals(quiet_ms=59_940), None),
        (Vitals(quiet_ms=60_000, is_speaking=True), None),
        (Vitals(is_brain_away=True), "brain-away"),
        (Vitals(is_brain_away=True, has_listened=False), None),
        (Vitals(is_brain_away=True, unheard_s=31), None),
        (Vitals(is_brain_away=True, unheard_s=31, is_speaking=True), "brain-away"),
        (Vitals(is_speaking=True, unsent_s=39), None),
        (Vitals(refusal="llm-overloaded", refused_s=3.9), None),
        (Vitals(refusal="llm-overloaded", refused_s=4), "llm-overloaded"),
        (Vitals(refusal="llm-overloaded", is_brain_away=True), None),
        (Vitals(refused_s=1000), None),
        (Vitals(is_speaking=True, unsent_s=40), "brain-away"),
    ],
)
def test_session_ends_when_its_time_has_come(vitals: Vitals, reason: str | None) -> None:
    end = overdue(vitals, LIMITS)
    assert (end.reason if end else None) == reason


def test_idle_rule_fires_before_firmware_distrusts_its_socket() -> None:
    assert LIMITS.idle_s < 120 - 2
