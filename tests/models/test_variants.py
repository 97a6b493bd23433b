from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import CatalogError
from models.variants import MADE, made_path, quickest_path, variant_path


def test_the_pulled_file_is_its_own_variant(tmp_path: Path):
    assert variant_path(tmp_path / "m.onnx", "fp32") == tmp_path / "m.onnx"


@pytest.mark.parametrize("variant", MADE)
def test_a_made_variant_lies_beside_its_source(tmp_path: Path, variant):
    made = tmp_path / f"m.v2.{variant}.onnx"
    assert made_path(tmp_path / "m.v2.onnx", variant) == made
    made.touch()
    assert variant_path(tmp_path / "m.v2.onnx", variant) == made


def test_a_missing_variant_names_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(
        CatalogError, match=r"m\.int8\.onnx is missing; .*: xiaozhi-fleet models quantize silero-vad --to int8$"
    ):
        variant_path(tmp_path / "silero-vad" / "m.onnx", "int8")


def test_the_quickest_of_equals_is_the_batched_one_once_it_is_made(tmp_path: Path):
    pulled, made = tmp_path / "m.onnx", tmp_path / "m.batched.onnx"
    assert quickest_path(pulled) == pulled
    made.touch()
    assert quickest_path(pulled) == made
