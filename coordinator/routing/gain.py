"""What the cloud would gain on a request: two probabilities from a small model of plain arrays, numpy only.

Three linear heads over hashed pieces (edge right, cloud right, their difference) and two sets of small trees over dense columns are
blended by weights learned on data the parts had not seen. Texts unlike all training data fall back to "longer gains more".
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import msgspec
import numpy as np
import numpy.typing as npt

from coordinator.routing.features import BUCKETS, SURFACE, pieces, surface
from models.errors import ConfigError

Floats = npt.NDArray[np.float32]

PACKAGED = Path(__file__).parent / "weights" / "default.npz"
"""Learned from the outcomes of the two starter models on Chinese requests, ``benchmarks/requests_zh/outcomes.jsonl``."""
FORMAT = 1
"""Raised when older programs could not read the arrays rightly."""
LEAVES = 8
"""Most leaves of a tree: as many as a byte has bits."""
NEAR, FALL_BACK = 0.75, 0.9
"""From this part of `Weights.strange` on the length prior counts, and beyond it with this weight. Picked among ten shapes on MMLU by unseen
subject and on the way from MMLU to GSM8K, so that neither loses: figures there flatter a little."""
_FAR = 8.0
"""Standard deviations at which one strange column stops counting for more."""
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_ALL = np.uint8(0xFF)
_LOWEST = np.array([(bits & -bits).bit_length() - 1 if bits else 0 for bits in range(256)], dtype=np.int64)
"""Place of the lowest bit of a byte."""


class Gain(msgspec.Struct, frozen=True):
    """Probabilities in [0, 1] that each side would answer rightly."""

    edge: float
    cloud: float

    @property
    def gain(self) -> float:
        """Cloud minus edge, in [-1, 1]."""
        return self.cloud - self.edge


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """Where weights come from; stored beside them."""

    name: str
    format: int
    columns: tuple[str, ...]
    data: tuple[str, ...]
    """Each source with its count."""
    questions: int
    edge_right: float
    cloud_right: float
    seed: int
    attribution: str = ""
    language: str = ""
    """"zh" for weights that know nothing of texts without a Chinese character, "" for all texts."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Boosted trees of one head; node 0 is the root and a leaf points to itself."""

    column: npt.NDArray[np.int64]
    """Shape (trees, nodes), as are the next three."""
    limit: Floats
    left: npt.NDArray[np.int64]
    """At or below the limit goes left."""
    right: npt.NDArray[np.int64]
    value: Floats
    start: float
    _tests: _Tests = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay the tests out; raises ValueError for trees that are none, or too large."""
        object.__setattr__(self, "_tests", _tests_of(self))

    def evaluate(self, dense: Floats) -> Floats:
        """Return one value for each row of ``dense``, shape (rows, columns).

        All tests of all trees are made at once; each that goes right rules out the leaves on its left, and of those that remain the
        first is the one reached (Lucchese et al., "QuickScorer", 2015).
        """
        tests = self._tests
        goes_right = dense.take(tests.column, axis=1) > tests.limit
        leaves = np.bitwise_and.reduce(np.where(goes_right, tests.remaining, _ALL), axis=2)
        total: Floats = self.start + tests.value.take(tests.first + _LOWEST.take(leaves)).sum(axis=1)
        return total


class _Tests(NamedTuple):
    """Trees laid out for being evaluated all at once."""

    column: npt.NDArray[np.int64]
    """Shape (trees, tests), as are the next two."""
    limit: Floats
    remaining: npt.NDArray[np.uint8]
    """Bits of the leaves that a test which goes right leaves."""
    value: Floats
    """Of leaves, from left to right, LEAVES for each tree; shape (trees * LEAVES,)."""
    first: npt.NDArray[np.int64]
    """Index of each tree's first leaf in ``value``."""


def _tests_of(trees: Trees) -> _Tests:
    count = len(trees.column)
    column = np.zeros((count, LEAVES - 1), np.int64)
    limit = np.full((count, LEAVES - 1), np.inf, np.float32)
    remaining = np.full((count, LEAVES - 1), _ALL, np.uint8)
    value = np.zeros((count, LEAVES), np.float32)
    for tree in range(count):
        leaves: list[int] = []
        tests: list[tuple[int, int]] = []
        _walk(trees.left[tree].tolist(), trees.right[tree].tolist(), leaves, tests)
        value[tree, : len(leaves)] = trees.value[tree, leaves]
        for at, (node, ruled_out) in enumerate(tests):
            column[tree, at], limit[tree, at] = trees.column[tree, node], trees.limit[tree, node]
            remaining[tree, at] = int(_ALL) & ~ruled_out
    return _Tests(column, limit, remaining, value.ravel(), np.arange(0, count * LEAVES, LEAVES))


