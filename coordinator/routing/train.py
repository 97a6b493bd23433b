"""Files of outcomes into the weights of the gain model: ``python -m coordinator.routing.train OUTCOMES... --out FILE``.

Each line of OUTCOMES is an `Outcome` as JSON. The parts are fitted on all questions; how they are blended, the calibration and the
distribution behind `score` come from folds by group, so from questions whose groups the parts had not seen. Needs the extra "train".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from coordinator.routing import gain
from coordinator.routing.features import BUCKETS, RISING, SURFACE, pieces, surface
from coordinator.routing.gain import Description, GainModel, Trees, Weights
from coordinator.routing.outcomes import Outcome, read_outcomes
from coordinator.routing.padding import padded
from coordinator.routing.promise import Promises, losses_of, promises_of, write_promises
from coordinator.routing.wording import plain
from models.errors import ConfigError, VoiceError
from models.prompts import Message, Prompt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

FOLDS = 3
"""For blending. A guess: more were not tried."""
MARKS = 1001
"""Points of the calibration distribution: thresholds are exact to 0.1 %."""
MIN_QUESTIONS = 200
MIN_MINORITY = 20
"""Fewer right or wrong answers of a side than this teach nothing about it. Both are guesses."""
RIDGE = 10.0
"""Penalty of the linear gain; with TREES and LOGIT picked from a few dozen variants on the folds that are reported, so figures there flatter."""
LOGIT = 1.0
TREES = {
    "max_iter": 80, "learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 60, "l2_regularization": 10.0,
    "max_features": 0.5, "early_stopping": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Questions as numbers; row i of each belongs to question i."""

    pieces: Any
    """Sparse matrix, shape (questions, BUCKETS), of counts as `pieces` gives them."""
    dense: Floats
    """Shape (questions, SURFACE)."""
    edge: Floats
    cloud: Floats
    groups: npt.NDArray[np.str_]


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """Return the outcomes as numbers."""
    from scipy.sparse import csr_matrix

    found, dense = [], []
    for outcome in outcomes:
        text = plain(outcome.text)
        found.append(pieces(text))
        dense.append(surface(text))
    ends = np.cumsum([0, *(len(columns) for columns, _ in found)])
    columns, counts = (np.concatenate(part) for part in zip(*found, strict=True))
    return Table(
        pieces=csr_matrix((counts, columns, ends), shape=(len(found), BUCKETS)),
        dense=np.array(dense, dtype=np.float32),
        edge=np.array([outcome.edge for outcome in outcomes], dtype=np.float32),
        cloud=np.array([outcome.cloud for outcome in outcomes], dtype=np.float32),
        groups=np.array([outcome.group or outcome.id for outcome in outcomes]),
    )


def prompt_of(outcome: Outcome) -> Prompt:
    """Return the prompt a router would see: the question alone."""
    return Prompt(turn_id=outcome.id, messages=(Message(role="user", text=outcome.text),))


def folds(groups: npt.NDArray[np.str_], count: int, seed: int) -> Indices:
    """Return each row's fold: groups stay whole, folds are as even as greedily possible, the same for the same seed."""
    names, owner, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    filled, fold_of = np.zeros(count), np.zeros(len(names), dtype=np.int64)
    for name in sorted(shuffled, key=lambda name: -sizes[name]):
        fold_of[name] = np.argmin(filled)
        filled[fold_of[name]] += sizes[name]
    return fold_of[owner]


