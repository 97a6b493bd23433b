from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from benchmarks import engine_part
from models.errors import CatalogError


def part(**results: Any) -> Any:
    def measure(report: Any, *, quick: bool) -> dict[str, Any]:
        report("at work")
        if not results:
            raise CatalogError("a model is missing")
        return {**results, "quick": quick}

    return SimpleNamespace(measure=measure)


@pytest.mark.parametrize("quick", [True, False])
def test_results_are_written_and_progress_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quick: bool
) -> None:
    monkeypatch.setattr(engine_part, "import_module", lambda _name: part(x=1))
    path = tmp_path / "r.json"
    assert engine_part.main(["vad", str(path), *(["quick"] if quick else [])]) == 0
    assert msgspec.json.decode(path.read_bytes()) == {"x": 1, "quick": quick}
    assert capsys.readouterr().out == "at work\n"


def test_what_is_missing_is_one_line_and_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_part, "import_module", lambda _name: part())
    assert engine_part.main(["vad", str(tmp_path / "r.json")]) == 1
    assert capsys.readouterr().err == "vad: a model is missing\n"
