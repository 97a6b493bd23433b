"""Files of stored outcomes into questions with both sides' results, copies and near-copies in one group.

``--data DIR`` holds what RouteLLM publishes under ``routellm/evals`` (``mmlu/*.csv``, ``gsm8k_responses.csv``; Apache-2.0) and the
training file of LLMRouter's ``data/dcrouter_preprocessed`` as ``llmrouter_train.json`` (MIT). Nothing of it is part of this project.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from coordinator.routing.outcomes import Outcome
from models.errors import ConfigError

Indices = npt.NDArray[np.int64]

WEAK = "mistralai/Mixtral-8x7B-Instruct-v0.1"
STRONG = "gpt-4-1106-preview"
PAIRS = {
    "mistral-nemotron": ("mistral-7b-instruct-v0.3", "llama-3.1-nemotron-51b-instruct"),
    "qwen-nemotron": ("qwen2.5-7b-instruct", "llama-3.1-nemotron-51b-instruct"),
}
"""Edge and cloud model of the pairs taken from LLMRouter."""
SUBJECTS = 57
NEAR = 0.5
"""Least share of common pieces (Jaccard, estimated) at which two questions count as one. A guess on the careful side."""

_SHINGLE = 7
"""Characters of a piece for comparing questions."""
_HASHES = 64
_BAND = 4
"""16 bands of 4: a pair with half its pieces in common meets in a band with probability 0.64, with 0.7 of them 0.99."""


def load_mmlu(folder: Path) -> list[Outcome]:
    """Return MMLU's questions grouped by subject; raise ConfigError when files are missing or malformed."""
    files = sorted((folder / "mmlu").glob("mmlu_*.csv"))
    if len(files) != SUBJECTS:
        raise ConfigError(f"{folder / 'mmlu'} holds {len(files)} of {SUBJECTS} mmlu_*.csv: copy RouteLLM's evals/mmlu")
    found: list[Outcome] = []
    for file in files:
        subject = file.stem.removeprefix("mmlu_")
        found += _responses(file, kind=subject, group=subject)
    return found


def load_gsm8k(folder: Path) -> list[Outcome]:
    """Return GSM8K's questions grouped by near-copies; raise ConfigError when the file is missing or malformed."""
    return regrouped(_responses(folder / "gsm8k_responses.csv", kind="arithmetic", group=""))


def load_pair(folder: Path, edge: str, cloud: str) -> list[Outcome]:
    """Return LLMRouter's questions with these two models' scores, grouped by near-copies; raise ConfigError as above."""
    path = folder / "llmrouter_train.json"
    try:
        rows = msgspec.json.decode(_bytes(path), type=list[_Row])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is not LLMRouter's list of questions with scores: {error}") from error
    missing = {name for row in rows for name in (edge, cloud) if name not in row.scores}
    if missing:
        raise ConfigError(f"{path} has questions without a score of {', '.join(sorted(missing))}")
    return regrouped(
        [
            Outcome(
                id=f"llmrouter-{number}",
                text=row.question,
                edge=min(max(row.scores[edge], 0.0), 1.0),
                cloud=min(max(row.scores[cloud], 0.0), 1.0),
            )
            for number, row in enumerate(rows)
        ]
    )


def regrouped(items: Sequence[Outcome]) -> list[Outcome]:
    """Return the items with copies and near-copies in one group, named by the first of them."""
    clusters = near_copies([item.text for item in items])
    return [msgspec.structs.replace(item, group=items[first].id) for item, first in zip(items, clusters, strict=True)]


def near_copies(texts: Sequence[str]) -> list[int]:
    """Return for each text the index of the first one of its cluster, numbers and spacing left out of the comparison.

    Candidates meet by MinHash in bands; a pair is joined when its estimated Jaccard similarity reaches ``NEAR``.
    """
    signatures = (
        np.stack([_signature(template(text)) for text in texts]) if texts else np.zeros((0, _HASHES), np.uint64)
    )
    parent = list(range(len(texts)))
    for left, right in _candidates(signatures):
        first, second = _root(parent, left), _root(parent, right)
        if first != second and float(np.mean(signatures[left] == signatures[right])) >= NEAR:
            parent[max(first, second)] = min(first, second)
    return [_root(parent, index) for index in range(len(texts))]


def template(text: str) -> str:
    """Return ``text`` without what near-copies differ in: case, numbers, spacing and punctuation."""
    return re.sub(r"\W+", " ", re.sub(r"\d+(?:[.,]\d+)*", "0", text.lower())).strip()


class _Row(msgspec.Struct, frozen=True):
    question: str
    scores: Mapping[str, float]


def _responses(path: Path, *, kind: str, group: str) -> list[Outcome]:
    rows = csv.DictReader(_bytes(path).decode("utf-8", "replace").splitlines(keepends=True))
    found: list[Outcome] = []
    for number, row in enumerate(rows):
        text, edge, cloud = row.get("prompt"), row.get(WEAK), row.get(STRONG)
        if not text or edge not in _RIGHT or cloud not in _RIGHT:
            raise ConfigError(
                f"{path}, record {number + 1}: wants a prompt and True or False under {WEAK} and {STRONG}"
            )
        name = f"{path.stem}-{number}"
        found.append(
            Outcome(id=name, text=text, kind=kind, group=group or name, edge=_RIGHT[edge], cloud=_RIGHT[cloud])
        )
    if not found:
        raise ConfigError(f"{path} holds no questions")
    return found


_RIGHT = {"True": 1.0, "False": 0.0}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; name the folder with --data") from error


_RANDOM = np.random.default_rng(1)
_FACTORS = _RANDOM.integers(1 << 62, 1 << 63, size=_HASHES, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 1 << 63, size=_HASHES, dtype=np.uint64)


def _signature(text: str) -> npt.NDArray[np.uint64]:
    ends = range(max(len(text) - _SHINGLE + 1, 1))
    shingles = {zlib.crc32(text[start : start + _SHINGLE].encode("utf-8", "replace")) for start in ends}
    hashed = np.fromiter(shingles, dtype=np.uint64)[:, None] * _FACTORS + _OFFSETS
    signature: npt.NDArray[np.uint64] = (hashed >> np.uint64(32)).min(axis=0)
    return signature


def _candidates(signatures: npt.NDArray[np.uint64]) -> Iterable[tuple[int, int]]:
    for start in range(0, _HASHES, _BAND):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for index, row in enumerate(signatures):
            buckets[row[start : start + _BAND].tobytes()].append(index)
        for members in buckets.values():
            for index in members[1:]:
                yield members[0], index


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index
