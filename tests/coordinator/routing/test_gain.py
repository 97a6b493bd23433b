from __future__ import annotations

import numpy as np
import pytest

from coordinator.routing.gain import COLUMNS, Gain, GainModel, Trees
from coordinator.routing.outcomes import Outcome
from coordinator.routing.signals import read
from coordinator.routing.train import prompt_of
from coordinator.routing.wording import plain
from models.errors import ConfigError

TEXTS = ("", "打开客厅的灯", "why is the sky blue?", "x" * 9000, "\ud800", "12 + 30 * 4 = ?")


def predict(model, text):
    return model.predict(plain(text), read(prompt_of(Outcome(id="1", text=text, edge=0, cloud=0))))


@pytest.mark.parametrize("text", TEXTS)
def test_packaged_weights_give_probabilities(text):
    found = predict(GainModel.load(), text)
    assert 0 <= found.edge <= 1
    assert 0 <= found.cloud <= 1
    assert found.gain == pytest.approx(found.cloud - found.edge)


def test_packaged_weights_say_whose_data_they_learned_from():
    description = GainModel.load().description
    assert "Apache-2.0" in description.attribution
    assert "MIT" in description.attribution
    assert set(description.columns) <= set(COLUMNS)


def test_score_rises_from_none_to_all():
    model = GainModel.load()
    scores = [model.score(gain) for gain in np.linspace(-1, 1, 201)]
    assert scores == sorted(scores)
    assert (scores[0], scores[-1]) == (0.0, 1.0)


def test_saved_model_decides_alike_and_in_the_same_bytes(tmp_path):
    model = GainModel.load()
    model.save(tmp_path / "a.npz")
    model.save(tmp_path / "b.npz")
    again = GainModel.load(tmp_path / "a.npz")
    assert [predict(again, text) for text in TEXTS] == [predict(model, text) for text in TEXTS]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04broken"])
def test_a_broken_file_is_refused_with_name_and_mend(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.npz.*coordinator\.routing\.train"):
        GainModel.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        GainModel.load(tmp_path / "missing.npz")


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "pickle.npz", description=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match="no gain model"):
        GainModel.load(tmp_path / "pickle.npz")


def test_weights_that_want_an_unknown_column_are_refused(tmp_path):
    model = GainModel.load()
    model.save(tmp_path / "same.npz")
    arrays = dict(np.load(tmp_path / "same.npz", allow_pickle=False))
    changed = bytes(arrays["description"]).replace(model.description.columns[-1].encode(), b"moonlight")
    arrays["description"] = np.frombuffer(changed, dtype=np.uint8)
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ConfigError, match="moonlight"):
        GainModel.load(tmp_path / "other.npz")


def test_trees_send_each_row_to_its_leaf():
    stump = Trees(
        column=np.array([[1, 0, 0]]),
        limit=np.array([[0.5, 0, 0]], np.float32),
        left=np.array([[1, 1, 2]]),
        right=np.array([[2, 1, 2]]),
        value=np.array([[0, -2, 3]], np.float32),
        start=10.0,
    )
    rows = np.array([[9, 0.5], [9, 0.6]], np.float32)
    assert stump.evaluate(rows).tolist() == [8.0, 13.0]


def test_gain_is_cloud_minus_edge():
    assert Gain(edge=0.25, cloud=0.75).gain == 0.5