def fit(table: Table, rows: Indices, *, seed: int = 0, tell: Callable[[str], None] = lambda _: None) -> Weights:
    """Return weights learned from these rows alone; the same for the same rows and seed."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

    with threadpool_limits(1):  # threads that wait for each other take minutes instead of seconds on a busy machine
        return _fitted(table, rows, seed, tell)


def _fitted(table: Table, rows: Indices, seed: int, tell: Callable[[str], None]) -> Weights:
    part = folds(table.groups[rows], FOLDS, seed)
    edge_parts, gain_parts = np.zeros((len(rows), 3), np.float32), np.zeros((len(rows), 4), np.float32)
    for fold in range(FOLDS):
        tell(f"fold {fold + 1} of {FOLDS}")
        held = part == fold
        weights = _fit_parts(table, rows[~held], seed)
        dense = table.dense[rows[held]]
        edge_parts[held], gain_parts[held] = gain.parts(weights, _heads(weights, table, rows[held]), dense)
    target = table.cloud[rows] - table.edge[rows]
    gain_blend = _blend(gain_parts, target)
    tell("all questions")
    weights = replace(
        _fit_parts(table, rows, seed),
        edge_blend=_blend(edge_parts, table.edge[rows]),
        gain_blend=gain_blend,
        calibration=np.quantile(gain_parts @ gain_blend, np.linspace(0, 1, MARKS)).astype(np.float32),
    )
    return _rounded(weights)


def predict(weights: Weights, table: Table, rows: Indices) -> tuple[Floats, Floats]:
    """Return probability of edge right and gain of these rows."""
    return gain.combine(weights, _heads(weights, table, rows), table.dense[rows])


def check(table: Table) -> None:
    """Raise ConfigError when there is too little, or only one kind of outcome, to learn from."""
    count = len(table.edge)
    if count < MIN_QUESTIONS:
        raise ConfigError(f"{count} outcomes are too few to learn from: bring {MIN_QUESTIONS} or more")
    if len(set(table.groups)) < FOLDS:
        raise ConfigError(f"the outcomes lie in fewer than {FOLDS} groups: nothing can be held out")
    for side, right in (("edge", table.edge), ("cloud", table.cloud)):
        good = int((right >= _HALF).sum())
        if min(good, count - good) < MIN_MINORITY:
            raise ConfigError(
                f"{side} is right on {good} of {count}: at least {MIN_MINORITY} right and {MIN_MINORITY} wrong are needed"
            )


def model_of(
    outcomes: Sequence[Outcome],
    sources: Sequence[str],
    *,
    name: str,
    seed: int = 0,
    attribution: str = "",
    language: str = "",
    copies: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> GainModel:
    """Return a model trained on the outcomes and so many padded ``copies`` of each; raise ConfigError when they do not suffice."""
    tell(f"reading {len(outcomes)} questions")
    check(table_of(outcomes))
    table = table_of([*outcomes, *padded(outcomes, copies, seed)])
    weights = fit(table, np.arange(len(table.edge)), seed=seed, tell=tell)
    description = Description(
        name=name,
        format=gain.FORMAT,
        columns=SURFACE,
        data=tuple(sources),
        questions=len(outcomes),
        edge_right=round(float(table.edge.mean()), 4),
        cloud_right=round(float(table.cloud.mean()), 4),
        seed=seed,
        attribution=attribution,
        language=language,
    )
    return GainModel(weights, description)


def promises(outcomes: Sequence[Outcome], *, name: str, data: str, copies: int = 0, seed: int = 0) -> Promises:
    """Return what can be promised with the scores of this model, from scores of questions whose groups the weights had not seen."""
    table = table_of([*outcomes, *padded(outcomes, copies, seed)])
    part = folds(table.groups, FOLDS, seed)
    count = len(outcomes)
    scores = np.zeros(count)
    for fold in range(FOLDS):
        held = np.flatnonzero(part[:count] == fold)
        weights = fit(table, np.flatnonzero(part != fold), seed=seed)
        found = predict(weights, table, held)[1]
        scores[held] = np.searchsorted(weights.calibration, found) / len(weights.calibration)
    losses = losses_of(table.edge[:count].astype(np.float64), table.cloud[:count].astype(np.float64))
    return promises_of(scores, losses, model=name, data=data)


def main(
    outcomes: Annotated[list[Path], typer.Argument(help="Files of outcomes, one JSON object a line.")],
    out: Annotated[Path, typer.Option(help="Write the weights there (.npz).")],
    name: Annotated[str, typer.Option(help="Name of the model in decisions and metrics.")] = "gain",
    seed: Annotated[int, typer.Option(help="The same seed and data give the same bytes.")] = 0,
    attribution: Annotated[str, typer.Option(help="Whose data it is and under which licence; kept in the file.")] = "",
    language: Annotated[
        str, typer.Option(help='"zh": texts without a Chinese character are left to the first score.')
    ] = "",
    copies: Annotated[
        int, typer.Option(min=0, max=9, help="Chinese requests are also learned with chatter around them.")
    ] = 0,
    keep_promises: Annotated[
        Path | None,
        typer.Option("--promises", help="Also write there which quality floors the outcomes prove (.json)."),
    ] = None,
) -> None:
    """Train the gain model on what edge and cloud made of known questions."""
    console = Console(stderr=True)
    try:
        read_files = {path: read_outcomes(path) for path in outcomes}
        with console.status("training") as status:
            model = model_of(
                [item for items in read_files.values() for item in items],
                [f"{path.name}: {len(items)}" for path, items in read_files.items()],
                name=name,
                seed=seed,
                attribution=attribution,
                language=language,
                copies=copies,
                tell=lambda step: status.update(f"training: {step}"),
            )
            model.save(out)
            if keep_promises is not None:
                status.update("promises")
                items = [item for found in read_files.values() for item in found]
                proven = promises(items, name=name, data=", ".join(model.description.data), copies=copies, seed=seed)
                write_promises(proven, keep_promises)
    except VoiceError as error:
        console.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    found = model.description
    console.print(
        f"{out}: {found.questions} questions, edge right {found.edge_right:.1%}, cloud {found.cloud_right:.1%}"
    )


_HALF = 0.5


def _fit_parts(table: Table, rows: Indices, seed: int) -> Weights:
    """Return weights whose blends and calibration are still empty."""
    matrix, edge, cloud = table.pieces[rows], table.edge[rows], table.cloud[rows]
    rarity = np.log((1 + len(rows)) / (1 + np.bincount(matrix.indices, minlength=BUCKETS))) + 1
    heads, bias = _fit_heads(_weighted(matrix, rarity), edge, cloud)
    dense = table.dense[rows]
    centre, scale = dense.mean(axis=0), np.maximum(dense.std(axis=0), 0.05)
    rising = np.array([int(column in RISING) for column in SURFACE])
    scaled = np.clip((dense - centre) / scale, -8, 8)
    slope = float(np.mean(scaled[:, 0] * (cloud - edge)))
    return Weights(
        rarity=rarity.astype(np.float32),
        heads=heads,
        bias=bias,
        edge_trees=_fit_trees(dense, edge, -rising, seed),
        gain_trees=_fit_trees(dense, cloud - edge, rising, seed),
        edge_blend=np.zeros(3, np.float32),
        gain_blend=np.zeros(4, np.float32),
        centre=centre,
        scale=scale,
        strange=float(np.quantile(gain.distance(scaled), 0.99)),
        prior=np.array([np.mean(cloud - edge), max(slope, 0.0)], dtype=np.float32),
        calibration=np.zeros(1, np.float32),
    )


def _fit_heads(matrix: Any, edge: Floats, cloud: Floats) -> tuple[Floats, Floats]:
    from sklearn.linear_model import LogisticRegression, Ridge

    columns, bias = [], []
    for right in (edge, cloud):
        logistic = LogisticRegression(C=LOGIT, tol=1e-3).fit(matrix, right >= _HALF)
        columns.append(logistic.coef_[0])
        bias.append(logistic.intercept_[0])
    ridge = Ridge(alpha=RIDGE, solver="sparse_cg", tol=1e-3).fit(matrix, cloud - edge)
    columns.append(ridge.coef_)
    bias.append(ridge.intercept_)
    return np.stack(columns, axis=1).astype(np.float32), np.array(bias, dtype=np.float32)


def _fit_trees(dense: Floats, target: Floats, rising: Indices, seed: int) -> Trees:
    from sklearn.ensemble import HistGradientBoostingRegressor

    fitted = HistGradientBoostingRegressor(monotonic_cst=rising, random_state=seed, **TREES).fit(dense, target)
    tables = [step[0].nodes for step in fitted._predictors]  # noqa: SLF001 - scikit-learn shows its trees nowhere else
    shape = (len(tables), max(map(len, tables)))
    column, left, right = (np.zeros(shape, np.int64) for _ in range(3))
    limit, value = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for tree, nodes in enumerate(tables):
        size, leaf, own = len(nodes), nodes["is_leaf"].astype(bool), np.arange(len(nodes))
        column[tree, :size] = nodes["feature_idx"]
        limit[tree, :size] = nodes["num_threshold"]
        left[tree, :size] = np.where(leaf, own, nodes["left"])
        right[tree, :size] = np.where(leaf, own, nodes["right"])
        value[tree, :size] = nodes["value"]
    start = float(np.ravel(fitted._baseline_prediction)[0])  # noqa: SLF001 - as above
    return Trees(column=column, limit=limit, left=left, right=right, value=value, start=start)


def _blend(parts: Floats, target: Floats) -> Floats:
    """Return constant and weights that are never negative: a part that hurts is left out, not turned round."""
    from sklearn.linear_model import LinearRegression

    fitted = LinearRegression(positive=True).fit(parts[:, 1:], target)
    return np.array([fitted.intercept_, *fitted.coef_], dtype=np.float32)


def _weighted(matrix: Any, rarity: npt.NDArray[Any]) -> Any:
    from sklearn.preprocessing import normalize

    return normalize(matrix.multiply(rarity).tocsr())


def _heads(weights: Weights, table: Table, rows: Indices) -> Floats:
    heads: Floats = (_weighted(table.pieces[rows], weights.rarity) @ weights.heads + weights.bias).astype(np.float32)
    return heads


def _rounded(weights: Weights) -> Weights:
    """Return the weights as the file keeps them, so that a saved model decides like the one in memory."""
    return replace(
        weights,
        rarity=weights.rarity.astype(np.float16).astype(np.float32),
        heads=weights.heads.astype(np.float16).astype(np.float32),
    )


if __name__ == "__main__":
    typer.run(main)
