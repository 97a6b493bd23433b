from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest
import structlog.testing

from edge.engines import MANDARIN_MODEL, VAD_MODEL, load_engines
from edge.settings import EdgeSettings
from models.catalog import load_catalog
from models.errors import CatalogError, VoiceError
from models.prompts import Message, Prompt
from models.scripted import tone
from models.speech import AudioFrame, Utterance
from models.store import locate
from tests import virtual_time
from tests.real_time import run

DEFAULTS = EdgeSettings()
NEEDED = [
    VAD_MODEL,
    DEFAULTS.asr_model,
    DEFAULTS.llm_model,
    MANDARIN_MODEL,
    DEFAULTS.mandarin_voice,
    DEFAULTS.english_voice,
]


def deaf(_slot: str, _seconds: float) -> None:
    pass


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """Models that are taken for pulled; the store tells about any other what it tells of a disk without models."""
    names = set(NEEDED)

    def look(name: str, root: Path | None = None) -> dict[str, Path]:
        if name not in names:
            return locate(name, root)
        return {file.role: tmp_path / name / file.name for file in load_catalog().entry(name).files}

    monkeypatch.setattr("edge.engines.locate", look)
    return names


def refusal(settings: EdgeSettings) -> str:
    with structlog.testing.capture_logs() as logs, pytest.raises(CatalogError) as caught:
        run(load_engines(settings, deaf))
    assert not [entry for entry in logs if entry["event"] == "engines_scripted"], "nothing real is replaced in silence"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_scripted_engines_hear_think_and_speak_and_say_what_they_are() -> None:
    async def work() -> None:
        with structlog.testing.capture_logs() as logs:
            engines = await load_engines(EdgeSettings(engines="scripted"), deaf)
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [("engines_scripted", "warning")]
        voice = engines.detector.listen()
        assert await voice.detect(AudioFrame(pcm=tone(60, 16_000), start_ms=0)) == 1.0
        assert await voice.detect(AudioFrame(pcm=bytes(1920), start_ms=60)) == 0.0
        utterance = Utterance(turn_id="0123456789", device_id="d", pcm=tone(60, 16_000), start_ms=0, end_ms=60)
        heard = await engines.recognizer.transcribe(utterance)
        assert "01234567" in heard.text, "each turn hears its own words"
        prompt = Prompt(turn_id="abcdefghij", messages=(Message(role="user", text=heard.text),))
        async with aclosing(engines.completer.complete(prompt)) as deltas:
            answer = "".join([delta.text async for delta in deltas])
        assert "abcdefgh" in answer, "and gets its own answer"
        async with aclosing(engines.synthesizer.speak(answer, "zh")) as chunks:
            assert sum([len(chunk.pcm) async for chunk in chunks])
        await engines.close()

    virtual_time.run(work())


def test_an_empty_models_root_names_the_first_file_and_the_mend(tmp_path: Path) -> None:
    message = refusal(EdgeSettings(models_root=tmp_path))
    (file,) = load_catalog().entry(VAD_MODEL).files
    assert str(tmp_path / VAD_MODEL / file.name) in message
    assert f"xiaozhi-fleet models pull {VAD_MODEL} --root {tmp_path}" in message


@pytest.mark.parametrize("missing", NEEDED)
def test_any_missing_model_is_told_before_anything_is_loaded(missing: str, tmp_path: Path, pulled: set[str]) -> None:
    pulled.remove(missing)
    message = refusal(EdgeSettings(models_root=tmp_path))
    assert str(tmp_path / missing / load_catalog().entry(missing).files[0].name) in message
    assert f"xiaozhi-fleet models pull {missing}" in message


def test_a_cut_off_model_is_told_with_both_sizes(tmp_path: Path, pulled: set[str]) -> None:
    pulled.remove(DEFAULTS.llm_model)
    (file,) = load_catalog().entry(DEFAULTS.llm_model).files
    path = tmp_path / DEFAULTS.llm_model / file.name
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    message = refusal(EdgeSettings(models_root=tmp_path))
    assert f"{path} has 4 bytes, pinned are {file.size_bytes}" in message


@pytest.mark.parametrize(
    ("setting", "name", "told"),
    [
        ("llm_model", "no-such-model", "no-such-model"),
        ("mandarin_voice", VAD_MODEL, f"{VAD_MODEL} cannot be used here: it has no voice file, only model"),
        ("english_voice", VAD_MODEL, f"{VAD_MODEL} cannot be used here: it has no config file, only model"),
    ],
)
def test_a_name_that_is_no_such_model_is_refused(
    setting: str, name: str, told: str, tmp_path: Path, pulled: set[str]
) -> None:
    assert pulled
    assert told in refusal(EdgeSettings.model_validate({setting: name, "models_root": tmp_path}))


def test_a_damaged_file_is_refused_by_the_engine_that_reads_it(tmp_path: Path, pulled: set[str]) -> None:
    assert pulled
    (file,) = load_catalog().entry(VAD_MODEL).files
    path = tmp_path / VAD_MODEL / file.name
    path.parent.mkdir()
    path.write_bytes(b"not a model")
    with pytest.raises(VoiceError, match=file.name):
        run(load_engines(EdgeSettings(models_root=tmp_path), deaf))
