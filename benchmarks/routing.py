"""How well routers choose which questions deserve the cloud: random, length, the first score, ours and an oracle side by side.

``python -m benchmarks routing [--data DIR]``: on our own Chinese requests with the outcomes of the two starter models, and with --data
on published outcomes too. Ours is trained here on four fifths and judged on the rest, by unseen group (subject, or
cluster of near-copies) and on a random split; on GSM8K the headline's weights come from MMLU alone. No threshold or blend is chosen on
a test fold; the shape of the model was, so its figures flatter a little. Promise, budget, adversaries and the time of a decision follow.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.report import report_of, show, table_of, write_json
from benchmarks.routing_budget import budget_results, budget_table
from benchmarks.routing_data import PAIRS, load_gsm8k, load_mmlu, load_pair
from benchmarks.routing_decisions import adversary_results, decision_us, prediction_us
from benchmarks.routing_decisions import tables as decision_tables
from benchmarks.routing_promise import Scored, promise_results, promise_table
from benchmarks.routing_scores import Floats, difference, figures, oracle, realised, shares
from coordinator.routing import train
from coordinator.routing.complexity import complexity
from coordinator.routing.gain import Weights
from coordinator.routing.outcomes import Outcome, read_outcomes, write_outcomes
from coordinator.routing.padding import padded

Indices = npt.NDArray[np.int64]

FOLDS = 5
THRESHOLD = 0.7
"""Score at which realised shares and losses are told: the policy's default."""
TIMED = 400
"""Questions of each set whose decision is timed."""
TRIED = 4
"""Of the Chinese requests every so manyth is reworded."""
COPIES = 2
"""Of each of our own requests, with chatter around them: what the packaged weights learn from, too."""
OWN = "requests-zh"
OWN_OUTCOMES = Path(__file__).parent / "requests_zh" / "outcomes.jsonl"
ROUTERS = ("random", "length", "seeds", "difficulty", "gain", "oracle")
_COLUMNS = ("router", "APGR", "95 %", "CPT50 %", "CPT80 %", "random split", "95 %")


@dataclass(frozen=True, slots=True)
class Judged:
    """What ours says of every question, learned without its fold."""

    gain: Floats
    difficulty: Floats
    score: Floats
    """Share of the training questions with less gain, so a threshold on it was fixed before the test fold was seen."""

    def first(self, count: int) -> Judged:
        """Return what is said of the first questions."""
        return Judged(self.gain[:count], self.difficulty[:count], self.score[:count])


