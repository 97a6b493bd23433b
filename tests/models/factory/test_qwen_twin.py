from __future__ import annotations

from math import prod

import pytest

from models.errors import CatalogError
from models.factory.qwen_twin import FULL, SOURCE_MODEL, TwinSize, build, tensor_kinds
from models.llama_engine import LlamaEngine
from models.llama_jobs import Feed, Outcome
from models.store import locate

gguf = pytest.importorskip("gguf")

TINY = TwinSize(layers=8, hidden=256, heads=4, feed_forward=288, context=512)


def test_full_size_has_the_weights_of_the_real_model():
    kinds = tensor_kinds(FULL)
    assert sum(prod(shape) for shape, _ in kinds.values()) == 1_836_828_672


def test_types_are_those_of_q4_k_m_with_its_way_out_for_rows_of_5504():
    kinds = tensor_kinds(FULL)
    assert kinds["token_embd.weight"][1] == "Q4_K"
    assert kinds["output.weight"][1] == "Q6_K"
    finer = [layer for layer in range(24) if kinds[f"blk.{layer}.attn_v.weight"][1] == "Q6_K"]
    assert finer == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    for layer in range(24):
        assert kinds[f"blk.{layer}.ffn_down.weight"][1] == ("Q8_0" if layer in finer else "Q5_0")


def test_missing_source_is_named(tmp_path):
    with pytest.raises(CatalogError, match="nothing"):
        build(tmp_path / "twin.gguf", tmp_path / "nothing.gguf")


def test_source_without_qwens_vocabulary_is_refused(tmp_path):
    source = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CatalogError, match="vocabulary of 151936"):
        build(tmp_path / "twin.gguf", source, size=TINY)
    assert not (tmp_path / "twin.gguf").exists()


@pytest.mark.engine
def test_tiny_twin_loads_and_writes(tmp_path):
    path, seen = tmp_path / "twin.gguf", []
    build(path, locate(SOURCE_MODEL)["model"], size=TINY, progress=lambda *done: seen.append(done))
    assert seen[-1][0] == seen[-1][1]
    engine = LlamaEngine(path, threads=1, context_tokens=256, cells=256, sequences=2, batch_tokens=64, logprobs=True)
    tokens = engine.tokenize("你好，今天天气怎么样？")
    assert engine.decode([Feed(0, 0, tokens, wants_token=True)]) is Outcome.DONE
    token, logprob = engine.sample(0, engine.sampler(1))
    assert token is None or -20.0 < logprob <= 0.0
