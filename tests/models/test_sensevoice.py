from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from models.errors import CatalogError, ConfigError, RecognitionError
from models.factory.sensevoice_twin import TINY, build
from models.sensevoice import BPE_FILE, CPU_BATCH, GPU_BATCH, SIGNED_FILE, TWIN_FILE, SenseVoiceRecognizer, has_vnni
from models.speech import Transcript, Utterance
from tests.real_time import run

for library in ("kaldi_native_fbank", "onnx", "onnxruntime", "sentencepiece"):
    pytest.importorskip(library)

RATE_HZ = 16_000
PIECES = ["<unk>", "<s>", "</s>", "一", "二", "三", "四", "五", "六", "七", "八", "九", "<|zh|>", "<|nospeech|>"]
ZH, NO_SPEECH = 12, 13


class List:
    def get_piece_size(self) -> int:
        return len(PIECES)

    def id_to_piece(self, token: int) -> str:
        return PIECES[token]

    def decode(self, tokens: list[int]) -> str:
        return "".join(PIECES[token] for token in tokens)


class Session:
    """Writes, for each utterance, its length in vectors as one character and what it was asked; stands still while ``shut``."""

    def __init__(self, *, provider: str = "CPUExecutionProvider", shut: bool = False, tag: int = ZH) -> None:
        self.providers = (provider, "CPUExecutionProvider")
        self.asked: list[Mapping[str, np.ndarray]] = []
        self.began = threading.Event()
        self.open = threading.Event()
        self.error: RecognitionError | None = None
        self._tag = tag
        if not shut:
            self.open.set()

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        self.asked.append(inputs)
        self.began.set()
        assert self.open.wait(10)
        if self.error:
            raise self.error
        lengths = inputs["speech_lengths"]
        logits = np.zeros((len(lengths), inputs["speech"].shape[1] + 4, len(PIECES)), np.float32)
        logits[:, :, 0] = 10
        for row, length in zip(logits, lengths, strict=True):
            row[0, self._tag] = 20
            row[4, 2 + length] = 20
            row[length + 4 :, 3] = 99  # what the model writes for padding is not text
        return [logits, lengths + 4]

    @property
    def lengths(self) -> list[list[int]]:
        return [inputs["speech_lengths"].tolist() for inputs in self.asked]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "twin", size=TINY)


@pytest.fixture
def model_dir(twin: Path, tmp_path: Path) -> Path:
    """A directory of one's own to damage."""
    return shutil.copytree(twin, tmp_path / "model")


def saying(vectors: int, *, is_final: bool = True, language: str = "", rate_hz: int = RATE_HZ) -> Utterance:
    """Return an utterance of so many feature vectors."""
    pcm = bytes(2 * (400 + (vectors - 1) * 960)) if vectors else bytes(100)
    return Utterance(
        turn_id=f"t{vectors}",
        device_id="d",
        pcm=pcm,
        sample_rate_hz=rate_hz,
        start_ms=0,
        end_ms=0,
        language=language,
        is_final=is_final,
    )


def check(scenario, twin: Path, session: Session | None = None, **options) -> None:
    """Run ``scenario(recognizer)`` and close."""

    async def work() -> None:
        stand_ins = {"session": session, "pieces": List(), "workers": 1} if session else {}
        recognizer = SenseVoiceRecognizer(twin, **stand_ins | options)
        await scenario(recognizer)
        await recognizer.close()

    run(work())


def start(recognizer: SenseVoiceRecognizer, *utterances: Utterance) -> list[asyncio.Task[Transcript]]:
    return [asyncio.create_task(recognizer.transcribe(utterance)) for utterance in utterances]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_utterance_becomes_text_in_its_language(twin: Path):
    session = Session()

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        heard = await recognizer.transcribe(saying(3))
        assert (heard.turn_id, heard.text, heard.language) == ("t3", "三", "zh")
        assert heard.confidence == pytest.approx(1, abs=1e-3)

    check(scenario, twin, session)
    [asked] = session.asked
    assert {name: array.dtype.name for name, array in asked.items()} == {
        "speech": "float32",
        "speech_lengths": "int32",
        "language": "int32",
        "textnorm": "int32",
    }
    assert (asked["language"].tolist(), asked["textnorm"].tolist()) == ([0], [14])


@pytest.mark.parametrize(
    ("language", "itn", "number", "textnorm"), [("zh", True, 3, 14), ("en", False, 4, 15), ("fr", True, 0, 14)]
)
def test_the_model_is_told_language_and_writing(twin: Path, language: str, itn: bool, number: int, textnorm: int):
    session = Session()

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        await recognizer.transcribe(saying(1, language=language))

    check(scenario, twin, session, itn=itn)
    [asked] = session.asked
    assert (asked["language"].tolist(), asked["textnorm"].tolist()) == ([number], [textnorm])


