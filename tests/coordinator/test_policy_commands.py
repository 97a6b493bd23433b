from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coordinator.policy_commands import app
from coordinator.turn_log import KeptTurn, turn_line
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord


def said(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def policy(tmp_path: Path, **fields: object) -> str:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(fields))
    return str(path)


def test_a_good_policy_is_shown_with_what_it_leaves_out(tmp_path: Path) -> None:
    checked = said("check", policy(tmp_path, threshold=0.6))
    assert checked.exit_code == 0, checked.output
    words, fields = checked.stdout.split("\n", 1)
    assert "is a policy" in words
    shown = json.loads(fields)
    assert shown["threshold"] == 0.6
    assert "version" not in shown
    assert len(shown) > 1
    assert json.loads(said("check", policy(tmp_path, threshold=0.6), "--json").stdout)["threshold"] == 0.6


def test_a_bad_policy_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    bad = policy(tmp_path, treshold=0.6)
    for arguments in (["check", bad], ["set", bad, "--yes", "--nats-url", "nats://127.0.0.1:1"]):
        refused = said(*arguments)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "treshold" in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = said("check", str(tmp_path / "none.json"))
    assert refused.exit_code == 1
    assert "none.json cannot be read" in refused.stderr


def turn(number: int, arm: str, tier: Tier) -> KeptTurn:
    decision = RoutingDecision(turn_id=f"t{number}", tier=tier, reason="gain", arm=arm)
    record = TurnRecord(
        turn_id=f"t{number}",
        session_id="s",
        device_id=f"d{number}",
        edge_id="e",
        outcome="answered",
        decisions=(decision,),
        marks=Marks(first_audio_ms=100.0 * number),
    )
    return KeptTurn(turn=record)


def test_the_arms_of_a_file_of_turns_are_compared(tmp_path: Path) -> None:
    turns = [turn(1, "old", Tier.EDGE), turn(2, "new", Tier.CLOUD), turn(3, "new", Tier.EDGE)]
    file = tmp_path / "turns.jsonl"
    file.write_text("\n".join(map(turn_line, turns)))
    compared = said("arms", "--from", str(file))
    assert [line.split() for line in compared.stdout.splitlines()] == [
        [
            "ARM",
            "TURNS",
            "DEVICES",
            "CLOUD",
            "%",
            "FELL",
            "BACK",
            "%",
            "INTERRUPTED",
            "%",
            "FAILED",
            "%",
            "FIRST",
            "SOUND",
            "p50,",
            "p95",
        ],
        [
            "new",
            "2",
            "2",
            "50.0",
            "[9.5,",
            "90.5]",
            "0.0",
            "[0.0,",
            "65.8]",
            "0.0",
            "[0.0,",
            "65.8]",
            "0.0",
            "[0.0,",
            "65.8]",
            "200",
            "ms,",
            "300",
            "ms",
        ],
        [
            "old",
            "1",
            "1",
            "0.0",
            "[0.0,",
            "79.3]",
            "0.0",
            "[0.0,",
            "79.3]",
            "0.0",
            "[0.0,",
            "79.3]",
            "0.0",
            "[0.0,",
            "79.3]",
            "100",
            "ms,",
            "100",
            "ms",
        ],
    ]
    first, second = json.loads(said("arms", "--from", str(file), "--json").stdout)
    assert (first["arm"], first["cloud"]["share"], second["arm"], second["turns"]) == ("new", 0.5, "old", 1)


def test_turns_in_which_nothing_was_decided_leave_nothing_to_compare(tmp_path: Path) -> None:
    file = tmp_path / "turns.jsonl"
    file.write_text("")
    refused = said("arms", "--from", str(file))
    assert (refused.exit_code, refused.stderr) == (
        1,
        "error: nothing was decided in any of 0 turns: there is nothing to compare\n",
    )


@pytest.mark.parametrize("command", ["show", "check", "set", "history", "rollback", "arms"])
def test_each_command_teaches_by_example(command: str) -> None:
    shown = said(command, "--help")
    assert shown.exit_code == 0
    assert f"xiaozhi-fleet policy {command}" in shown.stdout
