from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from coordinator.routing.gain import GainModel
from coordinator.routing.outcomes import Outcome, write_outcomes
from coordinator.routing.train import check, folds, main, model_of, table_of
from coordinator.routing.wording import plain
from models.errors import ConfigError

pytest.importorskip("sklearn")

EASY = ("打开{}的灯", "把{}的空调关掉", "{}的门关了吗", "what is the name of {}")
HARD = (
    "请证明关于{}的定理，并且写出每一步推导",
    "为什么{}会这样，请详细分析原因和影响",
    "prove step by step that {} is irrational",
)
THINGS = ("客厅", "卧室", "厨房", "阳台", "书房", "earth", "moon", "water", "paris", "river")


def outcomes(count=300, seed=3):
    rng = random.Random(seed)
    found = []
    for number in range(count):
        hard = rng.random() < 0.5
        text = rng.choice(HARD if hard else EASY).format(rng.choice(THINGS)) + str(number)
        edge = float(rng.random() < (0.15 if hard else 0.9))
        found.append(
            Outcome(id=str(number), text=text, group=f"g{number % 30}", edge=edge, cloud=float(rng.random() < 0.9))
        )
    return found


@pytest.fixture(scope="module")
def model():
    return model_of(outcomes(), ["made: 300"], name="test")


def gain_of(model, text):
    return model.predict(plain(text)).gain


def test_hard_questions_gain_more_than_easy_ones(model):
    hard = gain_of(model, "请证明关于月亮的定理，并且写出每一步推导7")
    easy = gain_of(model, "打开月亮的灯7")
    assert hard > easy + 0.2
    assert model.score(hard) > model.score(easy)


def test_the_same_data_and_seed_give_the_same_bytes(model, tmp_path):
    model.save(tmp_path / "a.npz")
    model_of(outcomes(), ["made: 300"], name="test").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_loaded_model_decides_like_the_trained_one(model, tmp_path):
    model.save(tmp_path / "a.npz")
    assert gain_of(GainModel.load(tmp_path / "a.npz"), "为什么天是蓝的") == gain_of(model, "为什么天是蓝的")


def test_groups_stay_whole_and_folds_even():
    groups = np.array([f"g{number % 17}" for number in range(500)])
    part = folds(groups, 5, 1)
    assert all(len(set(part[groups == group])) == 1 for group in set(groups))
    assert np.bincount(part).max() <= 2 * np.bincount(part).min()
    assert (part == folds(groups, 5, 1)).all()


@pytest.mark.parametrize(
    ("items", "match"),
    [
        (outcomes(50), "too few"),
        ([msgspec.structs.replace(item, cloud=1.0) for item in outcomes()], "cloud is right on 300 of 300"),
        ([msgspec.structs.replace(item, edge=0.0) for item in outcomes()], "edge is right on 0 of 300"),
        ([msgspec.structs.replace(item, group="one") for item in outcomes()], "fewer than 3 groups"),
    ],
)
def test_too_little_or_one_sided_data_is_refused(items, match):
    with pytest.raises(ConfigError, match=match):
        check(table_of(items))


def application():
    app = typer.Typer()
    app.command()(main)
    return app


def test_the_command_writes_weights_with_their_origin(tmp_path):
    write_outcomes(outcomes(), tmp_path / "o.jsonl")
    out = tmp_path / "weights" / "w.npz"
    done = CliRunner().invoke(
        application(), [str(tmp_path / "o.jsonl"), "--out", str(out), "--name", "mine", "--seed", "4"]
    )
    assert done.exit_code == 0, done.output
    description = GainModel.load(out).description
    assert (description.name, description.seed, description.data) == ("mine", 4, ("o.jsonl: 300",))


def test_the_command_names_what_is_wrong(tmp_path):
    write_outcomes(outcomes(20), tmp_path / "o.jsonl")
    done = CliRunner().invoke(application(), [str(tmp_path / "o.jsonl"), "--out", str(tmp_path / "w.npz")])
    assert done.exit_code == 1
    assert not (tmp_path / "w.npz").exists()
