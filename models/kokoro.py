"""Speaks Mandarin with Kokoro: jieba and pypinyin find the syllables, misaki their phonemes, ONNX Runtime the sound."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import AsyncGenerator, Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import structlog

from models.errors import CatalogError, ConfigError, SynthesisError
from models.kokoro_silence import without_silence
from models.normalize import clauses, normalize
from models.onnx import OnnxSession, open_session
from models.slots import Slots
from models.speech import SpeechChunk
from models.voices import trimmed_pcm

_log = structlog.get_logger()

SAMPLE_RATE_HZ = 24_000
_STYLES = 510
"""Rows of a Kokoro voice, one per number of phonemes; also the most phonemes one run takes."""
_STYLE_WIDTH = 256
_SHORTEST_CLAUSE = 6
"""Characters worth a run of their own: each run renders about 0.4 s around the words, which is cut off again."""
SPEED = 1.1
"""A little quicker than the voice's own pace: each clause is rendered 10 % sooner, and Whisper understood ten sentences no worse (character
errors .090, .067, .075 at 1.0, 1.1, 1.2)."""
_LONGEST_CLAUSE = 60
"""Bounds one run, and with it how long closing waits: about 13 s of speech, 300 phonemes."""

_IDS_OF_PHONEMES = (
    (1, ';:,.!?'), (9, '—…"()“”'), (16, " \u0303ʣʥʦʨᵝꭧAI"), (31, "O"), (33, "Q"), (35, "ST"), (39, "W"), (41, "Y"), (42, "ᵊabcdef"),
    (50, "hijklmnopqrstuvwxyzɑɐɒæ"), (75, "βɔɕç"), (80, "ɖðʤə"), (85, "ɚɛɜ"), (90, "ɟ"), (92, "ɡ"), (99, "ɥ"), (101, "ɨɪʝ"),
    (110, "ɯɰŋɳɲɴø"), (118, "ɸθœ"), (123, "ɹ"), (125, "ɾɻ"), (128, "ʁɽʂʃʈʧ"), (135, "ʊʋ"), (138, "ʌɣɤ"), (142, "χʎ"), (147, "ʒʔ"),
    (156, "ˈˌː"), (162, "ʰ"), (164, "ʲ"), (169, "↓"), (171, "→↗↘"), (177, "ᵻ"),
)  # fmt: skip
_VOCABULARY = {phoneme: first + offset for first, run in _IDS_OF_PHONEMES for offset, phoneme in enumerate(run)}
"""Kokoro's phoneme numbers, from config.json of hexgrad/Kokoro-82M."""

_LETTERS = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        [
            "ˈA",
            "bˈi",
            "sˈi",
            "dˈi",
            "ˈi",
            "ˈɛf",
            "ʤˈi",
            "ˈAʧ",
            "ˈI",
            "ʤˈA",
            "kˈA",
            "ˈɛl",
            "ˈɛm",
            "ˈɛn",
            "ˈO",
            "pˈi",
            "kjˈu",
            "ˈɑɹ",
            "ˈɛs",
            "tˈi",
            "jˈu",
            "vˈi",
            "dˈʌbᵊlju",
            "ˈɛks",
            "wˈI",
            "zˈi",
        ],
        strict=True,
    )
)
"""English letter names in the phonemes Kokoro learnt (misaki's notation)."""
_PAUSES = str.maketrans("，。！？；：、", ",.!?;:,")

Phonemizer = Callable[[str], str]
"""Normalised Chinese to Kokoro phonemes."""


def phoneme_ids(phonemes: str) -> list[int]:
    """Return the model's numbers for ``phonemes``, unknown ones left out, cut to what one run takes, without the ends' padding."""
    return [_VOCABULARY[phoneme] for phoneme in phonemes if phoneme in _VOCABULARY][: _STYLES - 1]


def spelled(word: str) -> str:
    """Return Latin ``word`` letter by letter as phonemes."""
    return " ".join(_LETTERS[letter] for letter in word.upper() if letter in _LETTERS)


