"""What people say before anything else: answered and spoken at the start, so that the first device hears it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.errors import ConfigError

FIRST_WORDS: Mapping[str, Sequence[str]] = {
    "zh": ("你好小智", "小智你好", "早上好", "下午好", "晚上好", "谢谢啦", "再见啦"),
    "en": ("hello Xiaozhi", "good morning", "good evening", "good night", "thanks a lot", "goodbye"),
}
"""Greetings and thanks by language. Refusals are shown, not spoken: firmware plays a sound of its own with them."""
MAX_QUESTIONS = 1000
_LANGUAGES = ("zh", "en")


def read_questions(path: Path, language: str) -> list[tuple[str, str]]:
    """Return the questions of a file with their languages: one a line, ``en: ...`` or ``zh: ...`` where it is not ``language``.

    Raises ConfigError naming file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8") from error
    questions: list[tuple[str, str]] = []
    for line in (line.strip() for line in lines):
        if line and not line.startswith("#"):
            begin, colon, rest = line.partition(":")
            named = bool(colon) and begin in _LANGUAGES
            questions.append((begin, rest.strip()) if named else (language, line))
    if len(questions) > MAX_QUESTIONS:
        raise ConfigError(f"{path}: {len(questions)} questions; at most {MAX_QUESTIONS} are prepared at the start")
    return questions
