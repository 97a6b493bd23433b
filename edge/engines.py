"""The engines of a brain by settings: real ones from the catalogue, or scripted ones for load tests; the one place that names them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from edge.brain.conversation import SYSTEM_PROMPTS
from edge.seam import UPLINK_RATE_HZ
from edge.settings import EdgeSettings
from models.engines import Completer, Recognizer, Synthesizer, VoiceDetector
from models.errors import CatalogError
from models.prompts import Prompt
from models.speech import Utterance
from models.store import locate

_log = structlog.get_logger()

VAD_MODEL = "silero-vad"
MANDARIN_MODEL = "kokoro-82m-int8"
WARM_WORDS = {"zh": "你好，很高兴认识你。", "en": "Hello, nice to meet you."}
"""As long as a usual first sentence, so that the voices have their memory."""
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
    waiting: Mapping[str, Callable[[], int]]
    """Calls in line now, by stage."""
    warm: Callable[[], Awaitable[None]]
    """Does everything once, so that the first turn is as quick as the others."""
    close: Callable[[], Awaitable[None]]
    """Gives threads and memory back."""


async def load_engines(settings: EdgeSettings, observe_wait: Callable[[str, float], None]) -> Engines:
    """Load the engines, 5 to 15 s for real ones; raise CatalogError or ConfigError naming what is missing and the mend.

    ``observe_wait`` gets the name of a slot and the seconds a call waited for it.
    """
    if settings.engines == "scripted":
        _log.warning("engines_scripted", meaning="nothing this edge says is real: for load tests only")
        return _scripted()
    engines = await asyncio.to_thread(_real, settings, observe_wait)
    await engines.warm()
    return engines


def _real(settings: EdgeSettings, observe_wait: Callable[[str, float], None]) -> Engines:
    from models.kokoro import KokoroSynthesizer
    from models.llama import LlamaCompleter
    from models.piper import PiperSynthesizer
    from models.silero import SileroDetector
    from models.voices import Voices
    from models.whisper import WhisperRecognizer

    files = _files(settings)
    detector = SileroDetector(files.vad, observe_wait=partial(observe_wait, "vad"))
    recognizer = WhisperRecognizer(
        files.asr.parent, threads=settings.asr_threads, observe_wait=partial(observe_wait, "asr")
    )
    completer = LlamaCompleter(
        files.llm, threads=settings.llm_threads, name=settings.llm_model, observe_wait=partial(observe_wait, "llm")
    )
    mandarin = KokoroSynthesizer(files.mandarin_model, files.mandarin_voice, threads=settings.tts_threads)
    english = PiperSynthesizer(files.english_model, files.english_config, threads=settings.tts_threads)

    voices = Voices({"zh": mandarin, "en": english}, default="zh")

    async def warm() -> None:
        silence = bytes(2 * UPLINK_RATE_HZ)
        await recognizer.transcribe(Utterance(turn_id="warm", device_id="", pcm=silence, start_ms=0, end_ms=1000))
        for language, system in SYSTEM_PROMPTS.items():
            await completer.warm(system)
            async with aclosing(voices.speak(WARM_WORDS[language], language)) as speech:
                async for _ in speech:
                    pass

    async def close() -> None:
        await detector.close()
        for engine in (recognizer, completer, mandarin, english):
            engine.close()

    waiting = {
        "asr": lambda: recognizer.waiting,
        "llm": lambda: completer.waiting,
        "tts": lambda: mandarin.waiting + english.waiting,
    }
    return Engines(detector, recognizer, completer, voices, waiting, warm, close)


@dataclass(frozen=True, slots=True)
class _Files:
    vad: Path
    asr: Path
    llm: Path
    mandarin_model: Path
    mandarin_voice: Path
    english_model: Path
    english_config: Path


def _files(settings: EdgeSettings) -> _Files:
    """Return where everything lies, before anything is loaded: what is missing is said at once."""
    root = settings.models_root
    return _Files(
        vad=_file(VAD_MODEL, "model", root),
        asr=_file(settings.asr_model, "model", root),
        llm=_file(settings.llm_model, "model", root),
        mandarin_model=_file(MANDARIN_MODEL, "model", root),
        mandarin_voice=_file(settings.mandarin_voice, "voice", root),
        english_model=_file(settings.english_voice, "model", root),
        english_config=_file(settings.english_voice, "config", root),
    )


def _file(name: str, role: str, root: Path | None) -> Path:
    files = locate(name, root)
    if role not in files:
        raise CatalogError(f"{name} cannot be used here: it has no {role} file, only {', '.join(files)}")
    return files[role]


def _scripted() -> Engines:
    from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer

    def heard(utterance: Utterance) -> str:
        return f"第{utterance.turn_id[:8]}个问题"

    def answer(prompt: Prompt) -> str:
        return f"这是{prompt.turn_id[:8]}的回答。它有两句话。"

    async def nothing() -> None:
        return None

    return Engines(
        ScriptedDetector(),
        ScriptedRecognizer(heard, delay_s=SCRIPTED_ASR_S),
        ScriptedCompleter(answer, first_token_s=SCRIPTED_FIRST_TOKEN_S),
        ScriptedSynthesizer(delay_s=SCRIPTED_TTS_S),
        {},
        nothing,
        nothing,
    )
