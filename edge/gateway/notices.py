"""What a person reads on the screen when a device cannot be served: words for codes, in Chinese and English."""

from __future__ import annotations

from typing import NamedTuple


class Notice(NamedTuple):
    """The three parts of an ``alert``."""

    status: str
    """At the top of the screen; the shortest has room for about 20 characters."""
    message: str
    emotion: str


_BUSY = (
    ("繁忙", "现在用的人太多了，请稍后再试。"),
    ("Busy", "Too many people are talking right now. Please try again later."),
)
_UPDATING = (
    ("维护中", "服务器正在维护，请一分钟后再试。"),
    ("Updating", "The server is being updated. Please try again in a minute."),
)
_AWAY = (
    ("连接中断", "语音服务暂时中断，请稍后再试。"),
    ("Interrupted", "The voice service is interrupted. Please try again shortly."),
)
_FAILED = ("出错了", "刚才出了点问题，请再说一遍。"), ("Error", "Something went wrong. Please say that again.")
_WORDS = {
    "full": _BUSY,
    "busy": _BUSY,
    "llm-overloaded": _BUSY,
    "draining": _UPDATING,
    "shutting-down": _UPDATING,
    "brain-away": _AWAY,
    "cloud-unreachable": _AWAY,
}
"""By the code of an error or of a refusal at the door; any other code means that something broke."""


def notice(code: str, language: str = "") -> Notice:
    """Return what to show for ``code`` in ``language``, a BCP-47 tag: Chinese for "zh" and for "", English for all others."""
    chinese, english = _WORDS.get(code, _FAILED)
    is_chinese = language.lower().replace("_", "-").partition("-")[0] in {"", "zh"}
    return Notice(*(chinese if is_chinese else english), "sad")
