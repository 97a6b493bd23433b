"""SenseVoiceSmall as FunASR exports it, on ONNX Runtime: utterances of many devices to text, in batches, what is urgent first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import structlog
import yaml

from models.batching import Batcher
from models.errors import CatalogError, ConfigError, RecognitionError
from models.fbank import Fbank, FbankSettings, read_normalization
from models.onnx import OnnxSession, open_session
from models.sensevoice_text import (
    WITH_ITN,
    WITHOUT_ITN,
    Pieces,
    Said,
    Vocabulary,
    language_number,
    like_length,
    write,
)
from models.slots import Slots
from models.speech import Transcript, Utterance

BPE_FILE = "chn_jpn_yue_eng_ko_spectok.bpe.model"
SIGNED_FILE = "model_quant_s8.onnx"
"""``model_quant.onnx`` with signed weights, made by models/factory/signed_weights.py: the same results in half the time, with VNNI."""
TWIN_FILE = "TWIN"
"""Stands beside a model with random weights: good for measuring time and memory, never for text."""

GPU_BATCH = 8
CPU_BATCH = 1
"""Utterances in one call. On CPUs a batch of 8 costs a fifth less than its items one after another, and the first waits for the last."""

_CPU = "CPUExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_TENSORRT_STEP = 32
"""Lengths are rounded up to so many vectors for TensorRT, which builds an engine, for minutes, for every new range of shapes. A guess."""

_MAX_WASTE = 0.25
"""Share of a batch that may be padding. A guess: waiting for the next batch costs more than a quarter of this one."""

_FINAL, _PARTIAL = 0, 1
_CPUINFO = Path("/proc/cpuinfo")
_MEND = "delete it and pull the model again with: xiaozhi-fleet models pull"
_LOG = structlog.get_logger()


@dataclass(frozen=True, eq=False, slots=True)
class _Sound:
    """One utterance in line."""

    pcm: npt.NDArray[np.int16]
    language: int


class SenseVoiceRecognizer:
    """A Recognizer over one model directory in FunASR's layout.

    That is ``model_quant.onnx`` (with ``quantized`` False ``model.onnx``; on processors with VNNI ``SIGNED_FILE`` if it is there),
    ``am.mvn``, ``config.yaml`` and the BPE model. Up to ``batch`` utterances of like length are heard in one call with ``threads``
    threads, ``workers`` calls at once: finals before partials, the oldest first. ``batch`` 0 chooses ``GPU_BATCH`` or ``CPU_BATCH``. Of
    more than ``max_waiting`` in line the newest partial is refused with RecognitionError, or else the newcomer. ``itn`` writes
    punctuation and numbers as digits. ``observe_wait`` gets each batch's wait for a thread in seconds.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        quantized: bool = True,
        providers: Sequence[str] = (_CPU,),
        workers: int = 2,
        threads: int = 1,
        batch: int = 0,
        max_waiting: int = 64,
        itn: bool = True,
        max_text_characters: int = 2000,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        session: OnnxSession | None = None,
        pieces: Pieces | None = None,
    ) -> None:
        """Load the model; ``session`` and ``pieces`` stand in for the real ones. Raises CatalogError, ConfigError. Blocks."""
        settings = _read_config(model_dir / "config.yaml")
        shift, scale = read_normalization(_present(model_dir / "am.mvn"), settings.width)
        self._fbank = Fbank(settings, shift, scale)
        self._vocabulary = Vocabulary(pieces or _read_pieces(_present(model_dir / BPE_FILE)))
        model = _model_file(model_dir, quantized=quantized)
        self.model_name = model.name
        """The file chosen."""
        self._session = session or open_session(model, threads=threads, providers=providers, failure=RecognitionError)
        self.is_twin = (model_dir / TWIN_FILE).exists()
        """Whether the weights are random: every text is nonsense then, times and memory are true."""
        if self.is_twin:
            _LOG.warning("asr_is_a_twin", model=str(model_dir))
        self._itn = WITH_ITN if itn else WITHOUT_ITN
        self._max_text_characters = max_text_characters
        first = self._session.providers[0]
        self._step = _TENSORRT_STEP if first == _TENSORRT else 1
        self.batch = batch or (CPU_BATCH if first == _CPU else GPU_BATCH)
        """Most utterances in one call."""
        self._slots = Slots("sensevoice", workers, refusal=RecognitionError, observe_wait=observe_wait)
        self._batcher = Batcher[_Sound, Said](
            self._hear,
            self._slots,
            max_items=self.batch,
            max_waiting=max_waiting,
            refusal=RecognitionError,
            admit=_fits,
        )

    @property
    def waiting(self) -> int:
        """Utterances in line now, finals and partials."""
        return self._batcher.waiting

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return what was said, ``text=""`` for nothing intelligible; raise RecognitionError.

        ``confidence`` is the mean probability of the written pieces. Cancelled in line, the utterance is dropped at once; cancelled
        while it is heard, this waits for the call, some tenths of a second.
        """
        rate_hz = self._fbank.settings.sample_rate_hz
        if utterance.sample_rate_hz != rate_hz:
            raise RecognitionError(
                f"sensevoice hears {rate_hz} Hz; turn {utterance.turn_id} has {utterance.sample_rate_hz} Hz and must be resampled"
            )
        pcm = np.frombuffer(utterance.pcm, "<i2", count=len(utterance.pcm) // 2)
        if len(pcm) < self._fbank.settings.frame_ms * rate_hz / 1000:
            return Transcript(turn_id=utterance.turn_id, text="")
        sound = _Sound(pcm, language_number(utterance.language))
        said = await self._batcher.submit(sound, _FINAL if utterance.is_final else _PARTIAL)
        return Transcript(
            turn_id=utterance.turn_id,
            text=said.text[: self._max_text_characters],
            language=said.language,
            confidence=min(1.0, said.confidence),
        )

    async def warm(self, duration_s: float = 2.0) -> None:
        """Hear silence once, so that the first user does not pay for what the runtime prepares; raise RecognitionError."""
        silence = np.zeros(round(duration_s * self._fbank.settings.sample_rate_hz), np.int16)
        await self._batcher.submit(_Sound(silence, language_number("")), _PARTIAL)

    async def close(self) -> None:
        """Refuse further utterances and those in line, and wait for the running call."""
        await self._batcher.close()
        self._slots.close()

    def _hear(self, sounds: list[_Sound]) -> list[Said]:
        """Hear a batch; blocks. Raises RecognitionError."""
        heard = [self._fbank.features(sound.pcm) for sound in sounds]
        lengths = np.array([len(features) for features in heard], np.int32)
        longest = -(-int(lengths.max()) // self._step) * self._step
        speech = np.zeros((len(heard), longest, self._fbank.settings.width), np.float32)
        for row, features in zip(speech, heard, strict=True):
            row[: len(features)] = features
        logits, written = self._session.run(
            {
                "speech": speech,
                "speech_lengths": lengths,
                "language": np.array([sound.language for sound in sounds], np.int32),
                "textnorm": np.full(len(sounds), self._itn, np.int32),
            }
        )
        return [
            self._vocabulary.read(write(row[:frames])) for row, frames in zip(logits, written.tolist(), strict=True)
        ]


def _fits(taken: Sequence[_Sound], sound: _Sound) -> bool:
    """Tell whether a batch would not be mostly padding with ``sound`` in it."""
    return like_length([len(one.pcm) for one in taken], len(sound.pcm), _MAX_WASTE)


def _model_file(model_dir: Path, *, quantized: bool) -> Path:
    """Return the wanted file, else another one that is there; CatalogError for none comes from opening it."""
    names = ["model_quant.onnx", "model.onnx"] if quantized else ["model.onnx", "model_quant.onnx"]
    if quantized and has_vnni(_CPUINFO.read_text("utf-8", "replace") if _CPUINFO.exists() else ""):
        names.insert(0, SIGNED_FILE)
    there = [model_dir / name for name in names if (model_dir / name).is_file()]
    return there[0] if there else model_dir / "model_quant.onnx"


def has_vnni(cpuinfo: str) -> bool:
    """Tell from the text of /proc/cpuinfo whether unsigned times signed bytes are multiplied in one instruction, without saturation."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split()
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _present(path: Path) -> Path:
    if not path.is_file():
        raise CatalogError(f"{path}: no such file; pull the model with: xiaozhi-fleet models pull")
    return path


