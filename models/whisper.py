"""Whisper on CTranslate2: utterances to text, at the price of their own length instead of 30 seconds'."""

from __future__ import annotations

import json
import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.errors import CatalogError, ConfigError, RecognitionError
from models.slots import Priority, Slots
from models.speech import Transcript, Utterance

Floats = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000

WINDOWS_S = (10, 15, 20)
"""Seconds of audio the encoder may see; the shortest that leaves _TAIL_S of silence is taken.

Whisper was trained on 30 s. Measured with base int8 on 34 sentences of 1 to 6 s (6 recorded and 20 Kokoro ones in Mandarin, 8
Piper ones in English), beam 1, two threads of a busy two-core machine; median seconds an utterance / Mandarin character error rate:
30 s 1.36 / .103, 20 s .61 / .094, 15 s .46 / .099, 10 s .34-.48 / .107; English .024 in all. With less silence after the speech
sentences come out twice or without end: utterance + 5 s .116, + 4 s .28-.35, + 2 s .51. With faster-whisper's own padding (zeros in
the spectrogram instead of silence in the audio) 10 s gave .129 and 30 s .116.
"""

_TAIL_S = 5.0
"""Silence the window must leave after the speech, lest the decoder repeat itself; see WINDOWS_S."""

PIECE_S = 15
"""Longest piece heard at once; longer utterances are cut at a quiet moment. Given more, base stops after some sentences: of 39 s in
pieces of 30 s it dropped the second half."""

_PROMPTS = {"zh": "以下是普通话的句子。"}
"""Makes the model write simplified characters: error rate .099 with it, .313 without (traditional ones count as wrong)."""

_TOKENS_AT_LEAST = 24
_TOKENS_PER_S = 10
"""Bound of the answer's length; the fastest of 44 utterances had 4.7 tokens a second. It bounds what a loop costs."""

_FRAMES_PER_S = 100
"""Spectrogram frames a second: Whisper hops 160 samples at 16 kHz."""

_CUT_SEARCH_S = 5.0
"""How far before the longest piece's end an utterance is searched for its quietest moment."""

_QUIET_S = 0.1
"""Length of the moments compared in that search."""

_NO_SPEECH = 0.6
"""Silence, noise, clicks, hum and tones got 0.57 and more in 36 of 38 trials, 44 utterances 0.55 and less.

This limit and the three below were set on the same small sample that they are reported for."""

_CERTAIN_LOGPROB = -0.4
"""A text this probable (mean log probability of a token) is believed whatever the model thinks of the silence."""

_HOPELESS_LOGPROB = -1.6
"""Below this nothing was said: utterances had -1.43 and more, 23 of the 38 trials without speech less than -1.6."""

_DOUBTFUL_NO_SPEECH = 0.3
"""From here on a phrase Whisper is known to invent is not believed; sentences had 0.21 and less."""

_COMPRESSION = 2.4
"""Whisper's own limit for zlib's ratio of a text that repeats itself (openai/whisper, transcribe.py)."""

_INVENTED = re.compile(
    r"you|bye|okay|thank you|thanks?( you)?( so much| very much)? for watching|please subscribe|以下是普通话的句子|.*字幕.*|.*点赞.*订阅.*|"
    r"谢谢(大家)?(的?(观看|收看|收听))?|.*amara\.?org.*|subtitles by.*"
)
"""What Whisper invents in silence, lower case and without punctuation at the ends; from its training on subtitles."""

_FILES = ("model.bin", "config.json", "tokenizer.json")

_JOINS = {"zh": "", "ja": ""}
"""What separates the texts of two pieces; a space elsewhere."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the model wrote for one piece and how sure it is."""

    text: str
    logprob: float
    """Mean log probability of a token; 0 is certain."""
    no_speech: float
    """Probability in [0, 1] that nobody spoke."""


class SpeechModel(Protocol):
    """The two blocking steps; both raise RecognitionError and let go of the GIL."""

    def encode(self, pcm: npt.NDArray[np.int16], language: str) -> tuple[Any, str]:
        """Return what the encoder makes of ``pcm``, and its language: the given one or the likeliest."""
        ...

    def write(self, encoded: Any, language: str, duration_s: float) -> Heard:
        """Return the text of what ``encode`` returned."""
        ...