def _walk(
    left: Sequence[int], right: Sequence[int], leaves: list[int], tests: list[tuple[int, int]], node: int = 0
) -> None:
    """Note the leaves below ``node`` from left to right, and each test with the bits of the leaves on its left."""
    if left[node] == node:
        leaves.append(node)
        if len(leaves) > LEAVES:
            raise ValueError(f"a tree has more than {LEAVES} leaves")
        return
    if not (node < left[node] < len(left) and node < right[node] < len(left)):
        raise ValueError("a tree turns back")
    before = len(leaves)
    _walk(left, right, leaves, tests, left[node])
    tests.append((node, (1 << len(leaves)) - (1 << before)))
    _walk(left, right, leaves, tests, right[node])


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything learned."""

    rarity: Floats
    """Inverse document frequency, shape (BUCKETS,)."""
    heads: Floats
    """Shape (BUCKETS, 3): logit of edge right, logit of cloud right, gain."""
    bias: Floats
    """Shape (3,)."""
    edge_trees: Trees
    gain_trees: Trees
    edge_blend: Floats
    """Constant, linear head, trees."""
    gain_blend: Floats
    """Constant, difference of the linear heads, linear gain, trees."""
    centre: Floats
    scale: Floats
    """Mean and deviation of each dense column."""
    strange: float
    """Distance from the centre that one training text in a hundred exceeds."""
    prior: Floats
    """Gain at the mean length, and what one deviation of length adds."""
    calibration: Floats
    """Ascending gains of unseen training questions at evenly spaced shares from 0 to 1."""


def linear(weights: Weights, columns: npt.NDArray[np.int64], counts: Floats) -> Floats:
    """Return the three linear heads' values for one text's pieces."""
    values = counts * weights.rarity[columns]
    length = float(np.sqrt(values @ values)) or 1.0
    total: Floats = ((values @ weights.heads[columns]) / length + weights.bias).astype(np.float32)
    return total


def parts(weights: Weights, heads: Floats, dense: Floats) -> tuple[Floats, Floats]:
    """Return what is blended for edge, shape (rows, 3), and for gain, shape (rows, 4), a column of ones first."""
    edge_right, difference, edge_trees, gain_trees = _views(weights, heads, dense)
    ones = np.ones(len(dense), dtype=np.float32)
    return np.stack([ones, edge_right, edge_trees], axis=1), np.stack(
        [ones, difference, heads[:, 2], gain_trees], axis=1
    )


def combine(weights: Weights, heads: Floats, dense: Floats) -> tuple[Floats, Floats]:
    """Return probability of edge right and gain for each row of linear heads and dense columns."""
    edge_right, difference, edge_trees, gain_trees = _views(weights, heads, dense)
    of_edge, of_gain = weights.edge_blend, weights.gain_blend
    scaled = _within((dense - weights.centre) / weights.scale, -_FAR, _FAR)
    unlike = FALL_BACK * _within((distance(scaled) / weights.strange - NEAR) / (1 - NEAR), 0, 1)
    prior = weights.prior[0] + weights.prior[1] * scaled[:, 0]
    blended = of_gain[0] + of_gain[1] * difference + of_gain[2] * heads[:, 2] + of_gain[3] * gain_trees
    gain = _within((1 - unlike) * blended + unlike * prior, -1, 1)
    edge = of_edge[0] + of_edge[1] * edge_right + of_edge[2] * edge_trees
    return _within(edge, np.maximum(0, -gain), np.minimum(1, 1 - gain)), gain


def _views(weights: Weights, heads: Floats, dense: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return edge right and the difference by the linear heads, and edge right and gain by the trees, each of shape (rows,)."""
    right = (1 / (1 + np.exp(-heads[:, :2]))).astype(np.float32)
    edge_right = right[:, 0]
    return edge_right, right[:, 1] - edge_right, weights.edge_trees.evaluate(dense), weights.gain_trees.evaluate(dense)