def _read_config(path: Path) -> FbankSettings:
    """Return the front end's settings in a FunASR config.yaml; raise CatalogError naming the file and the field."""
    try:
        config = yaml.safe_load(_present(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CatalogError(f"{path}: not readable YAML; {_MEND}") from error
    found = config.get("frontend_conf") if isinstance(config, dict) else None
    if not isinstance(found, dict):
        raise CatalogError(f"{path}: no frontend_conf in it; {_MEND}")
    default = FbankSettings()
    numbers = {
        ours: _number(path, found, theirs, getattr(default, ours))
        for ours, theirs in (
            ("sample_rate_hz", "fs"),
            ("mels", "n_mels"),
            ("frame_ms", "frame_length"),
            ("hop_ms", "frame_shift"),
            ("stacked", "lfr_m"),
            ("step", "lfr_n"),
        )
    }
    whole: dict[str, Any] = {name: int(value) for name, value in numbers.items() if not name.endswith("_ms")}
    return FbankSettings(
        window=str(found.get("window", default.window)),
        frame_ms=numbers["frame_ms"],
        hop_ms=numbers["hop_ms"],
        **whole,
    )


def _number(path: Path, found: dict[Any, Any], name: str, default: float) -> float:
    value = found.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise CatalogError(f"{path}: frontend_conf.{name} should be a number above 0; {_MEND}")
    return float(value)


def _read_pieces(path: Path) -> Pieces:
    """Return the BPE vocabulary; raise CatalogError for a damaged file, ConfigError without sentencepiece."""
    if find_spec("sentencepiece") is None:
        raise ConfigError("sentencepiece is missing; install xiaozhi-fleet[engines]")
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.Load(str(path))
    except (OSError, RuntimeError) as error:
        raise CatalogError(f"{path}: not a readable BPE model; {_MEND}") from error
    return cast("Pieces", pieces)