class KokoroSynthesizer:
    """A Kokoro voice for Mandarin; one clause is rendered at a time and given out before the next. 24 kHz."""

    def __init__(
        self,
        model_path: Path,
        voice_path: Path,
        *,
        threads: int = 2,
        max_waiting: int = 64,
        session: OnnxSession | None = None,
        phonemizer: Phonemizer | None = None,
    ) -> None:
        """Load model, voice and dictionary (about 2 s); ``session`` and ``phonemizer`` stand in for the real ones.

        Raises CatalogError for missing or damaged files, ConfigError when a library is not installed. Blocks.
        """
        self._styles = _read_voice(voice_path)
        self._phonemes = phonemizer or _mandarin()
        self._session = session or _open_quick(model_path, threads)
        self._slots = Slots(f"kokoro-{voice_path.stem}", 1, max_waiting=max_waiting, refusal=SynthesisError)

    @property
    def waiting(self) -> int:
        """Calls in line for the engine now."""
        return self._slots.waiting

    async def speak(self, text: str, language: str = "zh") -> AsyncGenerator[SpeechChunk, None]:  # noqa: ARG002 - one language
        """Yield the spoken sentence clause by clause; nothing for text without anything speakable; raise SynthesisError.

        Closing waits for the clause being rendered and renders no more.
        """
        for clause in clauses(normalize(text, "zh"), shortest=_SHORTEST_CLAUSE, longest=_LONGEST_CLAUSE):
            async with self._slots.hold():
                pcm = await self._slots.run(self._render, clause)
            if pcm:
                yield SpeechChunk(pcm=pcm, sample_rate_hz=SAMPLE_RATE_HZ)

    def close(self) -> None:
        """Refuse new sentences; does not block."""
        self._slots.close()

    def _render(self, clause: str) -> bytes:
        ids = phoneme_ids(self._phonemes(clause))
        if not ids:
            return b""
        inputs = {
            "tokens": np.array([[0, *ids, 0]], dtype=np.int64),
            "style": self._styles[len(ids)][None, :],
            "speed": np.full(1, SPEED, dtype=np.float32),
        }
        return trimmed_pcm(self._session.run(inputs)[0].reshape(-1).astype(np.float32), SAMPLE_RATE_HZ)


def _open_quick(path: Path, threads: int) -> OnnxSession:
    """Open the model with the silence around the words cut out; as it is, and logged, when that cannot be done."""
    if path.is_file():
        try:
            model = without_silence(path.read_bytes())
            if model is not None:
                with TemporaryDirectory(prefix="kokoro-") as folder:
                    edited = Path(folder, path.name)
                    edited.write_bytes(model)
                    return open_session(edited, threads=threads, failure=SynthesisError, arena=True)
            _log.warning("kokoro-silence-kept", model=path.name, reason="the model is not laid out as expected")
        except OSError as error:
            _log.warning("kokoro-silence-kept", model=path.name, reason=str(error))
    return open_session(path, threads=threads, failure=SynthesisError, arena=True)


def _read_voice(path: Path) -> npt.NDArray[np.float32]:
    try:
        styles = np.fromfile(path, dtype="<f4")
    except OSError as error:
        raise CatalogError(f"{path}: no such voice file; pull it with: xiaozhi-fleet models pull") from error
    if styles.size != _STYLES * _STYLE_WIDTH:
        raise CatalogError(f"{path}: {styles.nbytes} bytes, a Kokoro voice has {_STYLES * _STYLE_WIDTH * 4}")
    return styles.reshape(_STYLES, _STYLE_WIDTH).astype(np.float32)


def _mandarin() -> Phonemizer:
    """Return the Mandarin phonemizer with its dictionary loaded; safe to call from any thread."""
    missing = [name for name in ("jieba", "misaki", "pypinyin") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the Mandarin voice needs {', '.join(missing)}; install xiaozhi-fleet[engines]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba is older than the syntax warnings of today's Python
        import jieba  # type: ignore[import-untyped]  # ships no types
        from misaki.zh import ZHG2P
        from pypinyin import Style, lazy_pinyin

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()

    def syllables(word: str) -> str:
        pinyin = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True, tone_sandhi=True, errors="ignore")
        return "".join(_phonemes_of(ZHG2P.py2ipa, syllable) for syllable in pinyin)

    def phonemes(text: str) -> str:
        spoken = []
        for stretch in re.findall(r"[A-Za-z]+|[^A-Za-z，。！？；：、 ]+|[，。！？；：、 ]+", text):
            if stretch[0].isascii() and stretch[0].isalpha():
                spoken.append(f" {spelled(stretch)} ")
            elif stretch[0] in "，。！？；：、 ":
                spoken.append(stretch.translate(_PAUSES) + " ")
            else:
                spoken.append(" ".join(syllables(word) for word in jieba.lcut(stretch)))
        return re.sub(" +", " ", "".join(spoken)).strip()

    return phonemes


def _phonemes_of(py2ipa: Callable[[str], str], syllable: str) -> str:
    """Return one syllable's phonemes, "" for the few misaki does not know (噷, for one)."""
    try:
        return py2ipa(syllable)
    except (ValueError, AssertionError, KeyError):
        return ""
