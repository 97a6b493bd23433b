from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing.features import SURFACE
from coordinator.routing.gain import Gain, GainModel, Trees
from coordinator.routing.promise import PACKAGED, read_promises
from coordinator.routing.wording import plain
from models.errors import ConfigError

TEXTS = ("", "打开客厅的灯", "why is the sky blue?", "x" * 9000, "\ud800", "12 + 30 * 4 = ?")


def predict(model, text):
    return model.predict(plain(text))


@pytest.mark.parametrize("text", TEXTS)
def test_packaged_weights_give_probabilities(text):
    found = predict(GainModel.load(), text)
    assert 0 <= found.edge <= 1
    assert 0 <= found.cloud <= 1
    assert found.gain == pytest.approx(found.cloud - found.edge)


def test_packaged_weights_say_what_they_learned_from():
    description = GainModel.load().description
    assert description.attribution
    assert description.columns == SURFACE
    assert description.language == "zh"


def test_packaged_weights_know_chinese_alone():
    model = GainModel.load()
    assert model.covers("法国的首都是哪里")
    assert model.covers("iphone 是什么")
    assert not model.covers("what is the capital of france")


def test_packaged_promises_were_made_for_the_packaged_weights():
    assert read_promises(PACKAGED).model == GainModel.load().name


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
    with pytest.raises(ConfigError, match="another version"):
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


def descended(trees, row):
    """The value of a row, step by step."""
    total = trees.start
    for tree in range(len(trees.column)):
        node = 0
        while trees.left[tree, node] != node:
            goes_left = row[trees.column[tree, node]] <= trees.limit[tree, node]
            node = (trees.left if goes_left else trees.right)[tree, node]
        total += trees.value[tree, node]
    return total


@given(st.integers(0, 2**32 - 1))
def test_all_trees_at_once_are_each_tree_step_by_step(seed):
    dice = np.random.default_rng(seed)
    trees = grown(dice, count=4)
    rows = dice.integers(0, 4, size=(5, 3)).astype(np.float32)
    assert trees.evaluate(rows) == pytest.approx([descended(trees, row) for row in rows], abs=1e-4)


def grown(dice, count, leaves=8):
    """Trees of up to so many leaves, split at random."""
    nodes = 2 * leaves - 1
    column, left, right = (np.zeros((count, nodes), np.int64) for _ in range(3))
    left[:] = right[:] = np.arange(nodes)
    for tree in range(count):
        made, ends = 1, [0]
        for _ in range(dice.integers(0, leaves)):
            node = ends.pop(dice.integers(len(ends)))
            left[tree, node], right[tree, node] = made, made + 1
            ends += [made, made + 1]
            made += 2
        column[tree] = dice.integers(0, 3, size=nodes)
    limit = dice.integers(0, 4, size=(count, nodes)).astype(np.float32)
    value = dice.standard_normal((count, nodes)).astype(np.float32)
    return Trees(column=column, limit=limit, left=left, right=right, value=value, start=0.5)


def tree(left, right):
    zeros = np.zeros((1, len(left)))
    return Trees(
        column=zeros.astype(int), limit=zeros, left=np.array([left]), right=np.array([right]), value=zeros, start=0.0
    )


def test_a_tree_with_too_many_leaves_is_refused():
    nodes = range(21)  # each even one splits into a leaf and the next even one
    left = [node + 1 if node % 2 == 0 and node < 20 else node for node in nodes]
    right = [node + 2 if node % 2 == 0 and node < 20 else node for node in nodes]
    with pytest.raises(ValueError, match="more than 8 leaves"):
        tree(left, right)


def test_a_tree_that_turns_back_is_refused():
    with pytest.raises(ValueError, match="turns back"):
        tree([1, 0], [1, 0])


def test_gain_is_cloud_minus_edge():
    assert Gain(edge=0.25, cloud=0.75).gain == 0.5