def distance(scaled: Floats) -> Floats:
    """Return how far each row of clipped deviations lies from the centre: their mean square."""
    mean: Floats = (scaled * scaled).sum(axis=1) / scaled.shape[1]
    return mean


def _within(values: Any, low: Any, high: Any) -> Any:
    """Return the values cut to the bounds; several times quicker on a single row than ``np.clip``."""
    return np.minimum(np.maximum(values, low), high)


class GainModel:
    """The model ready for use: holds about 0.6 MB, is never changed, may be shared between threads."""

    def __init__(self, weights: Weights, description: Description) -> None:
        self._weights = weights
        self._marks = weights.calibration.tolist()
        self.description = description
        self.name = description.name

    @classmethod
    def load(cls, path: Path | None = None) -> GainModel:
        """Read weights, the packaged ones when None; raise ConfigError naming the file and the mend."""
        path = path or PACKAGED
        mend = "make it anew with python -m coordinator.routing.train"
        try:
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                description = msgspec.json.decode(arrays["description"].tobytes(), type=Description)
                if description.format != FORMAT or description.columns != SURFACE:
                    raise ConfigError(f"{path} was made for another version: {mend}")
                weights = _unpack(arrays, len(description.columns))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}; {mend}") from error
        except (KeyError, ValueError, BadZipFile, EOFError, msgspec.DecodeError) as error:
            raise ConfigError(f"{path} holds no gain model: {mend}") from error
        return cls(weights, description)

    def save(self, path: Path) -> None:
        """Write the weights as data, the same bytes for the same weights; raise ConfigError when that fails."""
        description = np.frombuffer(msgspec.json.encode(self.description), dtype=np.uint8)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                np.savez_compressed(file, description=description, **_pack(self._weights))
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error

    def predict(self, text: str) -> Gain:
        """Return both probabilities for a text as `wording.plain` leaves it."""
        columns, counts = pieces(text)
        heads = linear(self._weights, columns, counts)
        dense = np.array([surface(text)], dtype=np.float32)
        edge, gain = combine(self._weights, heads[None, :], dense)
        return Gain(edge=float(edge[0]), cloud=float(edge[0] + gain[0]))

    def covers(self, text: str) -> bool:
        """Return whether the weights know texts of this language."""
        return self.description.language != "zh" or _CHINESE.search(text) is not None

    def score(self, gain: float) -> float:
        """Return the share in [0, 1] of calibration questions with less gain: at 0.7 and above lie the top 30 %."""
        return (bisect.bisect_left(self._marks, gain)) / len(self._marks)


_TREES = ("column", "limit", "left", "right", "value")
_SMALL = ("column", "left", "right")


def _pack(weights: Weights) -> dict[str, Any]:
    packed: dict[str, Any] = {
        "rarity": weights.rarity.astype(np.float16),
        "heads": weights.heads.astype(np.float16),
        "strange": np.float32(weights.strange),
    }
    for name in ("bias", "edge_blend", "gain_blend", "centre", "scale", "prior", "calibration"):
        packed[name] = getattr(weights, name).astype(np.float32)
    for name, trees in (("edge", weights.edge_trees), ("gain", weights.gain_trees)):
        packed[f"{name}_start"] = np.float32(trees.start)
        for part in _TREES:
            packed[f"{name}_{part}"] = getattr(trees, part).astype(np.int16 if part in _SMALL else np.float32)
    return packed


def _unpack(arrays: Mapping[str, npt.NDArray[Any]], columns: int) -> Weights:
    plain = {
        name: arrays[name].astype(np.float32)
        for name in ("rarity", "heads", "bias", "edge_blend", "gain_blend", "centre", "scale", "prior", "calibration")
    }
    if plain["heads"].shape != (BUCKETS, len(plain["bias"])) or plain["centre"].shape != (columns,):
        raise ValueError
    return Weights(
        **plain,
        strange=float(arrays["strange"]),
        edge_trees=_trees(arrays, "edge"),
        gain_trees=_trees(arrays, "gain"),
    )


def _trees(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Trees:
    found = {part: arrays[f"{name}_{part}"] for part in _TREES}
    typed: dict[str, Any] = {
        part: array.astype(np.int64 if part in _SMALL else np.float32) for part, array in found.items()
    }
    return Trees(**typed, start=float(arrays[f"{name}_start"]))
