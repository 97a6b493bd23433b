from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edge import speaking
from edge.simulator.sound import write_wav
from edge.simulator.turn import Interruption, TurnResult
from edge.speaking import Mode, Request, is_as_wanted, lines_of, player, saved, say

app = typer.Typer()
app.command()(say)
TURN = TurnResult(
    mode="auto",
    outcome="answered",
    heard="你好",
    sentences=("你也好。", "再见。"),
    pcm=bytes(480),
    transcript_ms=640.4,
    first_audio_ms=1200.0,
    stopped_ms=3000.0,
)


def test_an_unreachable_edge_is_one_line_and_status_1(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", bytes(3200), 16_000)
    result = CliRunner().invoke(app, [str(tmp_path / "a.wav"), "--ota", "http://127.0.0.1:1/xiaozhi/ota/"])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: cannot reach http://127.0.0.1:1/xiaozhi/ota/: is the coordinator running there? (ConnectError)"
    ]


def test_an_unreachable_websocket_is_named(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", bytes(3200), 16_000)
    result = CliRunner().invoke(app, [str(tmp_path / "a.wav"), "--url", "ws://127.0.0.1:1/"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "ws://127.0.0.1:1/" in result.stderr


def test_a_missing_file_is_one_line_and_status_1() -> None:
    result = CliRunner().invoke(app, ["nowhere.wav"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "nowhere.wav" in result.stderr


@pytest.mark.parametrize("options", [["--mode", "loud"], ["--version", "4"], ["--repeat", "0"], ["--language", "fr"]])
def test_a_wrong_option_is_a_usage_error(options: list[str]) -> None:
    assert CliRunner().invoke(app, ["hello", *options]).exit_code == 2


def conversed(monkeypatch: pytest.MonkeyPatch, *turns: TurnResult) -> list[Request]:
    asked: list[Request] = []

    async def converse(request: Request) -> list[TurnResult]:
        asked.append(request)
        return list(turns)

    monkeypatch.setattr(speaking, "converse", converse)
    return asked


def test_an_answer_is_printed_and_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = conversed(monkeypatch, TURN)
    result = CliRunner().invoke(app, ["你好", "--out", str(tmp_path / "answer.wav"), "--mode", "manual"])
    assert result.exit_code == 0
    assert "heard    你好" in result.stdout
    assert (tmp_path / "answer.wav").stat().st_size == 480 + 44
    assert (asked[0].mode, asked[0].spoken_language, asked[0].identity.language) == (Mode.MANUAL, "zh", "zh-CN")


def test_json_holds_the_marks_and_no_sound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    conversed(monkeypatch, TURN)
    result = CliRunner().invoke(app, ["hello", "--json", "--out", str(tmp_path / "a.wav")])
    (turn,) = json.loads(result.stdout)
    assert (turn["first_audio_ms"], turn["heard"], turn["problems"]) == (1200.0, "你好", [])
    assert "pcm" not in turn


def test_a_turn_that_was_not_answered_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    conversed(monkeypatch, TurnResult(mode="auto", outcome="unanswered"))
    assert CliRunner().invoke(app, ["hello"]).exit_code == 1


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    async def converse(_request: Request) -> list[TurnResult]:
        raise KeyboardInterrupt

    monkeypatch.setattr(speaking, "converse", converse)
    result = CliRunner().invoke(app, ["hello"])
    assert (result.exit_code, result.stderr) == (130, "")


def test_several_answers_get_numbers_and_silence_no_file(tmp_path: Path) -> None:
    silent = TurnResult(mode="auto", outcome="silent")
    assert saved([TURN, silent, TURN], tmp_path / "a.wav") == [tmp_path / "a.wav", tmp_path / "a-3.wav"]


@pytest.mark.parametrize(
    ("outcome", "interrupt_after_ms", "expected"),
    [
        ("answered", None, True),
        ("interrupted", None, False),
        ("interrupted", 100.0, True),
        ("answered", 100.0, True),
        ("failed", 100.0, False),
    ],
)
def test_a_turn_is_as_wanted(outcome: Any, interrupt_after_ms: float | None, expected: bool) -> None:
    request = Request(what="x", interrupt_after_ms=interrupt_after_ms)
    assert is_as_wanted(TurnResult(mode="auto", outcome=outcome), request) is expected


def test_a_turn_in_words() -> None:
    turn = TurnResult(
        mode="auto",
        outcome="interrupted",
        heard="hi",
        transcript_ms=640.4,
        interruption=Interruption(stop_ms=40.2, packets_before_stop=0, packets_after_stop=0),
        problems=("3 packets dropped",),
    )
    assert lines_of(turn) == [
        "heard    hi",
        "outcome  interrupted",
        "times    transcript 640 ms after the end of speech",
        "stopped  40 ms after the interruption",
        "problem  3 packets dropped",
    ]


@pytest.mark.parametrize(
    ("what", "language", "expected"),
    [("你好", "", "zh"), ("Hello there", "", "en"), ("Hello there", "zh", "zh"), ("123", "", "zh")],
)
def test_the_language_is_told_from_the_sentence_unless_asked_for(what: str, language: str, expected: str) -> None:
    assert Request(what=what, language=language).spoken_language == expected


def test_no_player_is_said_and_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    conversed(monkeypatch, TURN)
    result = CliRunner().invoke(app, ["hello", "--play", "--out", str(tmp_path / "a.wav")])
    assert (result.exit_code, player()) == (0, None)
    assert "install one of aplay" in result.stderr


def test_the_first_player_on_the_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "paplay"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert player() == ("paplay",)
