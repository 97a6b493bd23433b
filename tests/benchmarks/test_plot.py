from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plot import plot
from models.errors import ConfigError

needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")


def row(devices: int, *, p95: float | None = 900.0, broken: str = "") -> dict[str, Any]:
    return {
        "devices": devices,
        "first_audio_ms": {"p50": 800.0, "p95": p95},
        "server_cpu_cores": 0.5,
        "broken": broken,
    }


@needs_matplotlib
@pytest.mark.parametrize(("name", "begins"), [("t.svg", b"<?xml"), ("t.png", b"\x89PNG")])
def test_rows_are_drawn_into_a_file_of_the_kind_named(tmp_path: Path, name: str, begins: bytes) -> None:
    path = tmp_path / name
    plot([row(1), row(20), row(50, p95=None, broken="3 errors")], path, title="capacity")
    assert path.read_bytes().startswith(begins)


@needs_matplotlib
@pytest.mark.parametrize("name", ["t.nonsense", "no-folder/t.svg"])
def test_a_file_that_cannot_be_drawn_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        plot([row(1)], tmp_path / name, title="capacity")
