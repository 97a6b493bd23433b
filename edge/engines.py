"""The engines of a brain by settings: real ones from the catalogue, or scripted ones for load tests; the one place that names them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from edge.settings import EdgeSettings
from models.engines import Completer, Recognizer, Synthesizer, VoiceDetector
from models.prompts import Prompt
from models.speech import Utterance
from models.store import locate

_log = structlog.get_logger()

VAD_MODEL = "silero-vad"
MANDARIN_MODEL = "kokoro-82m-int8"
SCRIPTED_ASR_S = 0.3
SCRIPTED_FIRST_TOKEN_S = 0.2
SCRIPTED_TTS_S = 0.15
"""Delays of the published comparison of servers under load: recognition, first token, each sentence."""


@dataclass(frozen=True, slots=True)
class Engines:
    """What one brain hears, thinks and speaks with."""

    detector: VoiceDetector
    recognizer: Recognizer
    completer: Completer
    synthesizer: Synthesizer
    close: Callable[[], Awaitable[None]]
    """Gives threads and memory back."""


async def load_engines(settings: EdgeSettings, observe_wait: Callable[[str, float], None]) -> Engines:
    """Load the engines, 5 to 15 s for real ones; raise CatalogError or ConfigError naming what is missing and the mend.

    ``observe_wait`` gets the name of a slot and the seconds a call waited for it.
    """
    if settings.engines == "scripted":
        _log.warning("engines_scripted", meaning="nothing this edge says is real: for load tests only")
        return _scripted()
    return await asyncio.to_thread(_real, settings, observe_wait)


def _real(settings: EdgeSettings, observe_wait: Callable[[str, float], None]) -> Engines:
    from models.kokoro import KokoroSynthesizer
    from models.llama import LlamaCompleter
    from models.piper import PiperSynthesizer
    from models.silero import SileroDetector
    from models.voices import Voices
    from models.whisper import WhisperRecognizer

    root = settings.models_root
    detector = SileroDetector(locate(VAD_MODEL, root)["model"], observe_wait=partial(observe_wait, "vad"))
    recognizer = WhisperRecognizer(
        locate(settings.asr_model, root)["model"].parent,
        threads=settings.asr_threads,
        observe_wait=partial(observe_wait, "asr"),
    )
    completer = LlamaCompleter(
        locate(settings.llm_model, root)["model"],
        threads=settings.llm_threads,
        name=settings.llm_model,
        observe_wait=partial(observe_wait, "llm"),
    )
    mandarin = KokoroSynthesizer(
        locate(MANDARIN_MODEL, root)["model"],
        locate(settings.mandarin_voice, root)["voice"],
        threads=settings.tts_threads,
    )
    files = locate(settings.english_voice, root)
    english = PiperSynthesizer(files["model"], files["config"], threads=settings.tts_threads)

    async def close() -> None:
        await detector.close()
        for engine in (recognizer, completer, mandarin, english):
            engine.close()

    return Engines(detector, recognizer, completer, Voices({"zh": mandarin, "en": english}, default="zh"), close)


def _scripted() -> Engines:
    from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer

    def heard(utterance: Utterance) -> str:
        return f"第{utterance.turn_id[:8]}个问题"

    def answer(prompt: Prompt) -> str:
        return f"这是{prompt.turn_id[:8]}的回答。它有两句话。"

    async def close() -> None:
        return None

    return Engines(
        ScriptedDetector(),
        ScriptedRecognizer(heard, delay_s=SCRIPTED_ASR_S),
        ScriptedCompleter(answer, first_token_s=SCRIPTED_FIRST_TOKEN_S),
        ScriptedSynthesizer(delay_s=SCRIPTED_TTS_S),
        close,
    )
