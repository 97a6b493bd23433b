from __future__ import annotations

import re

import pytest

from models import errors
from models.errors import CompletionError, OverloadedError, VoiceError, error_from_code


def tree(base: type[VoiceError]) -> list[type[VoiceError]]:
    return [base, *(leaf for child in base.__subclasses__() for leaf in tree(child))]


OURS = [error for error in tree(VoiceError) if error.__module__ == errors.__name__]


def drawn() -> dict[str, tuple[str, str]]:
    """Return class name -> (code, parent's name) as the module's docstring draws them."""
    found: dict[str, tuple[str, str]] = {}
    parents = {0: "VoiceError"}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ((?:[│ ] )*[├└] )(\w+) +([\w-]+)$", line):
            depth = len(match[1]) // 2
            parents[depth] = match[2]
            found[match[2]] = (match[3], parents[depth - 1])
    return found


def test_the_drawn_tree_is_the_real_one():
    real = {error.__name__: (error.code, error.__mro__[1].__name__) for error in OURS if error is not VoiceError}
    assert drawn() == real


def test_codes_are_unique():
    codes = [error.code for error in OURS]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", OURS)
def test_every_error_has_its_own_kebab_case_code_and_a_docstring(error: type[VoiceError]):
    assert "code" in vars(error)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
    assert isinstance(error.retryable, bool)
    assert error.__doc__
    assert error.__name__.endswith("Error")


@pytest.mark.parametrize("error", OURS)
def test_an_error_survives_its_code(error: type[VoiceError]):
    again = error_from_code(error.code, "said")
    assert type(again) is error
    assert str(again) == "said"


def test_an_unknown_code_becomes_a_completion_error():
    assert type(error_from_code("from-the-future", "said")) is CompletionError


@pytest.mark.parametrize(
    ("code", "retryable"),
    [("llm-overloaded", True), ("llm-deadline", False), ("cloud-unreachable", True), ("asr-failed", False)],
)
def test_retryable_says_whether_to_try_elsewhere(code: str, retryable: bool):
    assert error_from_code(code, "").retryable is retryable


def test_refusals_are_completion_errors():
    assert issubclass(OverloadedError, CompletionError)
