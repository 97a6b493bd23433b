from __future__ import annotations

import threading

import pytest

from models.errors import CatalogError, ConfigError
from models.llama_engine import LlamaEngine
from models.llama_jobs import Feed, Outcome
from models.store import locate

MODEL = "qwen2.5-coder-0.5b-instruct-q4_k_m"


def _engine(path, **options):
    sizes = {"threads": 1, "context_tokens": 512, "cells": 512, "sequences": 4, "batch_tokens": 512}
    return LlamaEngine(path, **{**sizes, **options})


@pytest.fixture(scope="module")
def qwen():
    return _engine(locate(MODEL)["model"], logprobs=True)


@pytest.fixture
def engine(qwen):
    yield qwen
    qwen.resume()
    for sequence in range(4):
        qwen.forget(sequence, 0)


def test_missing_model_is_named(tmp_path):
    with pytest.raises(CatalogError, match=r"nothing\.gguf: no such model file"):
        _engine(tmp_path / "nothing.gguf")


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"GGUF\x03\x00\x00\x00" + bytes(64)])
def test_damaged_model_is_named_and_nothing_is_printed(tmp_path, capfd, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"broken\.gguf: not a readable GGUF"):
        _engine(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.engine
def test_more_context_than_it_was_trained_for_is_refused():
    with pytest.raises(ConfigError, match="trained for"):
        _engine(locate(MODEL)["model"], context_tokens=1_000_000)


@pytest.mark.engine
def test_markup_in_text_stays_text_and_pieces_join_to_it(engine):
    text = "<|im_end|> 你好 🐼"
    tokens = engine.tokenize(text)
    assert engine.mark("<|im_end|>") not in tokens
    assert b"".join(map(engine.piece, tokens)).decode() == text


@pytest.mark.engine
def test_unknown_mark_is_refused(engine):
    with pytest.raises(CatalogError, match="no token <no such>"):
        engine.mark("<no such>")


@pytest.mark.engine
def test_two_sequences_in_one_step_do_not_see_each_other(engine):
    begin = engine.tokenize("one two three four five six seven eight nine ten one two three four five six seven")
    other = engine.tokenize("a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k")
    feeds = [Feed(0, 0, begin, wants_token=True), Feed(2, 0, other, wants_token=True)]
    assert engine.decode(feeds) is Outcome.DONE
    texts = [engine.piece(engine.sample(index, engine.sampler(1))[0]).decode().strip() for index in range(2)]
    assert texts == ["eight", "l"]


@pytest.mark.engine
def test_shared_beginning_goes_on_as_if_it_had_been_read(engine):
    tokens = engine.tokenize("one two three four five six seven eight nine ten one two three four five six seven")
    assert engine.decode([Feed(0, 0, tokens, wants_token=True)]) is Outcome.DONE
    engine.share(0, 3, 8)
    assert engine.forget(0, 0)
    assert engine.decode([Feed(3, 8, tokens[8:], wants_token=True)]) is Outcome.DONE
    token, logprob = engine.sample(0, engine.sampler(1))
    assert engine.piece(token) == b" eight"
    assert -1.0 < logprob <= 0.0


@pytest.mark.engine
def test_full_memory_changes_nothing_and_a_gap_is_an_error(engine):
    tokens = engine.tokenize("word " * 400)[:300]
    assert engine.decode([Feed(0, 0, tokens, wants_token=False)]) is Outcome.DONE
    assert engine.decode([Feed(1, 0, tokens, wants_token=False)]) is Outcome.FULL
    assert engine.decode([Feed(0, 305, tokens[:1], wants_token=False)]) is Outcome.BROKEN
    assert engine.decode([Feed(0, 300, tokens[:1], wants_token=True)]) is Outcome.DONE


@pytest.mark.engine
def test_stopping_ends_a_step_in_its_midst(engine):
    tokens = engine.tokenize("word " * 500)[:400]
    timer = threading.Timer(0.05, engine.stop)
    timer.start()
    assert engine.decode([Feed(0, 0, tokens, wants_token=True)]) is Outcome.STOPPED
    timer.join()
    engine.forget(0, 0)
    assert engine.decode([Feed(0, 0, tokens[:8], wants_token=True)]) is Outcome.STOPPED
    engine.resume()
    engine.forget(0, 0)
    assert engine.decode([Feed(0, 0, tokens[:8], wants_token=True)]) is Outcome.DONE
