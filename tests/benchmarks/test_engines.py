from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from inspect import signature

import pytest

from benchmarks.engines import PARTS, TARGETS, measured, parts_of
from models.errors import ConfigError


def test_parts_keep_our_order_and_unknown_ones_are_named() -> None:
    assert parts_of("asr, vad") == ("vad", "asr")
    assert parts_of(",".join(PARTS)) == PARTS
    with pytest.raises(ConfigError, match="'tts'"):
        parts_of("vad,tts")


@pytest.mark.parametrize("name", PARTS)
def test_every_part_can_be_measured_and_shown(name: str) -> None:
    assert find_spec(f"benchmarks.engine_{name}") is not None
    part = import_module(f"benchmarks.engine_{name}")
    assert "quick" in signature(part.measure).parameters
    assert callable(part.tables)


def test_every_target_belongs_to_a_part() -> None:
    assert {target.key.partition(".")[0] for target in TARGETS} <= set(PARTS)


def test_a_part_that_fails_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIAOZHI_FLEET_MODELS", "/nowhere")
    with pytest.raises(ConfigError, match="audio was not measured"):
        measured("audio", quick=True)
