"""The engines of a brain by settings: real ones from the catalogue, or scripted ones for load tests; the one place that names them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import structlog

from edge.brain.conversation import SYSTEM_PROMPTS
from edge.seam import UPLINK_RATE_HZ
from edge.settings import SCRIPTED, EdgeSettings
from models.engines import Completer, Recognizer, Synthesizer, TurnDetector, VoiceDetector
from models.errors import CatalogError
from models.prompts import Prompt
from models.speech import Utterance
from models.store import locate
from models.variants import quickest_path, variant_path

_log = structlog.get_logger()

ObserveWait = Callable[[float], None]

VAD_MODEL = "silero-vad"
MANDARIN_MODEL = "kokoro-82m-int8"
NORMALIZATION_FILE = "am.mvn"
"""What tells a SenseVoice directory from a Whisper one."""
WARM_WORDS = {"zh": "你好，很高兴认识你。", "en": "Hello, nice to meet you."}
"""As long as a usual first sentence, so that the voices have their memory."""
SCRIPTED_ASR_S = 0.3
SCRIPTED_TTS_S = 0.15
"""Delays of the published comparison of servers under load: recognition and each sentence."""


def _one_text(text: str, _language: str) -> str:
    return " ".join(text.split())


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Engines:
    """What one brain hears, thinks and speaks with."""

    detector: VoiceDetector
    recognizer: Recognizer
    completer: Completer
    synthesizer: Synthesizer
    turn_detector: TurnDetector | None = None
    voice: str = ""
    """Names the voices and their version: speech of other voices is never served from the cache."""
    words: Callable[[str, str], str] = _one_text
    """What the voices say of a text: texts that are the same here sound the same."""
    waiting: Mapping[str, Callable[[], int]] = field(default_factory=dict)
    """Calls in line now, by stage."""
    warm: Callable[[], Awaitable[None]] = _nothing
    """Does everything once, so that the first turn is as quick as the others."""
    close: Callable[[], Awaitable[None]] = _nothing
    """Gives threads and memory back."""


async def load_engines(settings: EdgeSettings, observe_wait: Callable[[str, float], None]) -> Engines:
    """Load the engines, 5 to 15 s for real ones; raise CatalogError or ConfigError naming what is missing and the mend.

    ``observe_wait`` gets the name of a slot and the seconds a call waited for it.
    """
    if settings.engines == SCRIPTED:
        _log.warning("engines_scripted", meaning="nothing this edge says is real: for load tests only")
        return _scripted(settings)
    # A thread of its own: the loop's end waits for those of the default executor, and loading cannot be interrupted.
    loader = ThreadPoolExecutor(1, thread_name_prefix="load-engines")
    try:
        engines = await asyncio.get_running_loop().run_in_executor(loader, _real, settings, observe_wait)
    finally:
        loader.shutdown(wait=False)
    await engines.warm()
    return engines


@dataclass(frozen=True, slots=True)
class _Parts:
    """What has to be done with the engines besides using them."""

    lines: dict[str, Callable[[], int]] = field(default_factory=dict)
    warmings: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    closings: list[Callable[[], Awaitable[None] | None]] = field(default_factory=list)

    async def warm_all(self) -> None:
        for warm in self.warmings:
            await warm()

    async def close_all(self) -> None:
        for close in self.closings:
            if (closing := close()) is not None:
                await closing


def _real(settings: EdgeSettings, observe_wait: Callable[[str, float], None]) -> Engines:
    files, parts = _files(settings), _Parts()
    detector = _detector(settings, files.vad, parts, partial(observe_wait, "vad"))
    turn_detector = _turn_detector(settings, files.turn, parts, partial(observe_wait, "turn")) if files.turn else None
    recognizer = _recognizer(settings, files.asr, parts, partial(observe_wait, "asr"))
    completer = _completer(settings, files.llm, parts, partial(observe_wait, "llm"))
    synthesizer, voice, words = _voices(settings, files, parts)
    return Engines(
        detector,
        recognizer,
        completer,
        synthesizer,
        turn_detector,
        voice=voice,
        words=words,
        waiting=parts.lines,
        warm=parts.warm_all,
        close=parts.close_all,
    )


def _detector(settings: EdgeSettings, path: Path, parts: _Parts, observe_wait: ObserveWait) -> VoiceDetector:
    from models.silero import SileroDetector

    model = quickest_path(path) if settings.vad_variant == "auto" else variant_path(path, settings.vad_variant)
    _log.info("vad_model", file=model.name)
    detector = SileroDetector(
        model, wait_ms=settings.vad_wait_ms, providers=settings.execution_providers, observe_wait=observe_wait
    )
    parts.warmings.append(detector.warm)
    parts.closings.append(detector.close)
    return detector


def _turn_detector(settings: EdgeSettings, path: Path, parts: _Parts, observe_wait: ObserveWait) -> TurnDetector:
    from models.smart_turn import SmartTurnDetector

    detector = SmartTurnDetector(path, providers=settings.execution_providers, observe_wait=observe_wait)
    parts.warmings.append(detector.warm)
    parts.closings.append(detector.close)
    return detector


def _recognizer(settings: EdgeSettings, folder: Path, parts: _Parts, observe_wait: ObserveWait) -> Recognizer:
    from models.sensevoice import SenseVoiceRecognizer
    from models.whisper import WhisperRecognizer

    recognizer: SenseVoiceRecognizer | WhisperRecognizer
    if (folder / NORMALIZATION_FILE).is_file():
        recognizer = SenseVoiceRecognizer(
            folder,
            providers=settings.execution_providers,
            workers=settings.asr_workers,
            batch=settings.asr_batch,
            itn=settings.asr_itn,
            observe_wait=observe_wait,
        )
    else:
        recognizer = WhisperRecognizer(folder, threads=settings.asr_threads, observe_wait=observe_wait)
    silence = Utterance(turn_id="warm", device_id="", pcm=bytes(2 * UPLINK_RATE_HZ), start_ms=0, end_ms=1000)
    parts.warmings.append(partial(recognizer.transcribe, silence))
    parts.closings.append(recognizer.close)
    parts.lines["asr"] = lambda: recognizer.waiting
    return recognizer


def _completer(settings: EdgeSettings, path: Path | None, parts: _Parts, observe_wait: ObserveWait) -> Completer:
    from models.llama import LlamaCompleter

    if path is None:
        _log.warning("llm_scripted", meaning="no answer of this edge is real: for load tests only")
        return _scripted_completer(settings)
    completer = LlamaCompleter(
        path,
        slots=settings.llm_slots,
        threads=settings.llm_threads,
        context_tokens=settings.llm_context_tokens,
        cache_tokens=max(settings.llm_cache_tokens, settings.llm_context_tokens),
        max_waiting=settings.llm_max_waiting,
        name=settings.llm_name,
        observe_wait=observe_wait,
    )
    parts.warmings.extend(partial(completer.warm, system) for system in SYSTEM_PROMPTS.values())
    parts.closings.append(completer.close)
    parts.lines["llm"] = lambda: completer.waiting
    return completer


def _voices(settings: EdgeSettings, files: _Files, parts: _Parts) -> tuple[Synthesizer, str, Callable[[str, str], str]]:
    """Return the voices, their name, and what they say of a text."""
    from models.kokoro import KokoroSynthesizer
    from models.piper import PiperSynthesizer
    from models.voices import Voices

    mandarin = KokoroSynthesizer(files.mandarin_model, files.mandarin_voice, threads=settings.tts_threads)
    english = PiperSynthesizer(files.english_model, files.english_config, threads=settings.tts_threads)
    voices = Voices({"zh": mandarin, "en": english}, default="zh")
    parts.warmings.extend(partial(_say, voices, words, language) for language, words in WARM_WORDS.items())
    parts.closings.extend((mandarin.close, english.close))
    parts.lines["tts"] = lambda: mandarin.waiting + english.waiting
    return voices, voice_name(settings), voices.words


def voice_name(settings: EdgeSettings) -> str:
    """Return the name of the voices that the settings ask for, as it stands in the keys of speech."""
    from models.kokoro import SPEED

    if settings.engines == SCRIPTED:
        return ""
    return f"{MANDARIN_MODEL}/{settings.mandarin_voice}@{SPEED:g}|{settings.english_voice}"


async def _say(voices: Synthesizer, words: str, language: str) -> None:
    async with aclosing(voices.speak(words, language)) as speech:
        async for _ in speech:
            pass


@dataclass(frozen=True, slots=True)
class _Files:
    vad: Path
    turn: Path | None
    """None when silence alone ends a turn."""
    asr: Path
    """A directory."""
    llm: Path | None
    """None when it is scripted."""
    mandarin_model: Path
    mandarin_voice: Path
    english_model: Path
    english_config: Path


def _files(settings: EdgeSettings) -> _Files:
    """Return where everything lies, before anything is loaded: what is missing is said at once."""
    root = settings.models_root
    return _Files(
        vad=_file(VAD_MODEL, "model", root),
        turn=_file(settings.turn_model, "model", root) if settings.turn_model else None,
        asr=_own(settings.asr_model) or _file(settings.asr_model, "model", root).parent,
        llm=None
        if settings.llm_model == SCRIPTED
        else _own(settings.llm_model) or _file(settings.llm_model, "model", root),
        mandarin_model=_file(MANDARIN_MODEL, "model", root),
        mandarin_voice=_file(settings.mandarin_voice, "voice", root),
        english_model=_file(settings.english_voice, "model", root),
        english_config=_file(settings.english_voice, "config", root),
    )


def _own(name: str) -> Path | None:
    """Return the path of a model that is no entry of the catalogue but a file or directory of the user's."""
    if "/" not in name:
        return None
    path = Path(name).expanduser()
    if not path.exists():
        raise CatalogError(f"{path}: no such file or directory")
    return path


def _file(name: str, role: str, root: Path | None) -> Path:
    files = locate(name, root)
    if role not in files:
        raise CatalogError(f"{name} cannot be used here: it has no {role} file, only {', '.join(files)}")
    return files[role]


def _scripted(settings: EdgeSettings) -> Engines:
    from models.scripted import ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer

    def heard(utterance: Utterance) -> str:
        return f"第{utterance.turn_id[:8]}个问题"

    return Engines(
        ScriptedDetector(),
        ScriptedRecognizer(heard, delay_s=SCRIPTED_ASR_S),
        _scripted_completer(settings),
        ScriptedSynthesizer(delay_s=SCRIPTED_TTS_S),
    )


def _scripted_completer(settings: EdgeSettings) -> Completer:
    from models.scripted import ScriptedCompleter

    numbers = count(1)

    def answer(prompt: Prompt) -> str:
        said = settings.scripted_answer.replace("{turn}", prompt.turn_id[:8])
        return said.replace("{count}", str(next(numbers)))

    return ScriptedCompleter(
        answer, first_token_s=settings.scripted_first_token_s, per_token_s=settings.scripted_token_s
    )