@pytest.mark.parametrize("pcm", [b"", b"\x01", bytes(798)])
def test_what_is_shorter_than_a_frame_says_nothing_and_costs_nothing(twin: Path, pcm: bytes):
    session = Session()

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        utterance = Utterance(turn_id="t", device_id="d", pcm=pcm, start_ms=0, end_ms=0)
        assert await recognizer.transcribe(utterance) == Transcript(turn_id="t", text="")

    check(scenario, twin, session)
    assert session.asked == []


def test_where_nobody_speaks_there_is_no_text(twin: Path):
    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        assert await recognizer.transcribe(saying(2)) == Transcript(turn_id="t2", text="")

    check(scenario, twin, Session(tag=NO_SPEECH))


def test_a_text_has_a_longest_length(twin: Path):
    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        assert (await recognizer.transcribe(saying(2))).text == ""

    check(scenario, twin, Session(), max_text_characters=0)


def test_another_rate_is_refused(twin: Path):
    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        with pytest.raises(RecognitionError, match="48000 Hz"):
            await recognizer.transcribe(saying(1, rate_hz=48_000))

    check(scenario, twin, Session())


def test_finals_go_before_partials_and_each_kind_in_order(twin: Path):
    session = Session(shut=True)

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        first = start(recognizer, saying(1))
        await asyncio.to_thread(session.began.wait, 10)
        rest = start(recognizer, saying(2, is_final=False), saying(3), saying(4, is_final=False), saying(5))
        await settle()
        assert recognizer.waiting == 4
        session.open.set()
        texts = [transcript.text for transcript in await asyncio.gather(*first, *rest)]
        assert texts == ["一", "二", "三", "四", "五"]

    check(scenario, twin, session, batch=1)
    assert session.lengths == [[1], [3], [5], [2], [4]]


def test_a_batch_is_padded_and_holds_only_what_is_about_as_long(twin: Path):
    session = Session(shut=True)

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        first = start(recognizer, saying(1))
        await asyncio.to_thread(session.began.wait, 10)
        rest = start(recognizer, *map(saying, (8, 2, 9, 7, 2)))
        await settle()
        session.open.set()
        texts = [transcript.text for transcript in await asyncio.gather(*first, *rest)]
        assert texts == ["一", "八", "二", "九", "七", "二"]

    check(scenario, twin, session, batch=8)
    assert session.lengths == [[1], [8, 9, 7], [2, 2]]
    speech = session.asked[1]["speech"]
    assert speech.shape == (3, 9, 560)
    assert not speech[0, 8:].any()
    assert speech[0, 7].any()


def test_workers_hear_at_the_same_time(twin: Path):
    session = Session(shut=True)

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        tasks = start(recognizer, saying(1), saying(2), saying(3))
        while len(session.asked) < 2:
            await asyncio.to_thread(session.began.wait, 10)
            await settle()
        assert recognizer.waiting == 1
        session.open.set()
        assert [transcript.text for transcript in await asyncio.gather(*tasks)] == ["一", "二", "三"]

    check(scenario, twin, session, workers=2, batch=1)


def test_a_full_line_refuses_a_partial_for_a_final(twin: Path):
    session = Session(shut=True)

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        first = start(recognizer, saying(1))
        await asyncio.to_thread(session.began.wait, 10)
        [partial] = start(recognizer, saying(2, is_final=False))
        await settle()
        [final] = start(recognizer, saying(3))
        with pytest.raises(RecognitionError, match="urgent"):
            await partial
        with pytest.raises(RecognitionError, match="in line"):
            await recognizer.transcribe(saying(4))
        session.open.set()
        assert [transcript.text for transcript in await asyncio.gather(*first, final)] == ["一", "三"]

    check(scenario, twin, session, max_waiting=1, batch=1)


def test_an_utterance_cancelled_in_line_is_never_heard(twin: Path):
    session = Session(shut=True)

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        first = start(recognizer, saying(1))
        await asyncio.to_thread(session.began.wait, 10)
        [dropped] = start(recognizer, saying(2))
        await settle()
        dropped.cancel()
        await asyncio.wait([dropped])
        assert recognizer.waiting == 0
        session.open.set()
        await asyncio.gather(*first)

    check(scenario, twin, session)
    assert session.lengths == [[1]]


def test_a_failing_model_fails_its_utterance_only(twin: Path):
    session = Session()

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        session.error = RecognitionError("planned")
        with pytest.raises(RecognitionError, match="planned"):
            await recognizer.transcribe(saying(1))
        session.error = None
        assert (await recognizer.transcribe(saying(2))).text == "二"

    check(scenario, twin, session)


def test_closing_refuses_what_comes(twin: Path):
    async def work() -> None:
        recognizer = SenseVoiceRecognizer(twin, session=Session(), pieces=List())
        await recognizer.close()
        with pytest.raises(RecognitionError, match="closed"):
            await recognizer.transcribe(saying(1))

    run(work())


