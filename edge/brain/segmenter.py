"""Frames with a speech probability to utterances, on audio time: a stalled network never ends a sentence.

idle --start--> listening --speech--> in an utterance --silence, stop or too long--> Endpoint
^  keeps the last 2 s as pre-roll                                                     |
'-------------------- auto and manual (realtime keeps listening) ---------------------'
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from edge.seam import ListenMode
from models.speech import AudioFrame, Utterance

MAX_UTTERANCE_MS = 30_000
"""Whisper's window."""


class Endpointing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules that tell speech from noise and the end of a sentence from a pause."""

    speech_on: float = 0.5
    """Probability in [0, 1] at which speech begins; Silero's own default."""
    speech_off: float = 0.35
    """Probability in [0, 1] below which it pauses; Silero's default is 0.15 below ``speech_on``."""
    min_speech_ms: int = 250
    """Speech that certainly is some."""
    short_word_ms: int = 120
    """Speech that is some when clear: 对 and 嗯 last 120 to 250 ms, a click one frame of 60 ms."""
    short_word_peak: float = 0.8
    """What counts as clear, a guess."""
    end_silence_ms: int = 600
    """Silence that ends an utterance."""
    hint_silence_ms: int = 240
    """Silence after which the end is likely enough to start transcribing, and to ask a model whether it is the end."""
    end_by: Literal["silence", "model"] = "model"
    """What ends an utterance; "model" is "silence" too where there is no model, or while it has not answered."""
    turn_threshold: float = 0.5
    """Probability in [0, 1] from which a model's word ends the utterance at once; Smart Turn's own."""
    turn_wait_ms: int = 1_500
    """Silence that ends an utterance of which the model said that it goes on; half of what Smart Turn's authors wait."""
    max_utterance_ms: int = MAX_UTTERANCE_MS
    """Longest utterance."""
    padding_ms: int = 300
    """Sound kept before the first speech, so that no first consonant is cut."""
    pre_roll_ms: int = 2_000
    """Sound kept while nobody listens; the firmware sends as much from before the wake word, protocol §6.1."""

    def __post_init__(self) -> None:
        """Raise ValueError for rules that contradict each other."""
        if not 0 <= self.speech_off <= self.speech_on <= 1 or not 0 <= self.turn_threshold <= 1:
            raise ValueError("0 <= speech_off <= speech_on <= 1 and 0 <= turn_threshold <= 1 must hold")
        if not 0 < self.hint_silence_ms <= self.end_silence_ms <= self.turn_wait_ms:
            raise ValueError("0 < hint_silence_ms <= end_silence_ms <= turn_wait_ms must hold")
        if not 0 < self.max_utterance_ms <= MAX_UTTERANCE_MS:
            raise ValueError(f"max_utterance_ms must be in 1 to {MAX_UTTERANCE_MS}")


class VoiceStarted(msgspec.Struct, frozen=True):
    """Somebody certainly speaks."""


class SilenceBegan(msgspec.Struct, frozen=True):
    """The utterance may be over; if it is, ``Endpoint`` brings this very object."""

    utterance: Utterance


class VoiceResumed(msgspec.Struct, frozen=True):
    """It was only a pause: what ``SilenceBegan`` brought is not all."""


class Endpoint(msgspec.Struct, frozen=True):
    """The utterance is over."""

    utterance: Utterance
    wait_ms: float
    """Silence in audio time between the last speech and now."""


SegmentEvent = VoiceStarted | SilenceBegan | VoiceResumed | Endpoint


_Heard = tuple[AudioFrame, float, bool]
"""A frame, its length in ms, and whether it is speech; no class, because there are 2,500 a second at 150 devices."""
_NOTHING: list[SegmentEvent] = []
"""What most frames bring; never changed."""


