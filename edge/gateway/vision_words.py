"""What is said about pictures: to the model that looks at them, and to people when nobody does; in Chinese and English; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

SYSTEM_PROMPTS: Mapping[str, str] = {
    "zh": "你是小智，一个友好的语音助手。根据照片用口语简短回答问题，最多两句话，不要使用列表、符号或表情。看不清楚就直说。",
    "en": (
        "You are Xiaozhi, a friendly voice assistant. Answer the question about the photo briefly in spoken language, in at most two "
        "sentences, without lists, symbols or emoji. Say so when something cannot be seen clearly."
    ),
}
_WORDS: Mapping[str, tuple[str, str]] = {
    "private": (
        "这台设备开启了隐私模式，照片不会离开本地，所以现在看不了。",
        "This device is private, so its photos do not leave and cannot be looked at.",
    ),
    "too-large": ("照片太大了，请换小一点的再试。", "The photo is too large. Please try a smaller one."),
    "busy": (
        "现在看照片的人太多了，请稍后再试。",
        "Too many photos are being looked at right now. Please try again later.",
    ),
    "llm-overloaded": (
        "现在看照片的人太多了，请稍后再试。",
        "Too many photos are being looked at right now. Please try again later.",
    ),
    "llm-deadline": (
        "看照片花的时间太长了，请再拍一次。",
        "Looking at the photo took too long. Please take another one.",
    ),
}
_AWAY = "现在看不了照片，请稍后再试。", "Photos cannot be looked at right now. Please try again later."
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]")


def language_of(question: str, default: str) -> str:
    """Return "zh" or "en" by how the question is written, ``default`` when it shows neither."""
    if _CHINESE.search(question):
        return "zh"
    return "en" if _LATIN.search(question) or default == "en" else "zh"


def told(code: str, language: str) -> str:
    """Return what a person hears when a picture is not answered for the reason ``code``."""
    chinese, english = _WORDS.get(code, _AWAY)
    return english if language == "en" else chinese
