from __future__ import annotations

import pytest

from coordinator.bus import matches
from coordinator.nats_rights import Role, rights_of
from models.errors import ConfigError


@pytest.mark.parametrize("role", Role)
def test_no_role_may_do_everything(role: Role) -> None:
    rights = rights_of(role, "edge-1")
    assert ">" not in (*rights.publish, *rights.subscribe)


@pytest.mark.parametrize(
    ("subject", "may"),
    [
        ("voice.answer.edge-1.a.r", True),
        ("voice.answer.edge-2.a.r", False),
        ("voice.turn.edge-1.t", False),
        ("voice.seam.edge-1.up", False),
    ],
)
def test_an_edge_hears_its_own_answers(subject: str, may: bool) -> None:
    assert any(matches(pattern, subject) for pattern in rights_of(Role.EDGE, "edge-1").subscribe) is may


@pytest.mark.parametrize("name", ["", "edge.1", "*", "edge 1", ">"])
def test_a_name_that_cannot_stand_in_a_subject_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="subject"):
        rights_of(Role.EDGE, name)


@pytest.mark.parametrize("role", Role)
def test_an_edge_cannot_take_the_name_of_a_role(role: Role) -> None:
    with pytest.raises(ConfigError, match="name of a role"):
        rights_of(Role.EDGE, role.value)


@pytest.mark.parametrize("what", ["complete", "cancel", "asking"])
def test_an_edge_asks_under_its_own_name_alone(what: str) -> None:
    rights = rights_of(Role.EDGE, "edge-1").publish
    for subject, may in ((f"voice.{what}.p.edge-1", True), (f"voice.{what}.p.edge-1.w", True)):
        assert any(matches(pattern, subject) for pattern in rights) is may
    for other in (
        f"voice.{what}.p",
        f"voice.{what}.p.edge-2",
        f"voice.{what}.p.edge-2.edge-1",
        f"voice.{what}.p.w.edge-1.x",
    ):
        assert not any(matches(pattern, other) for pattern in rights)
