"""What may be remembered, and under which key; pure.

A remembered answer is given to everybody, so a question is memorable only if its answer depends on nothing but its words: not on
time, place, person, device state or what was said before. The rule errs towards forgetting.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable

from coordinator.cache.kinds import Kind
from models.prompts import Prompt

MAX_QUESTION_CHARS = 200
"""Longer questions are told in one's own words and hardly repeat. A guess."""
MIN_QUESTION_CHARS = 3
"""Shorter ones ("嗯", "ok") mean nothing without what was said before. A guess."""

_DEPENDS = re.compile(
    "现在|目前|今天|今晚|今年|明天|明年|后天|昨天|昨晚|前天|刚才|刚刚|最近|最新|几点|几号|星期|周[一二三四五六日末]|日期|时间|时候|天气|气温|下雨|新闻"
    "|股价|股票|汇率|价格|比分|这里|这儿|那里|附近|本地|哪里|在哪|当地|我|咱|你叫|你是|你的|你能|你会|它|他|她|这个|那个|这些|那些|上面|前面|继续|再说|再来|再讲|换一个|还有"
    "|音量|亮度|打开|关闭|关掉|播放|暂停|停止|声音|灯|电量|电池|闹钟|提醒|定时|拍照|随机|笑话|故事"
    r"|\b(?:now|today|tonight|tomorrow|yesterday|currently|current|latest|recent|recently|date|time|when|weather|temperature|news|price|score"
    r"|here|there|near|nearby|local|where|i|i'm|i've|me|my|mine|we|our|us|you|your|it|its|he|him|his|she|her|they|them|their|this|that|these|those"
    r"|again|another|continue|more|previous|volume|brightness|turn|switch|play|pause|stop|lights?|battery|alarm|remind|reminder|timer|photo"
    r"|random|joke|story)\b",
    re.IGNORECASE,
)
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[.,:](?=\d)")
_PUNCTUATION = re.compile(r"[\s。，！？、；：“”‘’\"'…,.!?;:()（）《》【】\[\]~～]+")

_BESIDE_CHINESE = re.compile(r"(?<=[\u3400-\u9fff]) | (?=[\u3400-\u9fff])")


def normalise(text: str) -> str:
    """Return ``text`` without case, width, spacing and sentence marks; numbers, signs and every word stay as they are."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = _BETWEEN_DIGITS.sub(lambda mark: {".": "\ue000", ",": "\ue001", ":": "\ue002"}[mark.group()], folded)
    return _BESIDE_CHINESE.sub("", _PUNCTUATION.sub(" ", kept)).strip()


def is_memorable(prompt: Prompt) -> bool:
    """Return whether the answer to the prompt's question may be given to somebody else later."""
    if prompt.is_private or prompt.images or _has_past(prompt):
        return False
    question = unicodedata.normalize("NFKC", prompt.question)
    return MIN_QUESTION_CHARS <= len(question.strip()) <= MAX_QUESTION_CHARS and _DEPENDS.search(question) is None


def _has_past(prompt: Prompt) -> bool:
    """Return whether anything was said before: a question may lean on it ("and Shanghai?"), and an answer tell it to strangers."""
    return sum(message.role == "user" for message in prompt.messages) > 1 or any(
        message.role == "assistant" for message in prompt.messages[:-1]
    )


def answer_key(prompt: Prompt, version: str, whose: str = "", form_of: Callable[[str], str] = normalise) -> str | None:
    """Return the key of the prompt's answer, None when it must not be remembered.

    ``version`` names the models in force, so that an upgrade starts with an empty memory; ``whose`` the group or device it is for, "" for
    everybody; ``form_of`` what questions with the same answer share. The system message is part of the key: another persona gives other
    answers.
    """
    if not is_memorable(prompt):
        return None
    persona = "\0".join(message.text for message in prompt.messages if message.role == "system")
    return key_of(
        Kind.ANSWER, version, whose, prompt.language, persona, form_of(prompt.question) or normalise(prompt.question)
    )


def key_of(kind: Kind, *parts: str) -> str:
    """Return the key of a value of this kind that is the same for whatever has the same parts: ``<kind>:<64 hex digits>``."""
    digest = hashlib.sha256(b"".join(b"%d:%s" % (len(part := text.encode()), part) for text in parts))
    return f"{kind}:{digest.hexdigest()}"