def command(
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with RouteLLM's and LLMRouter's published outcomes; without it only our own set."),
    ] = None,
    outcomes: Annotated[list[Path] | None, typer.Option(help="Further outcomes, one JSON object a line.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write each set as outcomes into this folder and stop.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    seed: Annotated[int, typer.Option(help="Of folds and bootstrap.")] = 0,
) -> None:
    """Compare routers on stored outcomes."""
    console = Console()
    started_at = datetime.now(UTC)
    sets = load(data, outcomes or [])
    if export is not None:
        export.mkdir(parents=True, exist_ok=True)
        for name, items in sets.items():
            write_outcomes(items, export / f"{name}.jsonl")
        return
    with console.status("reading questions") as status:
        results = results_of(sets, seed=seed, tell=status.update)
    report = report_of(
        "routing",
        shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        engines="real",
        results=results,
        started_at=started_at,
    )
    show(console, report, tables_of(results, list(sets)))
    if json is not None:
        write_json(report, json)


def load(data: Path | None, outcomes: Sequence[Path]) -> dict[str, list[Outcome]]:
    """Return every set by name; raise ConfigError naming what is missing or malformed."""
    found = {OWN: read_outcomes(OWN_OUTCOMES)}
    if data is not None:
        found |= {"mmlu": load_mmlu(data), "gsm8k": load_gsm8k(data)}
        found |= {name: load_pair(data, *pair) for name, pair in PAIRS.items()}
    return found | {path.stem: read_outcomes(path) for path in outcomes}


def results_of(sets: dict[str, list[Outcome]], *, seed: int, tell: Any = lambda _: None) -> dict[str, Any]:
    """Return each set's figures and the time of a decision."""
    tables: dict[str, train.Table] = {}
    results: dict[str, Any] = {}
    for name, items in sets.items():
        tell(f"{name}: reading {len(items)} questions")
        copies = padded(items, COPIES, seed) if name == OWN else []
        tables[name] = train.table_of([*items, *copies])
        train.check(tables[name])
        elsewhere = tables["mmlu"] if name == "gsm8k" and "mmlu" in tables else None
        results[name] = set_results(
            items, tables[name], trained_on=elsewhere, seed=seed, tell=lambda s, n=name: tell(f"{n}: {s}")
        )
    results["promise"] = results[OWN]["promise"]
    tell("budget")
    results["budget"] = budget_results(seed=seed)
    tell("adversaries")
    results["adversaries"] = adversary_results(sets[OWN][::TRIED])
    timed = [item for items in sets.values() for item in items[:TIMED]]
    results["decision_us"], results["prediction_us"] = decision_us(timed), prediction_us(timed)
    return results


def set_results(
    items: Sequence[Outcome], table: train.Table, *, trained_on: train.Table | None, seed: int, tell: Any
) -> dict[str, Any]:
    """Return one set's figures by unseen group, with those of a random split under "random_split".

    Rows of ``table`` beyond the items are copies of them, to be learned from only.
    """
    count = len(items)
    groups = np.unique(table.groups[:count], return_inverse=True)[1]
    alone = (np.arange(len(table.groups)) % count).astype(str)
    tell("by unseen group")
    unseen = judged_elsewhere(table, trained_on, seed) if trained_on else judged(table, table.groups, seed)
    tell("random split")
    mixed = judged(table, alone, seed)
    edge, cloud = table.edge[:count].astype(np.float64), table.cloud[:count].astype(np.float64)
    unseen, mixed = unseen.first(count), mixed.first(count)
    # near-copies are drawn together, but subjects are not: fifty-seven would be too few to draw from
    clusters = groups if len(set(groups.tolist())) > len(items) // 10 else None
    tell("bootstrap")
    results: dict[str, Any] = {"questions": len(items), "groups": int(groups.max()) + 1}
    results |= _percent(shares(edge, cloud))
    for split, found in (("unseen", unseen), ("random", mixed)):
        scores = router_scores(items, edge, cloud, found, seed)
        compared = {name: figures(score, edge, cloud, clusters=clusters, seed=seed) for name, score in scores.items()}
        compared["gain"] |= {"at_threshold": realised(found.score, THRESHOLD, edge, cloud)}
        for other in ("length", "seeds", "difficulty"):
            compared["gain"][f"over_{other}"] = difference(
                scores["gain"], scores[other], cloud - edge, clusters=clusters, seed=seed
            )
        results |= compared if split == "unseen" else {"random_split": compared}
    tell("promise")
    scored = [
        Scored(score=score, edge=item.edge, cloud=item.cloud, group=item.group)
        for score, item in zip(unseen.score.tolist(), items, strict=True)
    ]
    results["promise"] = promise_results(scored, seed)
    results["promise_by_group"] = promise_results(scored, seed, by_group=True)
    return results


def router_scores(items: Sequence[Outcome], edge: Floats, cloud: Floats, found: Judged, seed: int) -> dict[str, Floats]:
    """Return every router's score of every question; random is one draw, as a router that tosses a coin would be."""
    return {
        "random": np.random.default_rng(seed).random(len(items)),
        "length": np.array([len(item.text) for item in items], dtype=np.float64),
        "seeds": np.array([complexity(train.prompt_of(item)) for item in items]),
        "difficulty": found.difficulty,
        "gain": found.gain,
        "oracle": oracle(edge, cloud),
    }


def judged(table: train.Table, groups: npt.NDArray[np.str_], seed: int) -> Judged:
    """Return what weights trained without a question's fold say of it; folds keep ``groups`` whole."""
    part = train.folds(groups, FOLDS, seed)
    found = np.zeros((3, len(part)))
    for fold in range(FOLDS):
        # inside, the groups of the data hold for blending, whatever the outer split is
        weights = train.fit(replace(table, groups=groups), np.flatnonzero(part != fold), seed=seed)
        held = np.flatnonzero(part == fold)
        found[:, held] = _said(weights, table, held)
    return Judged(*found)


def judged_elsewhere(table: train.Table, source: train.Table, seed: int) -> Judged:
    """Return what weights trained on another set say."""
    weights = train.fit(source, np.arange(len(source.edge)), seed=seed)
    return Judged(*_said(weights, table, np.arange(len(table.edge))))


def tables_of(results: dict[str, Any], names: Sequence[str]) -> list[RichTable]:
    """Return a table for each set, and one for time."""
    tables = []
    for name in names:
        found = results[name]
        title = (
            f"{name}: {found['questions']} questions in {found['groups']} groups; edge right {found['edge_right']:.1f} %, "
            f"cloud {found['cloud_right']:.1f} %, both wrong {found['both_wrong']:.1f} %, only edge right {found['edge_only_right']:.1f} %"
        )
        tables.append(table_of(title, _COLUMNS, [_row(router, found) for router in ROUTERS]))
        at = [
            (split, where["gain"]["at_threshold"])
            for split, where in (("unseen", found), ("random", found["random_split"]))
        ]
        rows = [
            (split, f"{100 * cut['cloud_share']:.1f}", f"{100 * cut['quality']:.1f}", f"{100 * cut['loss']:.1f}")
            for split, cut in at
        ]
        columns = ("split", "cloud calls %", "right %", "lost to all-cloud %")
        tables.append(table_of(f"{name}: gain at threshold {THRESHOLD}, fixed before", columns, rows))
        tables.append(promise_table(f"{name}, random halves", found["promise"]))
        tables.append(promise_table(f"{name}, unseen groups", found["promise_by_group"]))
    return [*tables, budget_table(results["budget"]), *decision_tables(results)]


def _row(router: str, found: dict[str, Any]) -> tuple[object, ...]:
    head, mixed = found[router], found["random_split"][router]
    return (
        router,
        f"{head['apgr']:.3f}",
        _ends(head["interval"]),
        f"{100 * head['cpt50']:.0f}",
        f"{100 * head['cpt80']:.0f}",
        f"{mixed['apgr']:.3f}",
        _ends(mixed["interval"]),
    )


def _ends(interval: Sequence[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _percent(found: dict[str, float]) -> dict[str, float]:
    return {name: round(100 * value, 1) for name, value in found.items()}


def _said(weights: Weights, table: train.Table, rows: Indices) -> npt.NDArray[np.float64]:
    edge, gain = train.predict(weights, table, rows)
    score = np.searchsorted(weights.calibration, gain) / len(weights.calibration)
    return np.stack([gain, 1 - edge, score]).astype(np.float64)
