"""Requests with chatter around them, for training: what is said beside a question must not decide where it goes; pure."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from coordinator.routing.outcomes import Outcome

BEFORE = (
    *(
        "我家孩子问的",
        "刚吃饱",
        "今天有点累",
        "我在开车",
        "我老婆想知道",
        "正好想到",
        "有人考我",
        "电视里说的",
        "刚跑完步",
        "我不太确定",
    ),
    *(
        "我有点困了",
        "下午没事做",
        "闲聊一下",
        "我同事说",
        "帮忙看看",
        "别笑我",
        "我记性不好",
        "我奶奶问",
        "随口一问",
        "周末了",
    ),
    *("晚上好", "我刚起来", "快迟到了", "作业里有一道", "昨天听人说起", "我一直想问", "路上看到的", "我弟弟非要问"),
)
AFTER = (
    *(
        "我忘了",
        "快点",
        "想知道",
        "我等你",
        "孩子在等",
        "说短一点",
        "随便聊聊",
        "反正没事",
        "我在听",
        "别卡住",
        "我真不会",
    ),
    *("别急", "刚学的", "我不信", "我记不住了", "大家都在问", "昨天就想问了", "说错了也没关系"),
)
"""Chatter of our own; the benchmark's is other chatter."""
_JOINS = "，。！"


def padded(outcomes: Iterable[Outcome], copies: int, seed: int) -> list[Outcome]:
    """Return so many copies of each Chinese outcome, in its group, with chatter before it, after it, or both."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    return [
        msgspec.structs.replace(
            outcome, id=f"{outcome.id}+{copy}", group=outcome.group or outcome.id, text=_around(outcome.text, dice)
        )
        for copy in range(copies)
        for outcome in outcomes
    ]


def _around(text: str, dice: random.Random) -> str:
    where = dice.random()
    before = dice.choice(BEFORE) + dice.choice(_JOINS) if where < 0.6 else ""  # noqa: PLR2004 - a part of ten has both
    after = dice.choice(_JOINS) + dice.choice(AFTER) if where > 0.5 else ""  # noqa: PLR2004
    return f"{before}{text.rstrip('。？?！!.') if after else text}{after}"
