"""Who has the floor: an answer waits while somebody speaks over it, and goes on when it turns out that nobody wanted to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edge.brain.barge_in import BargeIn, BargeInRules, Verdict
from edge.brain.turn import Send, Turn
from edge.seam import DownMessage, Heard, SpeechHeld, SpeechResumed
from models.stopping import stopped


class Floor:
    """Holds and resumes one session's answers; a task of the session's ``group`` ends a hold that nobody ends.

    ``voiced``, ``heard`` and ``over`` return true when the answer is to be interrupted.
    """

    def __init__(
        self, rules: BargeInRules, send: Send, group: asyncio.TaskGroup, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._send = send
        self._group = group
        self._now = now
        self._judge = BargeIn(rules)
        self._turn: Turn | None = None
        self._patience: asyncio.Task[None] | None = None
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._holds = 0

    @property
    def is_held(self) -> bool:
        """Whether the answer waits."""
        return not self._is_free.is_set()

    async def send(self, message: DownMessage) -> None:
        """Send for the turn; one that is held before the gateway knows of it is held as soon as it does."""
        await self._send(message)
        if isinstance(message, Heard) and self.is_held and self._turn is not None:
            await self._send_held(self._turn)

    def give(self, turn: Turn) -> None:
        """Let a turn have the floor."""
        self._turn = turn
        self._judge = BargeIn(self._rules)

    async def take_back(self, *, tell: bool) -> None:
        """End the turn's time; ``tell`` the gateway to play what it still holds of it."""
        turn, self._turn = self._turn, None
        was_held = self.is_held
        self._is_free.set()
        patience, self._patience = self._patience, None
        if patience is not None:
            await stopped(patience)
        if tell and was_held and turn is not None:
            await self._send_resumed(turn)

    async def voiced(self, voiced_ms: float) -> bool:
        """Take how much speech the utterance over the answer holds."""
        return await self._act(self._judge.voiced(voiced_ms, self._now()))

    async def heard(self, text: str, voiced_ms: float) -> bool:
        """Take the transcript of an utterance's first ``voiced_ms`` of speech."""
        return await self._act(self._judge.heard(text, voiced_ms, is_asked=self._is_asked()))

    async def over(self, text: str) -> bool:
        """Take the transcript of an utterance that is over."""
        return await self._act(self._judge.over(text, is_asked=self._is_asked()))

    async def until_played(self, turn: Turn) -> None:
        """Return when everything was played, or should have been long ago, not counting the time it was held."""
        while True:
            holds = self._holds
            await turn.until_played()
            if turn.is_played or (holds == self._holds and not self.is_held):
                return
            await self._is_free.wait()

    def _is_asked(self) -> bool:
        """Return whether the answer is at its end and was a question: then 好的 is no backchannel."""
        turn = self._turn
        return turn is not None and turn.is_played and turn.answer("answered").rstrip().endswith(("?", "？"))

    async def _act(self, verdict: Verdict | None) -> bool:
        if self._turn is not None and verdict == "hold":
            await self._hold(self._turn)
        elif self._turn is not None and verdict == "resume":
            await self._resume(self._turn)
        return verdict == "interrupt"

    async def _hold(self, turn: Turn) -> None:
        self._is_free.clear()
        self._holds += 1
        turn.made_progress()
        if self._patience is None or self._patience.done():
            self._patience = self._group.create_task(self._wait(turn), name=f"held-{turn.names.turn_id}")
        if turn.is_answering:
            await self._send_held(turn)

    async def _resume(self, turn: Turn) -> None:
        self._is_free.set()
        turn.made_progress()
        if turn.is_answering:
            await self._send_resumed(turn)

    async def _wait(self, turn: Turn) -> None:
        while self.is_held:
            await asyncio.sleep(max(0.0, self._judge.resume_at_s - self._now()))
            if self._judge.quiet(self._now()):
                await self._resume(turn)

    async def _send_held(self, turn: Turn) -> None:
        names = turn.names
        await self._send(SpeechHeld(session_id=names.session_id, fence=names.fence, turn_id=names.turn_id))

    async def _send_resumed(self, turn: Turn) -> None:
        names = turn.names
        await self._send(SpeechResumed(session_id=names.session_id, fence=names.fence, turn_id=names.turn_id))
