"""What somebody says over an answer: that they listen, that it should stop, or words of their own."""

from __future__ import annotations

from typing import Literal

import msgspec

from models.engines import Recognizer
from models.speech import Transcript, Utterance

Said = Literal["nothing", "backchannel", "stop", "words"]

BACKCHANNELS = frozenset(
    (
        "嗯", "嗯嗯", "嗯哼", "恩", "恩恩", "哦", "哦哦", "噢", "喔", "啊", "呃", "额", "诶", "欸", "唉", "哎", "呵呵", "哈哈", "哈哈哈",
        "好", "好好", "好好好", "好的", "好的好的", "好吧", "好啊", "好呀", "好嘞", "对", "对对", "对对对", "对啊", "对的", "对呀",
        "是", "是的", "是啊", "是吗", "是吧", "行", "行吧", "可以", "没错", "明白", "明白了", "知道了", "懂了", "这样啊", "原来如此", "真的吗",
        "嗯好", "嗯好的", "嗯对", "嗯是的", "哦好", "哦好的", "哦这样", "哦这样啊", "哦是吗",
        "uhhuh", "uhuh", "mmhm", "mhm", "mmhmm", "mm", "mmm", "hm", "hmm", "uh", "um", "ah", "oh", "aha", "huh", "wow", "haha",
        "yeah", "yea", "yep", "yes", "yup", "ok", "okay", "okok", "right", "sure", "alright", "allright", "isee", "gotit",
        "good", "great", "nice", "cool", "ohok", "ohokay", "ohisee", "yeahyeah", "okyeah", "yesyes",
    )
)  # fmt: skip
"""What listeners say without wanting the floor, bare: lower case, letters only. 恩 and 额 are how recognisers write 嗯 and 呃."""

STOPS = frozenset(
    (
        "停", "停下", "停下来", "停一下", "停停", "停停停", "停止", "暂停", "别说", "别说了", "别讲了", "不要说了", "不用说了", "不说了", "别念了",
        "够了", "闭嘴", "安静", "等一下", "等下", "等等", "等会", "等会儿", "等一等", "先等一下", "打住", "好了别说了", "好了好了", "行了", "行了行了",
        "stop", "stopit", "stopstop", "stoptalking", "pause", "wait", "waitwait", "waitaminute", "waitasecond", "holdon", "hold",
        "quiet", "bequiet", "shutup", "enough", "thatsenough", "nevermind", "okstop", "okaystop", "pleasestop", "cancel",
    )
)  # fmt: skip
"""What means stop and nothing else, bare."""


def bare(text: str) -> str:
    """Return the letters and digits of ``text``, whatever case and punctuation it came with."""
    return "".join(character for character in text.casefold() if character.isalnum())


def said(text: str) -> Said:
    """Return what ``text`` was said for; one syllable repeated is what the syllable is (嗯嗯嗯, 停停停停)."""
    letters = bare(text)
    if not letters:
        return "nothing"
    forms = {letters, letters[0]} if len(set(letters)) == 1 else {letters}
    if forms & STOPS:
        return "stop"
    return "backchannel" if forms & BACKCHANNELS else "words"


class UnlessStop:
    """A Recognizer that hears nothing in a word that has stopped an answer already: there is nothing to say to it."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the transcript, without text when it only says stop; raise RecognitionError."""
        transcript = await self._recognizer.transcribe(utterance)
        return msgspec.structs.replace(transcript, text="") if said(transcript.text) == "stop" else transcript
