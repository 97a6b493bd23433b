"""The edge model's own doubt: how unlikely it found the first tokens it wrote; pure.

The first words are held back for a few tokens; if the model was unsure of them the cloud may be asked before anything is said.
"""

from __future__ import annotations

from coordinator.clauses import Clauses
from models.prompts import CompletionDelta

DOUBT_TOKENS = 8
"""Tokens that are judged: later ones come too late for the first sound, and the benchmark of outcomes keeps as many."""
DOUBTFUL = -0.73
"""Mean log-probability below which the starter model is right on 13 % of requests, against 27 % on all: its most doubtful fifth. From
``benchmarks/requests_zh/outcomes.jsonl``, where the cloud gains 0.33 on these and 0.27 on all: worth handing over, no sure sign."""


class Doubt:
    """Holds an answer's beginning until it can be judged: ``DOUBT_TOKENS`` tokens, or the first clause if that is shorter."""

    def __init__(self) -> None:
        self._logprobs: tuple[float, ...] = ()
        self._held = ""
        self._clauses = Clauses()
        self._is_judged = False

    def feed(self, delta: CompletionDelta) -> str:
        """Return what may be given out, "" while there is too little to judge."""
        if self._is_judged:
            return delta.text
        self._logprobs = (*self._logprobs, *delta.logprobs)[:DOUBT_TOKENS]
        self._held += delta.text
        is_enough = len(self._logprobs) == DOUBT_TOKENS or bool(self._clauses.feed(delta))
        return self.flush() if is_enough else ""

    def flush(self) -> str:
        """Return what is held: there is no more to judge by."""
        self._is_judged = True
        given, self._held = self._held, ""
        return given

    def doubts(self, threshold: float) -> bool:
        """Return whether the first tokens' mean log-probability is below ``threshold``; False for engines that tell none."""
        return bool(self._logprobs) and sum(self._logprobs) / len(self._logprobs) < threshold
