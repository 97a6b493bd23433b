"""The rules of the house that neither ruff nor mypy can see."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("models", "coordinator", "edge", "cloud", "manifests", "benchmarks")
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
HEAVY = {
    "av": {"models/factory/agreement.py"},
    "ctranslate2": {"models/whisper.py"},
    "faster_whisper": {"models/whisper.py"},
    "kubernetes": {"coordinator/cluster/api.py"},
    "kubernetes_validate": {"manifests/check.py"},
    "gguf": {"models/factory/qwen_twin.py"},
    "llama_cpp": {"models/llama_engine.py"},
    "matplotlib": {"benchmarks/plot.py"},
    "minio": {"coordinator/cache/object_store.py"},
    "misaki": {"models/kokoro.py"},
    "moka_py": {"coordinator/cache/memory.py"},
    "nats": {"coordinator/nats_bus.py"},
    "kaldi_native_fbank": {"models/fbank.py"},
    "onnx": {
        "models/factory/quantize.py",
        "models/factory/sensevoice_twin.py",
        "models/factory/signed_weights.py",
        "models/factory/silero_graph.py",
    },
    "onnxruntime": {"models/onnx.py", "models/factory/quantize.py", "models/factory/sensevoice_twin.py"},
    "sentencepiece": {"models/sensevoice.py", "models/factory/sensevoice_twin.py"},
    "opencc": {"models/whisper.py"},
    "opuslib_next": {"edge/brain/opus.py"},
    "piper": {"models/piper.py"},
    "redis": {"coordinator/cache/redis_tier.py"},
    "safetensors": {"manifests/vllm_convert.py"},
    "scipy": {"coordinator/routing/train.py"},
    "sklearn": {"coordinator/routing/train.py"},
    "torch": {"manifests/vllm_convert.py"},
    "transformers": {"manifests/vllm_convert.py"},
    "websockets": {"edge/gateway/server.py", "edge/simulator/client.py"},
    "xllamacpp": {"manifests/llama_server.py", "benchmarks/engine_llm_worker.py"},
}
"""Third-party weights and the only modules that may import them."""

LIGHT = (
    "edge.brain.pipeline",
    "coordinator.routing.policy",
    "coordinator.routing.rules",
    "models",
    "coordinator.hierarchy",
    "edge.gateway.session",
)
MAX_FUNCTION_LINES = 50
MAX_FILE_LINES = 400


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_are_imported_in_one_module_each(path: Path) -> None:
    wrong = {lib for lib in imports(ast.parse(path.read_text())) & HEAVY.keys() if name_of(path) not in HEAVY[lib]}
    assert not wrong, f"{name_of(path)} imports {wrong}; only {[HEAVY[lib] for lib in wrong]} may"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_FILE_LINES
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_its_test(path: Path) -> None:
    if path.name in {"__init__.py", "__main__.py"}:
        return
    relative = path.relative_to(ROOT)
    assert (ROOT / "tests" / relative.parent / f"test_{relative.name}").exists()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_package_has_a_docstring_map(path: Path) -> None:
    if path.name == "__init__.py":
        assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("module", LIGHT)
def test_deciding_code_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {set(HEAVY)!r}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not loaded


def test_exceptions_are_caught_whole_only_where_stages_end() -> None:
    allowed = {"edge/brain/stage.py", "edge/brain/flow.py", "coordinator/cache/flight.py"}
    broad = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    }
    assert broad <= allowed


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "common", "manager", "handler", "base", "misc"}
    assert not [name_of(path) for path in MODULES if path.stem in empty]


def test_top_level_holds_the_seven_directories_only() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {line.split("/")[0] for line in tracked if "/" in line}
    assert folders <= {*FLOORS, "tests", ".ci"}
