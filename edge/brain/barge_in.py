"""Whether somebody who speaks over an answer wants it to end: what was heard so far in, what to do with the answer out.

    plays --speech--> held --words, a stop word, long speech--> interrupted
      ^                 |
      '- backchannel, nothing, long silence -'

Holding is cheap and taken back soon, so it needs little speech; interrupting is not, so it needs words, or more speech than a
backchannel lasts. What a transcript explained as a backchannel no longer counts as speech: only what is said after it does.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge.brain.backchannel import said

Verdict = Literal["hold", "resume", "interrupt"]


_EARLY_S = 0.001
"""What is due within a millisecond is due: event loops keep time no better."""


class BargeInRules(msgspec.Struct, frozen=True, kw_only=True):
    """How much speech means what."""

    hold_ms: int = 200
    """Speech that makes the answer wait; a click is shorter."""
    surely_ms: int = 900
    """Speech that interrupts before anybody knows its words: 嗯嗯 and uh-huh last 300 to 600 ms, and a partial transcript at 600 ms
    has 300 ms to say that it is one. A guess; nothing sounds while it is waited for."""
    resume_s: float = 2.0
    """Silence without a verdict after which the answer goes on; LiveKit's."""


class BargeIn:
    """One answer and the voice over it; pure, all times on one monotonic clock."""

    def __init__(self, rules: BargeInRules) -> None:
        self.is_held = False
        """Whether the answer waits."""
        self._rules = rules
        self._explained_ms = 0.0
        self._voiced_ms = 0.0
        self._voice_s = 0.0

    @property
    def resume_at_s(self) -> float:
        """When the answer goes on if nothing happens until then."""
        return self._voice_s + self._rules.resume_s

    def voiced(self, voiced_ms: float, now_s: float) -> Verdict | None:
        """Take how much speech the utterance holds so far; less than before is another utterance."""
        if voiced_ms < self._voiced_ms:
            self._explained_ms = 0.0
        is_more = voiced_ms > self._voiced_ms
        self._voiced_ms = voiced_ms
        if not is_more:
            return None
        self._voice_s = now_s
        unexplained_ms = voiced_ms - self._explained_ms
        if unexplained_ms >= self._rules.surely_ms:
            return self._interrupted()
        if unexplained_ms >= self._rules.hold_ms and not self.is_held:
            self.is_held = True
            return "hold"
        return None

    def heard(self, text: str, voiced_ms: float, *, is_asked: bool = False) -> Verdict | None:
        """Take the transcript of an utterance's first ``voiced_ms`` of speech; ``is_asked`` when 好的 may be an answer."""
        meant = said(text)
        if meant in {"stop", "words"}:
            return self._interrupted()
        if meant == "backchannel" and is_asked:
            return None
        self._explained_ms = max(self._explained_ms, voiced_ms)
        return self._resumed() if self._voiced_ms <= voiced_ms else None

    def over(self, text: str, *, is_asked: bool = False) -> Verdict | None:
        """Take the transcript of an utterance that is over, of which ``voiced`` was told."""
        meant = said(text)
        if meant in {"stop", "words"} or (meant == "backchannel" and is_asked):
            return self._interrupted()
        # Somebody who speaks on already is judged by that.
        return None if self._voiced_ms else self._resumed()

    def quiet(self, now_s: float) -> Verdict | None:
        """Take that it is ``now_s``."""
        return self._resumed() if now_s >= self.resume_at_s - _EARLY_S else None

    def _resumed(self) -> Verdict | None:
        was_held, self.is_held = self.is_held, False
        return "resume" if was_held else None

    def _interrupted(self) -> Verdict:
        self.is_held = False
        return "interrupt"
