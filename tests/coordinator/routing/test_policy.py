from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing.policy import (
    GOALS,
    MAX_DOCUMENT_BYTES,
    Arm,
    Changes,
    Policy,
    PoolTerms,
    parse_policy,
    policy_document,
)
from models.errors import ConfigError


def parsed(**fields: object) -> Policy:
    return parse_policy(json.dumps(fields).encode())


def refusal(document: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_policy(document)
    return str(caught.value)


def test_without_a_goal_the_threshold_is_the_seeds() -> None:
    assert Policy().threshold == 0.7
    assert parsed() == Policy() == Policy(threshold=0.7)


@pytest.mark.parametrize("goal", GOALS)
def test_another_goal_takes_the_place_of_the_threshold(goal: str) -> None:
    policy = parsed(**{goal: 0.6})
    assert [name for name in GOALS if getattr(policy, name) is not None] == [goal]


def test_two_goals_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="threshold and cloud_share"):
        Policy(threshold=0.7, cloud_share=0.1)


def test_a_document_comes_back_as_it_was() -> None:
    policy = Policy(
        version=7,
        budget_per_day=100.0,
        pools=(PoolTerms(name="a", price=2.0, strength=0.5), PoolTerms(name="b", vision=True)),
        arms=(Arm(name="x", share=0.5, changes=Changes(cloud_share=0.2, doubt=True)), Arm(name="y", share=0.5)),
    )
    assert parse_policy(policy_document(policy)) == policy


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"threshold": "0.7"}, "threshold: a string, but it takes a number from 0 to 2"),
        ({"threshold": 2.1}, "threshold: the number 2.1"),
        ({"cloud_share": -0.1}, "cloud_share: the number -0.1, but it takes a number from 0 to 1"),
        ({"budget_per_day": True}, "budget_per_day: true or false, but it takes a number from 0 to 1e12"),
        ({"quality_floor": 0.05}, "quality_floor: the number 0.05, but it takes the share of turns no worse than"),
        ({"router": "best"}, 'router: a string, but it takes "gain" or "complexity"'),
        ({"version": 1.5}, "version: the number 1.5, but it takes a whole number from 0"),
        ({"first_token_ms": None}, "first_token_ms: null, but it takes milliseconds from 1 to 60000"),
        ({"hedge_share": 0.6}, "hedge_share: the number 0.6"),
        ({"doubt": 1}, "doubt: the number 1, but it takes true or false"),
        ({"utc_offset_h": 15}, "utc_offset_h: the number 15, but it takes hours from -12 to 14"),
        ({"pools": []}, "pools: a list, but it takes a list of 1 to 16 pools"),
        ({"pools": [{"price": 1}]}, "pools[0].name: missing, it takes a name of 1 to 64"),
        ({"pools": [{"name": "a.b"}]}, "pools[0].name: a string, but it takes a name"),
        ({"pools": [{"name": "a", "price": 0}]}, "pools[0].price: the number 0, but it takes a number above 0"),
        ({"pools": [{"name": "a"}, {"name": "a"}]}, "pools: a is there 2 times"),
        ({"pools": [3]}, "pools[0]: the number 3, but it takes an object"),
        ({"arms": [{"name": "a", "share": 0.6}, {"name": "b", "share": 0.6}]}, "arms: their shares add up to 1.2"),
        ({"arms": [{"name": "a", "share": 0.1, "changes": {"arms": []}}]}, "arms[0].changes.arms: unknown"),
        (
            {"arms": [{"name": "a", "share": 0.1, "changes": {"threshold": 0.1, "cloud_share": 0.1}}]},
            "arms[0].changes.threshold and cloud_share: only one of",
        ),
        ({"arms": [{"name": "a", "share": 0.1, "changes": None}]}, "arms[0].changes: null, but it takes an object"),
        ({"threshold": 0.7, "quality_floor": 0.9}, "threshold and quality_floor: only one of"),
        ({"treshold": 0.7}, "treshold: unknown, known are version, router, threshold"),
        ({"a\nb": 1}, "a?b: unknown"),
    ],
)
def test_a_bad_field_is_refused_by_name_with_what_it_takes(fields: dict[str, object], named: str) -> None:
    assert named in refusal(json.dumps(fields).encode())


def test_every_bad_field_is_named_at_once() -> None:
    said = refusal(b'{"threshold": "x", "pools": [{"name": "a", "strength": 2}], "hedge": 1}')
    assert all(name in said for name in ("threshold: ", "pools[0].strength: ", "hedge: unknown"))


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"[" * 5000, b'{"version":1e999}', b"[]", b"null", b'"x"'])
def test_what_is_no_object_is_refused(document: bytes) -> None:
    assert refusal(document).startswith("policy")


def test_a_document_that_is_too_long_is_refused_unread() -> None:
    assert str(MAX_DOCUMENT_BYTES) in refusal(b" " * (MAX_DOCUMENT_BYTES + 1))


def test_values_of_strings_are_not_repeated() -> None:
    assert "secret" not in refusal(b'{"threshold": "secret", "router": "secret", "pools": [{"name": "sec ret"}]}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*Policy.__struct_fields__, "other"]), json_values, max_size=6))
def test_any_object_is_a_policy_or_refused(fields: dict[str, object]) -> None:
    document = json.dumps(fields).encode()
    try:
        policy = parse_policy(document)
    except ConfigError:
        return
    for arm in policy.arms:
        policy.in_arm(arm)
    assert parse_policy(policy_document(policy)) == policy


@given(st.binary(max_size=60))
def test_any_bytes_are_a_policy_or_refused(document: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_policy(document), Policy)


def test_an_arm_changes_what_it_names_and_its_goal_replaces_the_policys() -> None:
    policy = parsed(arms=[{"name": "b", "share": 0.5, "changes": {"budget_per_day": 9, "doubt": True}}], version=3)
    found = policy.in_arm(policy.arms[0])
    assert found == Policy(version=3, budget_per_day=9.0, doubt=True)


def test_an_arm_without_changes_follows_the_policy() -> None:
    arm = Arm(name="a", share=0.5)
    policy = Policy(cloud_share=0.2, arms=(arm,))
    assert policy.in_arm(arm) == msgspec.structs.replace(policy, arms=())


@pytest.mark.parametrize(
    ("fields", "never"),
    [
        ({"threshold": 1.01}, True),
        ({"threshold": 1}, False),
        ({"cloud_share": 0}, True),
        ({"budget_per_day": 0}, True),
        ({"budget_per_day": 1}, False),
    ],
)
def test_some_goals_mean_never(fields: dict[str, float], never: bool) -> None:
    assert parsed(**fields).is_never_cloud is never
