from __future__ import annotations

from pathlib import Path

import pytest
import typer

from coordinator.command_line import Hub, ask, print_json, read_document, seconds_of, told
from coordinator.jetstream import JetStream
from models.errors import CloudUnreachableError, ConfigError


@pytest.mark.parametrize(
    ("span", "seconds"), [("90s", 90), ("15m", 900), ("24h", 86_400), (" 7d ", 604_800), ("1.5h", 5400), ("0s", 0)]
)
def test_a_span_is_read_with_its_unit(span: str, seconds: float) -> None:
    assert seconds_of(span) == seconds


@pytest.mark.parametrize("span", ["", "24", "h", "-1h", "1w", "1h30m", "nan h", "１x"])
def test_what_is_no_span_says_how_to_write_one(span: str) -> None:
    with pytest.raises(ConfigError, match='write "90s"'):
        seconds_of(span)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("it is wrong"), 1, "error: it is wrong\n"),
        (CloudUnreachableError("it is away"), 1, "error: it is away\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_command_ends_with_one_line_and_a_status(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    with pytest.raises(typer.Exit) as ended, told():
        raise error
    assert ended.value.exit_code == status
    assert capsys.readouterr() == ("", line)


def test_a_hub_that_is_away_and_a_seed_that_cannot_be_read_are_named(unused_tcp_port: int, tmp_path: Path) -> None:
    async def work(_streams: JetStream) -> None:
        pytest.fail("there is nothing to work on")

    with pytest.raises(ConfigError, match="seed file"):
        ask(Hub("nats://127.0.0.1:1", "hub", tmp_path / "none"), work)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{unused_tcp_port}"):
        ask(Hub(f"nats://127.0.0.1:{unused_tcp_port}", "hub", None), work)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert read_document(tmp_path / "file") == b"x"
    with pytest.raises(ConfigError, match="nothing cannot be read: No such file"):
        read_document(tmp_path / "nothing")


def test_json_is_for_people_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"问": [1]})
    assert capsys.readouterr().out == '{\n  "问": [\n    1\n  ]\n}\n'
