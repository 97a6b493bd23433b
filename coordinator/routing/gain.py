"""What the cloud would gain on a request: two probabilities from a small model of plain arrays, numpy only.

Three linear heads over hashed pieces (edge right, cloud right, their difference) and two sets of small trees over dense columns are
blended by weights learned on data the parts had not seen. Texts unlike all training data fall back half way to "longer gains more".
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np
import numpy.typing as npt

from coordinator.routing.features import BUCKETS, SURFACE, pieces, surface
from coordinator.routing.signals import NAMES, Signals, numbers
from models.errors import ConfigError

Floats = npt.NDArray[np.float32]

PACKAGED = Path(__file__).parent / "weights" / "default.npz"
FORMAT = 1
"""Raised when older programs could not read the arrays rightly."""
COLUMNS = (*SURFACE, *NAMES)
"""Dense columns in order."""
DEPTH = 7
"""Steps from a tree's root to any leaf: no tree has more than 8 leaves."""
FALL_BACK = 0.5
"""Weight of the length prior for a text unlike all training data, from half of `Weights.strange` on: neither is known to be better."""
_FAR = 8.0
"""Standard deviations at which one strange column stops counting for more."""


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

    def evaluate(self, dense: Floats) -> Floats:
        """Return one value for each row of ``dense``, shape (rows, columns)."""
        trees, nodes = self.column.shape
        offsets = np.arange(0, trees * nodes, nodes)
        column, limit, left, right = (part.ravel() for part in (self.column, self.limit, self.left, self.right))
        rows = np.arange(len(dense))[:, None] * dense.shape[1]
        node = np.repeat(offsets[None, :], len(dense), axis=0)
        for _ in range(DEPTH):
            found = dense.take(rows + column.take(node))
            node = np.where(found <= limit.take(node), left.take(node), right.take(node)) + offsets
        total: Floats = self.start + self.value.ravel().take(node).sum(axis=1)
        return total


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
    right = 1 / (1 + np.exp(-heads[:, :2]))
    ones = np.ones(len(dense), dtype=np.float32)
    edge = np.stack([ones, right[:, 0], weights.edge_trees.evaluate(dense)], axis=1)
    gain = np.stack([ones, right[:, 1] - right[:, 0], heads[:, 2], weights.gain_trees.evaluate(dense)], axis=1)
    return edge, gain


def combine(weights: Weights, heads: Floats, dense: Floats) -> tuple[Floats, Floats]:
    """Return probability of edge right and gain for each row of linear heads and dense columns."""
    edge_parts, gain_parts = parts(weights, heads, dense)
    scaled = np.clip((dense - weights.centre) / weights.scale, -_FAR, _FAR)
    unlike = FALL_BACK * np.clip(2 * distance(scaled) / weights.strange - 1, 0, 1)
    prior = weights.prior[0] + weights.prior[1] * scaled[:, 0]
    gain = np.clip((1 - unlike) * (gain_parts @ weights.gain_blend) + unlike * prior, -1, 1)
    edge = np.clip(edge_parts @ weights.edge_blend, np.maximum(0, -gain), np.minimum(1, 1 - gain))
    return edge, gain


def distance(scaled: Floats) -> Floats:
    """Return how far each row's surface lies from the centre: the mean square of its deviations, subjects left out."""
    mean: Floats = np.mean(np.clip(scaled[:, : len(SURFACE)], -_FAR, _FAR) ** 2, axis=1)
    return mean


def dense_of(text: str, signals: Signals) -> Floats:
    """Return the dense columns of one text, shape (columns,)."""
    return np.array([*surface(text), *numbers(signals)], dtype=np.float32)


class GainModel:
    """The model ready for use: holds about 0.6 MB, is never changed, may be shared between threads."""

    def __init__(self, weights: Weights, description: Description) -> None:
        self._weights = weights
        self._marks = weights.calibration.tolist()
        self._wanted = np.array([COLUMNS.index(column) for column in description.columns])
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
                missing = set(description.columns) - set(COLUMNS)
                if description.format != FORMAT or missing:
                    lacks = f" (it wants {', '.join(sorted(missing))})" if missing else ""
                    raise ConfigError(f"{path} was made for another version{lacks}: {mend}")
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

    def predict(self, text: str, signals: Signals) -> Gain:
        """Return both probabilities for a text as `wording.plain` leaves it and the signals read from its prompt."""
        columns, counts = pieces(text)
        heads = linear(self._weights, columns, counts)
        edge, gain = combine(self._weights, heads[None, :], dense_of(text, signals)[None, self._wanted])
        return Gain(edge=float(edge[0]), cloud=float(edge[0] + gain[0]))

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
