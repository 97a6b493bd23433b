"""The nouns between those who want answers, the scheduler of steps and the engine that computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from models.errors import VoiceError


class Outcome(Enum):
    """How a step of the engine ended."""

    DONE = auto()
    FULL = auto()
    """Nothing was computed: the memory has no room."""
    STOPPED = auto()
    """Somebody asked; a part may have been computed."""
    BROKEN = auto()
    """A part may have been computed."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The next tokens of one sequence, at most one feed of each in a step."""

    sequence: int
    start: int
    """Position of the first token."""
    tokens: Sequence[int]
    wants_token: bool
    """Whether ``sample`` will be called for it."""


class Engine(Protocol):
    """A language model with many dialogues in its memory, see ``models.llama_engine``; calls block and come from one thread."""

    def sampler(self, seed: int) -> Any:
        """Return the dice of one answer."""
        ...

    def decode(self, feeds: Sequence[Feed]) -> Outcome:
        """Compute the feeds in one step."""
        ...

    def sample(self, feed: int, sampler: Any) -> tuple[int | None, float | None]:
        """Return the token after the ``feed``-th feed of the last step, None at the answer's end, and its log-probability if told."""
        ...

    def forget(self, sequence: int, start: int) -> bool:
        """Drop a sequence's tokens from ``start`` on; False when it can only forget all of it."""
        ...

    def share(self, source: int, target: int, count: int) -> None:
        """Make the first ``count`` tokens of ``source`` those of the empty ``target`` too."""
        ...


@dataclass(eq=False, slots=True)
class Job:
    """A prompt to answer, or with ``keeps`` a system prompt to read ahead."""

    tokens: list[int]
    """The prompt; what is written is added."""
    max_tokens: int = 0
    deadline_s: float = float("inf")
    device_id: str = ""
    """Whose dialogue it is, "" for nobody's."""
    seed: int = 0
    loops: Callable[[int], bool] = lambda _token: False
    """Tells of each token whether the answer should end with it."""
    keeps: bool = False
    since_s: float = 0.0
    """When it was submitted."""
    owner: Any = None
    """Whoever wants the events."""
    started_s: float | None = None
    written: int = 0
    sampler: Any = None


@dataclass(frozen=True, slots=True)
class Started:
    """The job got its first slot."""

    job: Job
    waited_s: float


@dataclass(frozen=True, slots=True)
class Wrote:
    """The next token of an answer."""

    job: Job
    token: int
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a job: the engine does not work for it any more."""

    job: Job
    error: VoiceError | None = None


Event = Started | Wrote | Ended


@dataclass(slots=True)
class Counts:
    """What was done since the start."""

    steps: int = 0
    read_tokens: int = 0
    """Prompt tokens computed; those read again after a preemption count again."""
    reused_tokens: int = 0
    """Prompt tokens that were in memory already."""
    written_tokens: int = 0
    evictions: int = 0
    """Idle dialogues dropped for room."""
    preemptions: int = 0
    """Answers paused for room."""
