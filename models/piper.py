"""Speaks English with a Piper voice: espeak-ng finds the phonemes, ONNX Runtime the sound."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import CatalogError, ConfigError, SynthesisError
from models.normalize import clauses, normalize
from models.onnx import Array, OnnxSession, open_session
from models.slots import Slots
from models.speech import SpeechChunk
from models.voices import trimmed_pcm

_SHORTEST_CLAUSE = 24
"""Characters worth a run of their own; shorter ones sound hurried (a guess)."""
_LONGEST_CLAUSE = 200
"""Bounds one run, and with it how long closing waits: about 12 s of speech."""

Phonemizer = Callable[[str], list[list[int]]]
"""Text to phoneme ids, one list a sentence."""


class PiperSynthesizer:
    """A Piper voice; one clause is rendered at a time and given out before the next."""

    def __init__(
        self,
        model_path: Path,
        config_path: Path,
        *,
        threads: int = 1,
        max_waiting: int = 64,
        session: OnnxSession | None = None,
        phonemizer: Phonemizer | None = None,
    ) -> None:
        """Load the voice; ``session`` and ``phonemizer`` stand in for the real ones. Raises CatalogError, ConfigError. Blocks."""
        config = _read_config(config_path)
        try:
            self.sample_rate_hz = int(config["audio"]["sample_rate"])
            inference = config["inference"]
            self._scales = np.array(
                [inference["noise_scale"], inference["length_scale"], inference["noise_w"]], dtype=np.float32
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogError(f"{config_path}: not a Piper voice description ({error!r})") from error
        self._phonemes = phonemizer or _espeak(config, config_path)
        self._session = session or open_session(model_path, threads=threads, failure=SynthesisError)
        self._slots = Slots(f"piper-{model_path.stem}", 1, max_waiting=max_waiting, refusal=SynthesisError)

    @property
    def waiting(self) -> int:
        """Calls in line for the engine now."""
        return self._slots.waiting

    async def speak(self, text: str, language: str = "en") -> AsyncGenerator[SpeechChunk, None]:  # noqa: ARG002 - one language
        """Yield the spoken sentence clause by clause; nothing for text without English in it; raise SynthesisError."""
        for clause in clauses(normalize(text, "en"), shortest=_SHORTEST_CLAUSE, longest=_LONGEST_CLAUSE):
            async with self._slots.hold():
                pcm = await self._slots.run(self._render, clause)
            if pcm:
                yield SpeechChunk(pcm=pcm, sample_rate_hz=self.sample_rate_hz)

    def close(self) -> None:
        """Refuse new sentences; does not block."""
        self._slots.close()

    def _render(self, clause: str) -> bytes:
        try:
            sentences = self._phonemes(clause)
        except (RuntimeError, ValueError, KeyError) as error:
            raise SynthesisError(f"piper: no phonemes for {len(clause)} characters ({type(error).__name__})") from error
        return b"".join(self._sound(ids) for ids in sentences if ids)

    def _sound(self, ids: list[int]) -> bytes:
        inputs: dict[str, Array] = {
            "input": np.array([ids], dtype=np.int64),
            "input_lengths": np.array([len(ids)], dtype=np.int64),
            "scales": self._scales,
        }
        samples = self._session.run(inputs)[0].reshape(-1).astype(np.float32)
        return trimmed_pcm(samples, self.sample_rate_hz)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise CatalogError(
            f"{path}: voice description missing; run: xiaozhi-fleet models pull piper-en-us-joe-medium"
        ) from error
    except ValueError as error:
        raise CatalogError(f"{path}: not JSON; run: xiaozhi-fleet models verify") from error
    if not isinstance(config, dict):
        raise CatalogError(f"{path}: not a Piper voice description")
    return config


def _espeak(config: dict[str, Any], config_path: Path) -> Phonemizer:
    """Return espeak-ng as a phonemizer; it is one global engine, so call it from one thread at a time."""
    if find_spec("piper") is None:
        raise ConfigError(
            "the English voice needs piper-tts (GPL-3.0); install it with: pip install 'xiaozhi-fleet[piper]'"
        )
    from piper.config import PiperConfig
    from piper.phoneme_ids import phonemes_to_ids
    from piper.phonemize_espeak import EspeakPhonemizer

    try:
        described = PiperConfig.from_dict(config)
        espeak = EspeakPhonemizer()
    except (KeyError, ValueError, RuntimeError) as error:
        raise CatalogError(f"{config_path}: piper cannot use this voice description ({error!r})") from error

    def ids_of(text: str) -> list[list[int]]:
        sentences = espeak.phonemize(described.espeak_voice, text)
        return [list(phonemes_to_ids(sentence, described.phoneme_id_map)) for sentence in sentences if sentence]

    return ids_of
