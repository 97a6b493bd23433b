from __future__ import annotations

import pytest

from benchmarks.capacity import ANSWERS, REAL_ENV, SCRIPTED_ENV, Options, settings_of
from edge.settings import EdgeSettings
from models.errors import ConfigError


@pytest.mark.parametrize("name", sorted({*SCRIPTED_ENV, *REAL_ENV}))
def test_the_edge_knows_every_setting_we_give_it(name: str) -> None:
    assert name.removeprefix("EDGE_").lower() in EdgeSettings.model_fields


def test_settings_of_the_command_line_win() -> None:
    options = Options(engines="scripted", devices=1, turns=1, env=settings_of(["EDGE_END_SILENCE_MS=500"]))
    assert options.settings == {"EDGE_ENGINES": "scripted", "EDGE_END_SILENCE_MS": "500"}


@pytest.mark.parametrize("answers", sorted(ANSWERS))
def test_beside_real_engines_the_answers_are_the_ones_asked_for(answers: str) -> None:
    options = Options(engines="real", devices=1, turns=1, answers=answers)
    assert options.settings["EDGE_SCRIPTED_ANSWER"] == ANSWERS[answers]


@pytest.mark.parametrize("pair", ["EDGE_X", "PATH=/tmp", "=1"])
def test_only_settings_of_the_edge_can_be_given(pair: str) -> None:
    with pytest.raises(ConfigError, match="EDGE_NAME=VALUE"):
        settings_of([pair])
