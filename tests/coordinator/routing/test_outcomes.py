from __future__ import annotations

import pytest

from coordinator.routing.outcomes import Outcome, read_outcomes, write_outcomes
from models.errors import ConfigError


def test_written_outcomes_are_read_back(tmp_path):
    outcomes = [Outcome(id="1", text="几点了", kind="realtime", group="g", edge=1, cloud=0.5)]
    write_outcomes(outcomes, tmp_path / "o.jsonl")
    assert read_outcomes(tmp_path / "o.jsonl") == outcomes


@pytest.mark.parametrize("line", ['{"id":"1","text":"x","edge":2,"cloud":0}', '{"id":"1"}', "no json"])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "o.jsonl"
    path.write_text('{"id":"0","text":"x","edge":1,"cloud":0}\n' + line + "\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_outcomes(path)


def test_a_first_line_about_the_run_is_passed_over(tmp_path):
    outcomes = [Outcome(id="1", text="几点了", kind="realtime", group="g", edge=1, cloud=0)]
    write_outcomes(outcomes, tmp_path / "o.jsonl")
    said = (tmp_path / "o.jsonl").read_bytes()
    (tmp_path / "o.jsonl").write_bytes(b'{"about": {"command": "x"}}\n' + said)
    assert read_outcomes(tmp_path / "o.jsonl") == outcomes
    (tmp_path / "o.jsonl").write_bytes(said + b'{"about": {"command": "x"}}\n')
    with pytest.raises(ConfigError, match="line 2"):
        read_outcomes(tmp_path / "o.jsonl")


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no outcomes"):
        read_outcomes(tmp_path / "empty.jsonl")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_outcomes(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_outcomes([], tmp_path / "missing" / "o.jsonl")