class WhisperRecognizer:
    """A Recognizer over one model directory (``model.bin``, ``config.json``, ``tokenizer.json``, ``vocabulary.txt``).

    ``workers`` utterances are heard at once with ``threads`` threads each, finals before partials; more than ``max_waiting`` in line are
    refused with RecognitionError. ``observe_wait`` gets each wait in seconds. The language is the utterance's if it is one of ``languages``, else the
    likeliest of them, piece by piece. ``beam`` 5 instead of 1 costs 15 to 30 % more time and takes the error rate of WINDOWS_S's
    sentences from .099 to .094: one character in 233.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        workers: int = 1,
        threads: int = 2,
        max_waiting: int = 64,
        languages: Sequence[str] = ("zh", "en"),
        beam: int = 1,
        max_text_characters: int = 2000,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        model: SpeechModel | None = None,
    ) -> None:
        """Load the model; ``model`` stands in for the real one.

        Raises CatalogError for missing or damaged files, ConfigError for an unknown language or when faster-whisper is not installed.
        Blocks.
        """
        self._languages = tuple(languages)
        self._max_text_characters = max_text_characters
        self._model = model or _load(model_dir, workers, threads, self._languages, beam)
        self._slots = Slots(
            "whisper", workers, max_waiting=max_waiting, refusal=RecognitionError, observe_wait=observe_wait
        )

    @property
    def waiting(self) -> int:
        """Calls in line for the engine now."""
        return self._slots.waiting

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return what was said, ``text=""`` for nothing intelligible; raise RecognitionError. ``confidence`` is the worst piece's.

        Cancelling frees the slot after the step in hand: encoding or writing one piece, some tenths of a second.
        """
        if utterance.sample_rate_hz != SAMPLE_RATE_HZ:
            raise RecognitionError(
                f"whisper hears {SAMPLE_RATE_HZ} Hz; turn {utterance.turn_id} has {utterance.sample_rate_hz} Hz and must be resampled"
            )
        wanted = utterance.language if utterance.language in self._languages else ""
        pcm = np.frombuffer(utterance.pcm, "<i2", count=len(utterance.pcm) // 2)
        language, texts, confidence = wanted, list[str](), 1.0
        if len(pcm):
            priority = Priority.LIVE if utterance.is_final else Priority.BACKGROUND
            async with self._slots.hold(owner=utterance.device_id, priority=priority):
                for piece in cut(pcm):
                    encoded, spoken = await self._slots.run(self._model.encode, piece, wanted)
                    heard = await self._slots.run(self._model.write, encoded, spoken, len(piece) / SAMPLE_RATE_HZ)
                    if text := believed(heard):
                        language = language or spoken
                        confidence = min(confidence, math.exp(heard.logprob))
                        texts.append(text)
        return Transcript(
            turn_id=utterance.turn_id,
            text=_JOINS.get(language, " ").join(texts)[: self._max_text_characters],
            language=language,
            confidence=confidence,
        )

    def close(self) -> None:
        """Let the running step end and refuse further utterances; does not block."""
        self._slots.close()


def cut(pcm: npt.NDArray[np.int16]) -> list[npt.NDArray[np.int16]]:
    """Return ``pcm`` in pieces of at most ``PIECE_S``, cut where it is quietest shortly before, late rather than early."""
    longest = PIECE_S * SAMPLE_RATE_HZ
    search, quiet = int(_CUT_SEARCH_S * SAMPLE_RATE_HZ), int(_QUIET_S * SAMPLE_RATE_HZ)
    pieces = []
    while len(pcm) > longest:
        moments = np.abs(pcm[longest - search : longest].astype(np.int32)).reshape(-1, quiet).mean(axis=1)
        quietest = len(moments) - 1 - int(moments[::-1].argmin())
        end = longest - search + quietest * quiet + quiet // 2
        pieces.append(pcm[:end])
        pcm = pcm[end:]
    return [*pieces, pcm]


def window_s(duration_s: float) -> int:
    """Return how many seconds the encoder should see of an utterance of ``duration_s``."""
    return next((window for window in WINDOWS_S if window >= duration_s + _TAIL_S), WINDOWS_S[-1])


def believed(heard: Heard) -> str:
    """Return the text as one clean line, "" when nobody spoke, nothing is intelligible, or the model invented it."""
    text = unlooped(_clean(heard.text))
    encoded = text.encode()
    silent = heard.no_speech >= _NO_SPEECH and heard.logprob < _CERTAIN_LOGPROB
    bare = text.strip(" .,!?…。，！？、").lower()
    invented = heard.no_speech >= _DOUBTFUL_NO_SPEECH and _INVENTED.fullmatch(bare) is not None
    if not bare or silent or invented or heard.logprob < _HOPELESS_LOGPROB:
        return ""
    return "" if len(encoded) / len(zlib.compress(encoded)) > _COMPRESSION else text


def unlooped(text: str) -> str:
    """Return the repeated part of a text that is three or more copies of four or more characters (the last may be cut short)."""
    for length in range(4, len(text) // 3 + 1):
        if text[length:] == text[:-length]:
            return text[:length].strip()
    return text


def _clean(text: str) -> str:
    """Return ``text`` on one line without control characters, unassigned ones and the marks of broken UTF-8."""
    kept = (
        character for character in text if character != "\ufffd" and (character.isspace() or _is_printed(character))
    )
    return " ".join("".join(kept).split())


def _is_printed(character: str) -> bool:
    return not unicodedata.category(character).startswith("C")


def _load(model_dir: Path, workers: int, threads: int, languages: Sequence[str], beam: int) -> SpeechModel:
    for library in ("ctranslate2", "faster_whisper", "opencc"):
        if find_spec(library) is None:
            raise ConfigError(f"{library} is missing; install xiaozhi-fleet[engines]")
    for name in _FILES:
        if not (model_dir / name).is_file():
            raise CatalogError(f"{model_dir / name}: no such file; pull the model with: xiaozhi-fleet models pull")
    mend = "delete it and pull the model again with: xiaozhi-fleet models pull"
    import ctranslate2
    import tokenizers

    try:
        model = ctranslate2.models.Whisper(
            str(model_dir), device="cpu", compute_type="int8", inter_threads=workers, intra_threads=threads
        )
    except (RuntimeError, ValueError) as error:
        raise CatalogError(f"{model_dir / 'model.bin'}: not a readable CTranslate2 model; {mend}") from error
    vocabulary = _read_tokenizer(model_dir / "tokenizer.json", mend)
    try:
        return _Whisper(model, tokenizers.Tokenizer.from_str(vocabulary), languages, beam)
    except ValueError as error:
        raise ConfigError(f"whisper does not know all of the languages {list(languages)}") from error


def _read_tokenizer(path: Path, mend: str) -> str:
    """Return the file's text after a look at it: the library itself fails with nothing more precise than Exception."""
    try:
        text = path.read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path}: not a readable tokenizer; {mend}") from error
    if not isinstance(found, dict) or "model" not in found:
        raise CatalogError(f"{path}: not a tokenizer; {mend}")
    return text


class _Whisper:
    """CTranslate2's model with faster-whisper's spectrogram and tokenizer; one encoding serves language and text."""

    def __init__(self, model: Any, tokenizer: Any, languages: Sequence[str], beam: int) -> None:
        from ctranslate2 import StorageView
        from faster_whisper.feature_extractor import FeatureExtractor
        from faster_whisper.tokenizer import Tokenizer
        from opencc import OpenCC

        self._model = model
        self._simplified: Callable[[str], str] = OpenCC(
            "t2s"
        ).convert  # it falls back to traditional characters now and then
        self._beam = beam
        self._languages = languages
        self._store = StorageView.from_array
        self._spectrogram = FeatureExtractor(feature_size=model.n_mels)
        self._tokenizers = {
            language: Tokenizer(tokenizer, multilingual=True, task="transcribe", language=language)
            for language in languages
        }
        self._prompts = {language: _prompt(tokens, language) for language, tokens in self._tokenizers.items()}

    def encode(self, pcm: npt.NDArray[np.int16], language: str) -> tuple[Any, str]:
        frames = window_s(len(pcm) / SAMPLE_RATE_HZ) * _FRAMES_PER_S
        padded = np.zeros(frames * SAMPLE_RATE_HZ // _FRAMES_PER_S, np.float32)
        padded[: len(pcm)] = pcm / np.float32(32768)
        try:
            mel: Floats = self._spectrogram(padded, padding=0)[np.newaxis, :, :frames]
            encoded = self._model.encode(self._store(np.ascontiguousarray(mel, dtype=np.float32)))
            return encoded, language or self._likeliest(encoded)
        except (RuntimeError, ValueError, IndexError) as error:
            raise RecognitionError(f"whisper could not hear {len(pcm)} samples: {type(error).__name__}") from error

    def write(self, encoded: Any, language: str, duration_s: float) -> Heard:
        prompt = self._prompts[language]
        most = _TOKENS_AT_LEAST + int(duration_s * _TOKENS_PER_S)
        try:
            [result] = self._model.generate(
                encoded,
                [prompt],
                beam_size=self._beam,
                max_length=len(prompt) + most,
                return_scores=True,
                return_no_speech_prob=True,
            )
        except (RuntimeError, ValueError, IndexError) as error:
            raise RecognitionError(f"whisper could not write {duration_s:.1f} s: {type(error).__name__}") from error
        tokens = result.sequences_ids[0]
        # CTranslate2 divides the sum by the tokens without the closing one, which it has scored as well.
        logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        text = self._tokenizers[language].decode(tokens)
        if language == "zh":
            text = self._simplified(text)
        return Heard(text=text, logprob=logprob, no_speech=result.no_speech_prob)

    def _likeliest(self, encoded: Any) -> str:
        """Return the most probable of our languages."""
        if len(self._languages) == 1:
            return self._languages[0]
        [ranked] = self._model.detect_language(encoded)
        chances = dict(ranked)
        return max(self._languages, key=lambda language: chances.get(f"<|{language}|>", 0.0))


def _prompt(tokens: Any, language: str) -> list[int]:
    """Return the tokens the decoder starts from: an example of the writing wanted, the language, the task."""
    example = _PROMPTS.get(language, "")
    before = [tokens.sot_prev, *tokens.encode(example)] if example else []
    return [*before, *tokens.sot_sequence, tokens.no_timestamps]