class Segmenter:
    """One device's microphone; pure, so two with the same input say the same but for the ids."""

    def __init__(
        self,
        device_id: str,
        *,
        rules: Endpointing | None = None,
        language: str = "",
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.mode: ListenMode = "auto"
        """How the device listened last."""
        self.is_listening = False
        """Whether speech can become an utterance now."""
        self.rules = rules or Endpointing()
        """What the device is listened to by."""
        self._device_id = device_id
        self._language = language
        self._new_id = new_id
        self._before: deque[_Heard] = deque()
        self._in_speech = False
        self._peak: float
        self._end_silence_ms: float
        self._clear()

    @property
    def silence_ms(self) -> float:
        """Silence since the last speech of the utterance being spoken, 0.0 between utterances."""
        return self._silence_ms

    @property
    def voiced_ms(self) -> float:
        """Speech so far in the utterance being spoken, 0.0 between utterances."""
        return self._voiced_ms

    @property
    def turn_id(self) -> str:
        """Id of the utterance being spoken, "" between utterances."""
        return self._turn_id

    @property
    def pause_after(self) -> Utterance | None:
        """What ``SilenceBegan`` brought, while that silence lasts."""
        return self._hint

    def start(self, mode: ListenMode) -> None:
        """Listen from now on, with what was kept from before; repeating it changes nothing but the mode."""
        self.mode = mode
        self.is_listening = True

    def pause(self) -> None:
        """Stop listening and forget an unfinished utterance, but keep the last sound for when listening begins again."""
        self.is_listening = False
        self._give_back()

    def forget(self) -> None:
        """Stop listening and forget all that was said."""
        self.is_listening = False
        self._clear()
        self._before.clear()

    def stop(self) -> list[SegmentEvent]:
        """Close the utterance being spoken, if there is any speech in it, and stop listening."""
        events = self._close(self._silence_ms) if self._recording and self._voiced_ms > 0 else []
        self.pause()
        return events

    def conclude(self) -> list[SegmentEvent]:
        """Close the utterance in the pause it is in, because a model said that it is over; nothing without a pause."""
        return self._close(self._silence_ms) if self._hint is not None and self.mode != "manual" else []

    def wait_longer(self) -> None:
        """Take this pause for one in a sentence, because a model said so: only ``turn_wait_ms`` of it end the utterance."""
        if self._hint is not None:
            self._end_silence_ms = self.rules.turn_wait_ms

    def so_far(self) -> Utterance | None:
        """Return the beginning of the utterance being spoken, None while there is certainly none."""
        return self._utterance(is_final=False) if self._has_started else None

    def feed(self, frame: AudioFrame, speech: float) -> Sequence[SegmentEvent]:
        """Take the next frame and its speech probability in [0, 1]; return what happened, in order."""
        rules = self.rules
        is_speech = self._in_speech = speech >= (rules.speech_off if self._in_speech else rules.speech_on)
        length_ms = frame.duration_ms
        heard = (frame, length_ms, is_speech)
        if not self.is_listening or not (self._recording or is_speech):
            self._keep(heard)
            return _NOTHING
        if not self._recording:
            self._open()
        self._recording.append(heard)
        if is_speech:
            self._voiced_ms += length_ms
            self._silence_ms = 0.0
            self._peak = max(self._peak, speech)
            return self._speech()
        self._silence_ms += length_ms
        return self._pause_in_speech()

    def _clear(self) -> None:
        self._recording: list[_Heard] = []
        self._turn_id = ""
        self._voiced_ms = 0.0
        self._silence_ms = 0.0
        self._end_silence_ms = self.rules.end_silence_ms
        self._peak = 0.0
        self._has_started = False
        self._hint: Utterance | None = None
        self._in_speech = False

    def _keep(self, heard: _Heard) -> None:
        before = self._before
        before.append(heard)
        kept_from_ms = heard[0].start_ms + heard[1] - self.rules.pre_roll_ms
        while before and before[0][0].start_ms < kept_from_ms:
            before.popleft()

    def _give_back(self) -> None:
        recording = self._recording
        self._clear()
        for heard in recording:
            self._keep(heard)

    def _open(self) -> None:
        """Begin with the padding, and with speech from before that runs into this without a longer pause."""
        self._turn_id = self._new_id()
        padding: list[_Heard] = []
        quiet_ms = 0.0
        while self._before:
            heard = self._before.pop()
            quiet_ms = 0.0 if heard[2] else quiet_ms + heard[1]
            if quiet_ms > self.rules.padding_ms:
                break
            padding.append(heard)
        self._before.clear()
        self._recording = padding[::-1]

    def _speech(self) -> Sequence[SegmentEvent]:
        if self._has_started and self._hint is None:
            return self._too_long()
        events: list[SegmentEvent] = []
        if self._hint is not None:
            self._hint = None
            self._end_silence_ms = self.rules.end_silence_ms
            events.append(VoiceResumed())
        if not self._has_started and self._is_speech_enough():
            self._has_started = True
            events.append(VoiceStarted())
        events += self._too_long()
        return events

    def _pause_in_speech(self) -> Sequence[SegmentEvent]:
        if self.mode == "manual":
            return self._too_long()
        rules = self.rules
        if self._silence_ms >= self._end_silence_ms:
            if self._has_started:
                return self._close(self._silence_ms)
            self._give_back()
            return _NOTHING
        if self._has_started and self._hint is None and self._silence_ms >= rules.hint_silence_ms:
            self._hint = self._utterance()
            return [SilenceBegan(self._hint)]
        return self._too_long()

    def _is_speech_enough(self) -> bool:
        rules = self.rules
        return self._voiced_ms >= rules.min_speech_ms or (
            self._voiced_ms >= rules.short_word_ms and self._peak >= rules.short_word_peak
        )

    def _too_long(self) -> Sequence[SegmentEvent]:
        last, last_ms, _ = self._recording[-1]
        length_ms = last.start_ms + last_ms - self._recording[0][0].start_ms
        return self._close(self._silence_ms) if length_ms >= self.rules.max_utterance_ms else _NOTHING

    def _close(self, wait_ms: float) -> list[SegmentEvent]:
        utterance = self._hint or self._utterance()
        self._clear()
        self._before.clear()
        self.is_listening = self.mode == "realtime"
        return [Endpoint(utterance, wait_ms)]

    def _utterance(self, *, is_final: bool = True) -> Utterance:
        first, (last, last_ms, _) = self._recording[0][0], self._recording[-1]
        return Utterance(
            turn_id=self._turn_id,
            device_id=self._device_id,
            pcm=b"".join([frame.pcm for frame, _, _ in self._recording]),
            sample_rate_hz=first.sample_rate_hz,
            start_ms=first.start_ms,
            end_ms=round(last.start_ms + last_ms),
            language=self._language,
            is_final=is_final,
        )