@pytest.mark.parametrize(
    ("provider", "batch", "vectors"),
    [
        ("CPUExecutionProvider", CPU_BATCH, 9),
        ("CUDAExecutionProvider", GPU_BATCH, 9),
        ("TensorrtExecutionProvider", GPU_BATCH, 32),
    ],
)
def test_batch_and_padding_suit_the_provider(twin: Path, provider: str, batch: int, vectors: int):
    session = Session(provider=provider)

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        assert recognizer.batch == batch
        assert (await recognizer.transcribe(saying(9))).text == "九"

    check(scenario, twin, session)
    assert session.asked[0]["speech"].shape == (1, vectors, 560)


def test_warming_hears_silence(twin: Path):
    session = Session()

    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        await recognizer.warm(duration_s=0.3)

    check(scenario, twin, session)
    assert session.lengths == [[5]]


def noise(duration_s: float, seed: int, **options) -> Utterance:
    pcm = np.random.default_rng(seed).normal(0, 2000, round(duration_s * RATE_HZ)).astype("<i2").tobytes()
    return Utterance(turn_id=str(seed), device_id="d", pcm=pcm, start_ms=0, end_ms=0, **options)


@pytest.mark.parametrize("quantized", [False, True])
def test_a_twin_hears_alone_what_it_hears_in_a_batch(twin: Path, quantized: bool):
    """Padding must not reach the text; quantized, a batch shares its scales, so that only the unquantized texts are the same."""
    utterances = [noise(duration_s, seed) for seed, duration_s in enumerate((1.8, 1.7, 1.5, 1.6))]
    alone: list[Transcript] = []

    async def one_by_one(recognizer: SenseVoiceRecognizer) -> None:
        assert recognizer.is_twin
        alone.extend([await recognizer.transcribe(utterance) for utterance in utterances])

    async def at_once(recognizer: SenseVoiceRecognizer) -> None:
        together = await asyncio.gather(*start(recognizer, *utterances))
        assert any(transcript.text for transcript in together)
        if not quantized:
            assert [transcript.text for transcript in together] == [transcript.text for transcript in alone]

    check(one_by_one, twin, quantized=quantized, batch=1)
    check(at_once, twin, quantized=quantized, batch=4)


def test_without_the_wanted_file_the_other_one_serves(model_dir: Path):
    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        await recognizer.warm(0.1)

    for name in ("model_quant.onnx", SIGNED_FILE):
        (model_dir / name).unlink()
    check(scenario, model_dir)


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_vnni", True),
        ("processor : 0\nflags : avx2 avx_vnni", True),
        ("flags : avx2 avx512f", False),
        ("model name : avx512_vnni", False),
        ("", False),
    ],
)
def test_signed_weights_are_for_processors_with_vnni(
    model_dir: Path, tmp_path: Path, monkeypatch, flags: str, has: bool
):
    assert has_vnni(flags) is has
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr("models.sensevoice._CPUINFO", tmp_path / "cpuinfo")
    (model_dir / SIGNED_FILE).write_bytes(b"damaged, to see whether it is opened")
    if has:
        with pytest.raises(CatalogError, match=SIGNED_FILE):
            SenseVoiceRecognizer(model_dir)
    else:
        SenseVoiceRecognizer(model_dir)


def test_only_a_twin_says_that_it_is_one(model_dir: Path):
    async def scenario(recognizer: SenseVoiceRecognizer) -> None:
        assert not recognizer.is_twin

    (model_dir / TWIN_FILE).unlink()
    check(scenario, model_dir)


@pytest.mark.parametrize("name", ["am.mvn", "config.yaml", BPE_FILE, "model.onnx"])
def test_a_missing_file_is_named_with_the_mend(model_dir: Path, name: str):
    others = ("model_quant.onnx", SIGNED_FILE) if name == "model.onnx" else ()
    for gone in (name, *others):
        (model_dir / gone).unlink()
    shown = "model_quant" if name == "model.onnx" else name
    with pytest.raises(CatalogError, match=rf"{shown}.*pull"):
        SenseVoiceRecognizer(model_dir)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("am.mvn", b"", "AddShift"),
        ("config.yaml", b"{", "YAML"),
        ("config.yaml", b"\xff\xfe\x00", "YAML"),
        ("config.yaml", b"[]", "frontend_conf"),
        ("config.yaml", b"frontend_conf: 3", "frontend_conf"),
        ("config.yaml", b"frontend_conf: {n_mels: many}", "n_mels"),
        ("config.yaml", b"frontend_conf: {lfr_n: 0}", "lfr_n"),
        ("config.yaml", b"frontend_conf: {fs: true}", "fs"),
        (BPE_FILE, b"not a vocabulary", "BPE"),
        ("model_quant.onnx", b"not a model", "ONNX"),
    ],
)
def test_a_damaged_file_is_named_with_the_mend(model_dir: Path, name: str, content: bytes, said: str):
    (model_dir / SIGNED_FILE).unlink()
    (model_dir / name).write_bytes(content)
    with pytest.raises(CatalogError, match=rf"{name}: .*{said}.*pull"):
        SenseVoiceRecognizer(model_dir)


def test_without_sentencepiece_the_extra_is_named(twin: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.sensevoice.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="engines"):
        SenseVoiceRecognizer(twin, session=Session())
