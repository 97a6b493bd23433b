from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from manifests import vllm_convert
from manifests.vllm_convert import full_weights, main


def test_a_configuration_loses_its_quantization_and_keeps_the_rest() -> None:
    found = {"hidden_size": 896, "architectures": None, "quantization_config": {"bits": 4}, "torch_dtype": "float32"}
    assert full_weights(found, "Qwen2ForCausalLM") == {
        "hidden_size": 896,
        "architectures": ["Qwen2ForCausalLM"],
        "dtype": "bfloat16",
    }
    assert json.dumps(full_weights(found, "x"))
    assert found["architectures"] is None


@pytest.mark.parametrize("arguments", [[], ["one"], ["a", "b", "c"]])
def test_a_wrong_number_of_arguments_is_told_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 64
    assert "FILE.gguf DIRECTORY" in capsys.readouterr().err


def test_a_missing_file_is_one_line_and_needs_no_library(tmp_path: Path) -> None:
    command = [sys.executable, "-I", vllm_convert.__file__, str(tmp_path / "m.gguf"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path / 'm.gguf'} must be a file and {tmp_path} a directory\n"
