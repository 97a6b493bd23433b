from __future__ import annotations

import pytest

from coordinator.routing.rules import Rule, rule
from coordinator.routing.wording import plain
from coordinator.turns import Tier
from models.prompts import Image, Message, Prompt

PICTURE = Image(media_type="image/png", data=b"x")


def ruled(text: str, *, images: tuple[Image, ...] = (), is_private: bool = False) -> Rule | None:
    prompt = Prompt(turn_id="t", messages=(Message(role="user", text=text),), images=images, is_private=is_private)
    return rule(prompt, plain(text))


@pytest.mark.parametrize("text", ["这是什么", "认真想想这张图", "打开灯"])
def test_a_private_device_stays_on_the_edge_whatever_it_asks(text: str) -> None:
    assert ruled(text, images=(PICTURE,), is_private=True) == Rule(Tier.EDGE, "private")


@pytest.mark.parametrize("text", ["这是什么", "打开灯", "现在几点"])
def test_a_picture_goes_to_a_model_that_sees(text: str) -> None:
    assert ruled(text, images=(PICTURE,)) == Rule(Tier.CLOUD, "picture", needs_vision=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("帮我把灯打开好吗", Rule(Tier.EDGE, "device-command")),
        ("好好想想，把灯打开", Rule(Tier.EDGE, "device-command")),
        ("今天天气怎么样", Rule(Tier.EDGE, "real-time")),
        ("仔细想想，今天天气怎么样", Rule(Tier.EDGE, "real-time")),
        ("好好想想这道题怎么做", Rule(Tier.CLOUD, "asked-to-think")),
        ("Think hard: why is the sky blue?", Rule(Tier.CLOUD, "asked-to-think")),
        ("他说“好好想想”是什么意思", None),
        ("为什么天气会变冷", None),
        ("讲一个关于开灯的故事", None),
        ("法国的首都是哪里", None),
        ("Which? A. turn on the light B. what time is it", None),
        ("", None),
    ],
)
def test_the_first_rule_that_holds_decides(text: str, expected: Rule | None) -> None:
    assert ruled(text) == expected
