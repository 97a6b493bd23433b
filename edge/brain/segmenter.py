"""Frames with a speech probability to utterances, on audio time: a stalled network never ends a sentence.

idle --start--> listening --speech--> in an utterance --silence, stop or too long--> Endpoint
^  keeps the last 2 s as pre-roll                                                     |
'-------------------- auto and manual (realtime keeps listening) ---------------------'
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable

import msgspec

from edge.seam import ListenMode
from models.speech import AudioFrame, Utterance


class Endpointing(msgspec.Struct, frozen=True, kw_only=True):
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
    """Silence after which the end is likely enough to start transcribing."""
    max_utterance_ms: int = 30_000
    """Longest utterance; Whisper's window."""
    padding_ms: int = 300
    """Sound kept before the first speech, so that no first consonant is cut."""
    pre_roll_ms: int = 2_000
    """Sound kept while nobody listens; the firmware sends as much from before the wake word, protocol §6.1."""


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


class _Heard(msgspec.Struct, frozen=True):
    frame: AudioFrame
    is_speech: bool

    @property
    def end_ms(self) -> float:
        return self.frame.start_ms + self.frame.duration_ms


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
        self._rules = rules or Endpointing()
        self._device_id = device_id
        self._language = language
        self._new_id = new_id
        self._before: deque[_Heard] = deque()
        self._in_speech = False
        self._clear()

    @property
    def voiced_ms(self) -> float:
        """Speech so far in the utterance being spoken, 0.0 between utterances."""
        return self._voiced_ms

    def start(self, mode: ListenMode) -> None:
        """Listen from now on, with what was kept from before; repeating it changes nothing but the mode."""
        self.mode = mode
        self.is_listening = True

    def pause(self) -> None:
        """Stop listening and forget an unfinished utterance, but keep the last sound for when listening begins again."""
        self.is_listening = False
        self._give_back()

    def stop(self) -> list[SegmentEvent]:
        """Close the utterance being spoken, if there is any speech in it, and stop listening."""
        events = self._close(self._silence_ms) if self._recording and self._voiced_ms > 0 else []
        self.pause()
        return events

    def feed(self, frame: AudioFrame, speech: float) -> list[SegmentEvent]:
        """Take the next frame and its speech probability in [0, 1]; return what happened, in order."""
        self._in_speech = speech >= (self._rules.speech_off if self._in_speech else self._rules.speech_on)
        heard = _Heard(frame, self._in_speech)
        if not self.is_listening or not (self._recording or heard.is_speech):
            self._keep(heard)
            return []
        if not self._recording:
            self._open()
        self._record(heard, speech)
        return self._pause_in_speech() if not heard.is_speech else self._speech()

    def _clear(self) -> None:
        self._recording: list[_Heard] = []
        self._turn_id = ""
        self._voiced_ms = 0.0
        self._silence_ms = 0.0
        self._peak = 0.0
        self._has_started = False
        self._hint: Utterance | None = None
        self._in_speech = False

    def _keep(self, heard: _Heard) -> None:
        self._before.append(heard)
        while self._before and heard.end_ms - self._before[0].frame.start_ms > self._rules.pre_roll_ms:
            self._before.popleft()

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
            quiet_ms = 0.0 if heard.is_speech else quiet_ms + heard.frame.duration_ms
            if quiet_ms > self._rules.padding_ms:
                break
            padding.append(heard)
        self._before.clear()
        self._recording = padding[::-1]

    def _record(self, heard: _Heard, speech: float) -> None:
        self._recording.append(heard)
        if heard.is_speech:
            self._voiced_ms += heard.frame.duration_ms
            self._silence_ms = 0.0
            self._peak = max(self._peak, speech)
        else:
            self._silence_ms += heard.frame.duration_ms

    def _speech(self) -> list[SegmentEvent]:
        events: list[SegmentEvent] = []
        if self._hint is not None:
            self._hint = None
            events.append(VoiceResumed())
        if not self._has_started and self._is_speech_enough():
            self._has_started = True
            events.append(VoiceStarted())
        return events + self._too_long()

    def _pause_in_speech(self) -> list[SegmentEvent]:
        if self.mode == "manual":
            return self._too_long()
        rules = self._rules
        if self._silence_ms >= rules.end_silence_ms:
            if self._has_started:
                return self._close(self._silence_ms)
            self._give_back()
            return []
        if self._has_started and self._hint is None and self._silence_ms >= rules.hint_silence_ms:
            self._hint = self._utterance()
            return [SilenceBegan(self._hint)]
        return self._too_long()

    def _is_speech_enough(self) -> bool:
        rules = self._rules
        return self._voiced_ms >= rules.min_speech_ms or (
            self._voiced_ms >= rules.short_word_ms and self._peak >= rules.short_word_peak
        )

    def _too_long(self) -> list[SegmentEvent]:
        length_ms = self._recording[-1].end_ms - self._recording[0].frame.start_ms
        return self._close(self._silence_ms) if length_ms >= self._rules.max_utterance_ms else []

    def _close(self, wait_ms: float) -> list[SegmentEvent]:
        utterance = self._hint or self._utterance()
        self._clear()
        self._before.clear()
        self.is_listening = self.mode == "realtime"
        return [Endpoint(utterance, wait_ms)]

    def _utterance(self) -> Utterance:
        first, last = self._recording[0], self._recording[-1]
        return Utterance(
            turn_id=self._turn_id,
            device_id=self._device_id,
            pcm=b"".join(heard.frame.pcm for heard in self._recording),
            sample_rate_hz=first.frame.sample_rate_hz,
            start_ms=first.frame.start_ms,
            end_ms=round(last.end_ms),
            language=self._language,
        )
