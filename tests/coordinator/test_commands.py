from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from coordinator.commands import EXPLAIN_EXAMPLES, REPLAY_EXAMPLES, explain, replay, replayed
from coordinator.routing.policy import Policy
from coordinator.turn_log import KeptTurn, turn_line
from coordinator.turns import RoutingDecision, Tier, TurnRecord

fleet = typer.Typer(rich_markup_mode=None)
fleet.command("explain", epilog=EXPLAIN_EXAMPLES)(explain)


fleet.command("replay", epilog=REPLAY_EXAMPLES)(replay)


def said(*arguments: str) -> Result:
    return CliRunner().invoke(fleet, list(arguments))


def kept(number: int) -> KeptTurn:
    decision = RoutingDecision(turn_id=f"t{number}", tier=Tier.EDGE, reason="real-time")
    record = TurnRecord(
        turn_id=f"t{number}",
        session_id="s",
        device_id="d",
        edge_id="e",
        outcome="answered",
        heard="几点了？",
        decisions=(decision,),
    )
    return KeptTurn(at_s=1795420800.0 + number, turn=record)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "turns.jsonl"
    path.write_text("\n".join(turn_line(kept(number)) for number in range(30)), encoding="utf-8")
    return str(path)


def test_a_turn_of_a_file_is_explained(file: str) -> None:
    shown = said("explain", "t7", "--from", file)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[0] == "turn t7: answered by the edge"
    assert "real-time" in shown.stdout
    assert "“几点了？”" in shown.stdout


def test_a_turn_as_json_is_what_can_be_read_again(file: str) -> None:
    assert msgspec.json.decode(said("explain", "t7", "--from", file, "--json").stdout, type=KeptTurn) == kept(7)


def test_the_newest_turns_are_listed(file: str) -> None:
    listed = said("explain", "--from", file, "--last", "3")
    assert [line.split()[3] for line in listed.stdout.splitlines()[1:]] == ["t27", "t28", "t29"]
    lines = said("explain", "--from", file, "--json").stdout.splitlines()
    assert [json.loads(line)["turn"]["turn_id"] for line in lines] == [f"t{number}" for number in range(10, 30)]


def test_what_cannot_be_shown_is_said_in_one_line(file: str) -> None:
    for arguments, words in {
        ("nobody", "--from", file): "turn nobody is not in",
        ("t1", "--from", "/nothing/here"): "/nothing/here cannot be read",
        ("--since", "tomorrow"): "no span of time",
    }.items():
        refused = said("explain", *arguments)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_an_empty_file_has_no_turn(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    refused = said("explain", "--from", str(tmp_path / "empty"))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert said("explain", "--from", str(tmp_path / "empty"), "--json").exit_code == 0, (
        "no line is no turn, for machines"
    )


def test_explain_teaches_by_example_and_says_what_is_kept() -> None:
    shown = said("explain", "--help").stdout
    assert "xiaozhi-fleet explain --since 24h" in shown
    assert "COORDINATOR_KEEP_TURNS_HOURS" in shown


# Replay


def asked(number: int, heard: str, tier: Tier, pool: str = "", at_s: float = 1795420800.0) -> KeptTurn:
    decision = RoutingDecision(turn_id=f"t{number}", tier=tier, reason="complex", pool=pool)
    record = TurnRecord(
        turn_id=f"t{number}",
        session_id=f"s{number}",
        device_id="d",
        edge_id="e",
        outcome="answered",
        heard=heard,
        language="zh",
        decisions=(decision,),
    )
    return KeptTurn(at_s=at_s, turn=record)


@pytest.fixture
def recorded(tmp_path: Path) -> str:
    turns = [
        asked(0, "把音量调大一点", Tier.EDGE),
        asked(1, "证明根号二是无理数，并说明每一步的理由", Tier.EDGE),
        asked(2, "给我讲讲恐龙", Tier.CLOUD, "qwen-14b"),
        asked(3, "", Tier.CLOUD, "qwen-14b"),
    ]
    path = tmp_path / "turns.jsonl"
    path.write_text("\n".join(map(turn_line, turns)), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("policy", "shares", "elsewhere"),
    [({"threshold": 0}, (33.3, 66.7), ["t1"]), ({"threshold": 2}, (33.3, 0.0), ["t2"])],
)
def test_a_policy_is_tried_on_recorded_turns(
    tmp_path: Path, recorded: str, policy: dict[str, object], shares: tuple[float, float], elsewhere: list[str]
) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    told = said("replay", str(file), "--from", recorded)
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert lines[0] == "3 turns decided anew; left out: 0 answered from memory, 1 without words or decision"
    assert f"cloud calls{shares[0]:>13.1f} %{shares[1]:>10.1f} %" in lines
    assert [
        line.split()[0] for line in lines[lines.index(next(line for line in lines if line.startswith("TURN"))) + 1 :]
    ] == elsewhere
    machine = json.loads(said("replay", str(file), "--from", recorded, "--json").stdout)
    assert [turn["turn_id"] for turn in machine["changed"]] == elsewhere


def test_a_budget_is_spent_by_the_clock_of_the_turns() -> None:
    hard = "请详细证明费马小定理并举三个例子说明它在密码学中的应用，然后比较两种证明的优劣"
    hour_s = 3600

    def spent(apart_s: float) -> float:
        turns = [asked(number, hard, Tier.EDGE, at_s=1795420800.0 + apart_s * number) for number in range(120)]
        return replayed(Policy(budget_per_day=5), turns).price_after

    in_two_minutes, in_ten_days = spent(1), spent(2 * hour_s)
    assert in_two_minutes <= 5
    assert in_ten_days > 2 * in_two_minutes
    assert in_ten_days <= 11 * 5, "ten days from one midnight to another touch eleven"


def test_a_policy_that_cannot_be_tried_is_said_in_one_line(tmp_path: Path, recorded: str) -> None:
    for document, words in {'{"treshold": 1}': "treshold", '{"quality_floor": 0.999}': "quality_floor"}.items():
        (tmp_path / "policy.json").write_text(document)
        refused = said("replay", str(tmp_path / "policy.json"), "--from", recorded)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_replay_teaches_by_example() -> None:
    assert "xiaozhi-fleet replay policy.json --since 24h" in said("replay", "--help").stdout
