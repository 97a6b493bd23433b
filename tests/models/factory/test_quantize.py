from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.errors import CatalogError, ConfigError
from models.factory import quantize
from models.factory.quantize import make
from models.onnx import open_session
from models.store import locate
from models.variants import MADE, variant_path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "silero-vad"
    place.mkdir()
    return Path(shutil.copy(locate("silero-vad")["model"], place / "vad.onnx"))


@pytest.mark.engine
@pytest.mark.parametrize("variant", MADE)
def test_a_variant_is_made_whole_and_smaller_beside_its_source(source: Path, variant):
    said: list[str] = []
    (source.parent / f"vad.{variant}.onnx").write_bytes(b"an older one")
    made = make("silero-vad", source, variant, say=said.append)
    assert Path(made.path) == variant_path(source, variant)
    assert made.size_bytes == Path(made.path).stat().st_size < made.source_bytes
    assert {path.name for path in source.parent.iterdir()} == {"vad.onnx", f"vad.{variant}.onnx"}
    assert len(said) == 3
    open_session(Path(made.path))


@pytest.mark.parametrize(
    ("name", "variant", "said"),
    [
        ("whisper-base", "int8", "variants can be made of silero-vad only"),
        ("silero-vad", "fp32", "no variant 'fp32' can be made; there are batched, int8, fp16"),
        ("silero-vad", "int4", "no variant 'int4'"),
    ],
)
def test_what_cannot_be_made_is_named(tmp_path: Path, name, variant, said):
    with pytest.raises(CatalogError, match=said):
        make(name, tmp_path / "vad.onnx", variant)


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(quantize, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"onnx is missing; install xiaozhi-fleet\[build\]"):
        make("silero-vad", tmp_path / "vad.onnx", "int8")


@pytest.mark.parametrize("content", [None, b"\xff not a model"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content):
    pytest.importorskip("onnx")
    path = tmp_path / "vad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatalogError, match="not a readable ONNX model"):
        make("silero-vad", path, "int8")


def test_a_model_with_other_layers_is_refused(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    path = tmp_path / "vad.onnx"
    onnx.save(onnx.helper.make_model(graph), str(path))
    with pytest.raises(CatalogError, match="not the Silero VAD"):
        make("silero-vad", path, "int8")


@pytest.mark.engine
def test_a_disk_that_refuses_leaves_nothing_behind(source: Path):
    (source.parent / "vad.int8.onnx").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        make("silero-vad", source, "int8")
    assert not list(source.parent.glob("*.part"))
