"""Transcripts by the sound itself: the very same samples are not recognised twice.

People never say anything twice to the sample, so this helps where recordings are played: benches, load tests, devices that loop a sound. In
1,000 turns spoken by people expect no hit at all; it is off unless a setting says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder
from models.engines import Recognizer
from models.speech import Transcript, Utterance

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Transcript)


class KnownSpeech:
    """A Recognizer that remembers what another one heard; nothing of private devices, and nothing that was cut short."""

    def __init__(
        self,
        recognizer: Recognizer,
        ladder: Ladder,
        version: str,
        is_private: Callable[[str], bool] = lambda _device: False,
    ) -> None:
        """``version`` names the recogniser's model; another one's transcripts are another memory."""
        self._recognizer = recognizer
        self._ladder = ladder
        self._version = version
        self._is_private = is_private

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return what was said, from memory if the very same sound was heard; raise RecognitionError."""
        if not utterance.is_final or self._is_private(utterance.device_id):
            return await self._recognizer.transcribe(utterance)
        key = self._key(utterance)
        value = await self._ladder.get(key)
        if value is not None and (known := _decoded(value)) is not None:
            return msgspec.structs.replace(known, turn_id=utterance.turn_id)
        transcript = await self._recognizer.transcribe(utterance)
        self._ladder.put(key, _encoder.encode(msgspec.structs.replace(transcript, turn_id="")))
        return transcript

    def _key(self, utterance: Utterance) -> str:
        sound = hashlib.sha256(utterance.pcm).hexdigest()
        return key_of(Kind.TRANSCRIPT, self._version, utterance.language, str(utterance.sample_rate_hz), sound)


def _decoded(value: bytes) -> Transcript | None:
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
