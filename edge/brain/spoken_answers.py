"""Whole answers as they were spoken: who asks the same again gets ready packets, and nothing is done but sending them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from coordinator.cache.answers import AnswerCache
from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder
from coordinator.turns import RoutingDecision, Tier
from edge.brain.conversation import joined
from models.prompts import Prompt

REMEMBERED = "remembered-speech"
"""Reason of a turn that was answered so."""
MAX_PACKETS = 2_000
"""Two minutes; a longer answer is not kept whole, its sentences are. A guess."""


class SpokenPiece(msgspec.Struct, frozen=True, array_like=True):
    """One sentence and its sound."""

    text: str
    emotion: str
    packets: tuple[bytes, ...]


class SpokenAnswer(msgspec.Struct, frozen=True, array_like=True):
    """All that a device is sent for an answer."""

    model: str
    pieces: tuple[SpokenPiece, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SpokenAnswer)


class SpokenAnswers:
    """Remembers spoken answers to memorable questions."""

    def __init__(
        self,
        ladder: Ladder,
        answers: AnswerCache,
        *,
        voice: str,
        qualities: Callable[[], Sequence[str]],
        observe: Callable[[RoutingDecision], None] = lambda _decision: None,
        recalled: Callable[[Prompt, str], None] = lambda _prompt, _answer: None,
        asked: Callable[[str, Prompt], None] = lambda _key, _prompt: None,
        kept: Callable[[str], None] = lambda _key: None,
    ) -> None:
        """``voice`` names the voices and their version, ``qualities`` the levels that are good enough now.

        The levels come best first, and the last one is encoded at. ``observe`` and ``recalled`` hear of hits, ``asked`` of every memorable
        question with the key of its answer, ``kept`` of every answer that is remembered as sound from now on.
        """
        self._ladder = ladder
        self._answers = answers
        self._voice = voice
        self._qualities = qualities
        self._observe = observe
        self._recalled = recalled
        self._asked = asked
        self._kept = kept

    async def get(self, prompt: Prompt) -> SpokenAnswer | None:
        """Return the answer to the same question, None when unknown, not memorable or not readable.

        The text alone is looked up beside it, so that whoever needs that next waits no second time.
        """
        answer_key = self._answers.key(prompt)
        if answer_key is None:
            return None
        self._asked(answer_key, prompt)
        keys = [self._keyed(answer_key, quality) for quality in self._qualities()]
        value = self._ladder.near(*keys)
        if value is None:
            value, _ = await asyncio.gather(self._ladder.beyond(keys[0]), self._ladder.get(answer_key))
        if value is None:
            return None
        try:
            answer = _decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        self._recalled(prompt, joined([piece.text for piece in answer.pieces]))
        self._observe(RoutingDecision(turn_id=prompt.turn_id, tier=Tier.CACHE, reason=REMEMBERED))
        return answer

    def put(self, prompt: Prompt, answer: SpokenAnswer) -> None:
        """Remember an answer that was spoken whole."""
        key = self._answers.key(prompt)
        if key is not None and 0 < sum(len(piece.packets) for piece in answer.pieces) <= MAX_PACKETS:
            self._ladder.put(self.key(key), _encoder.encode(answer))
            self._kept(key)

    def key(self, answer_key: str) -> str:
        """Return the key of the answer as it is spoken now."""
        return self._keyed(answer_key, self._qualities()[-1])

    def _keyed(self, answer_key: str, quality: str) -> str:
        return key_of(Kind.AUDIO, answer_key, self._voice, quality)
