from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sensevoice_text import BLANK, Vocabulary, Written, clean, language_number, like_length, write

PIECES = ["<unk>", "<s>", "</s>", "你", "好", "▁hello", "▁world", "。", "25", "℃"]
TAGS = ["<|zh|>", "<|en|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>", "<|nospeech|>", "<|klingon|>"]


class List:
    """A vocabulary that is a list."""

    pieces = PIECES + TAGS

    def get_piece_size(self) -> int:
        return len(self.pieces)

    def id_to_piece(self, token: int) -> str:
        return self.pieces[token]

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.pieces[token] for token in tokens).replace("▁", " ").strip()


def written(*words: str, certainty: float = 0.5) -> Written:
    tokens = tuple(List.pieces.index(word) for word in words)
    return Written(tokens, (certainty,) * len(tokens))


@pytest.mark.parametrize(
    ("words", "text", "language"),
    [
        (("<|zh|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>", "你", "好", "。"), "你好。", "zh"),
        (("<|en|>", "▁hello", "▁world"), "hello world", "en"),
        (("<|zh|>", "25", "℃"), "25℃", "zh"),
        (("▁hello", "<|zh|>", "你"), "hello你", "zh"),
        (("<|klingon|>", "你"), "你", ""),
        (("<|nospeech|>", "<|NEUTRAL|>", "你"), "", ""),
        (("<|zh|>", "。"), "", ""),
        (("<|zh|>",), "", ""),
        ((), "", ""),
    ],
)
def test_tags_name_the_language_and_never_reach_the_text(words: tuple[str, ...], text: str, language: str):
    said = Vocabulary(List()).read(written(*words))
    assert (said.text, said.language) == (text, language)


def test_confidence_is_the_mean_of_what_was_written_without_its_tags():
    both = Written((List.pieces.index("<|zh|>"), 3, 4), (0.1, 0.4, 0.8))
    assert Vocabulary(List()).read(both).confidence == pytest.approx(0.6)
    assert Vocabulary(List()).read(written("<|zh|>")).confidence == 1.0


def test_a_token_the_vocabulary_lacks_is_passed_over():
    assert Vocabulary(List()).read(Written((3, 999), (1.0, 0.0))).text == "你"


def logits(*frames: tuple[int, float]) -> np.ndarray:
    """Return logits of five tokens; each frame chooses a token with a probability."""
    rows = np.zeros((len(frames), 5))
    for row, (token, chance) in zip(rows, frames, strict=True):
        row[:] = np.log((1 - chance) / 4)
        row[token] = np.log(chance)
    return rows.astype(np.float32)


@pytest.mark.parametrize(
    ("frames", "tokens", "certainty"),
    [
        ((), (), ()),
        (((BLANK, 0.9),), (), ()),
        (((3, 0.5), (3, 0.75), (BLANK, 0.9), (3, 0.6)), (3, 3), (0.75, 0.6)),
        (((3, 0.5), (4, 0.75), (4, 0.5), (3, 0.9)), (3, 4, 3), (0.5, 0.75, 0.9)),
    ],
)
def test_repeats_are_one_token_and_blanks_part_them(frames, tokens, certainty):
    heard = write(logits(*frames))
    assert heard.tokens == tokens
    assert heard.certainty == pytest.approx(certainty)


@given(st.lists(st.integers(0, 4), max_size=30))
def test_reading_is_funasrs(best: list[int]):
    frames = np.array(best, int)
    kept = frames[np.concatenate(([True], np.diff(frames) != 0))] if best else frames
    assert write(logits(*((token, 0.9) for token in best))).tokens == tuple(kept[kept != BLANK].tolist())


def test_certainty_of_huge_logits_is_a_probability():
    heard = write(np.array([[-1e4, 1e4, 1e4]], np.float32))
    assert heard.certainty == (0.5,)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (" 打开 \n灯 ", "打开 灯"),
        ("<|zh|><|HAPPY|>好", "好"),
        ("😊好👏🎼", "好"),
        ("25℃ 5°", "25℃ 5°"),
        ("a\x00b\ufffe", "ab"),
        ("。", ""),
        (" . ! ", ""),
        ("\r{", ""),
        ("", ""),
    ],
)
def test_texts_are_cleaned(raw: str, text: str):
    assert clean(raw) == text


@given(st.text())
def test_clean_texts_stay_as_they_are(raw: str):
    assert clean(clean(raw)) == clean(raw)


@pytest.mark.parametrize(
    ("language", "number"), [("zh", 3), ("en", 4), ("yue", 7), ("ja", 11), ("ko", 12), ("fr", 0), ("", 0)]
)
def test_languages_have_funasrs_numbers(language: str, number: int):
    assert language_number(language) == number


@pytest.mark.parametrize(
    ("taken", "length", "fits"),
    [
        ((), 5, True),
        ((10,), 10, True),
        ((10,), 5, True),
        ((10,), 4, False),
        ((4,), 10, False),
        ((10, 10), 3, True),
        ((0,), 0, True),
    ],
)
def test_a_batch_takes_what_is_about_as_long(taken: tuple[int, ...], length: int, fits: bool):
    assert like_length(taken, length, 0.26) is fits
