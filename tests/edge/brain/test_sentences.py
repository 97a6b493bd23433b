from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.brain.sentences import SentenceCutter, emotion_of, sentences, speakable
from models.prompts import CompletionDelta
from tests.virtual_time import run


def cut(text: str, step: int = 1) -> list[str]:
    cutter = SentenceCutter()
    found = [s.text for at in range(0, len(text), step) for s in cutter.feed(text[at : at + step])]
    return found + [s.text for s in cutter.flush()]


CASES = [
    ("你好呀，今天天气很好，我们去公园吧。", ["你好呀，今天天气很好，", "我们去公园吧。"]),
    ("我们可以去公园，也可以去爬山。", ["我们可以去公园，", "也可以去爬山。"]),
    ("好的。我马上帮你查一下。请等等。", ["好的。", "我马上帮你查一下。", "请等等。"]),
    ("圆周率是3.14159，对吧？", ["圆周率是3.14159，", "对吧？"]),
    ("一共1,000块，10:30见面好吗？", ["一共1,000块，10:30见面好吗？"]),
    ("Hi! I am here to help you today.", ["Hi!", "I am here to help you today."]),
    ("Well then, let us go there now.", ["Well then, let us go there now."]),
    ("In that case, we should go.", ["In that case,", "we should go."]),
    ("It costs 3.50 dollars. That is cheap.", ["It costs 3.50 dollars.", "That is cheap."]),
    ("I met Dr. Smith e.g. in Paris. He is well.", ["I met Dr. Smith e.g. in Paris.", "He is well."]),
    ("Wait... what did you say?", ["Wait...", "what did you say?"]),
    ("他想了想……然后就走了。", ["他想了想……", "然后就走了。"]),
    ("他说：“你好啊！”然后他就走了。", ["他说：“你好啊！”", "然后他就走了。"]),
    ('"Come in now." he said to me.', ['"Come in now."', "he said to me."]),
    ("真的吗？！太好了太好了！", ["真的吗？！", "太好了太好了！"]),
    ("1. 苹果\n2. 香蕉\n- **橘子**很好吃", ["1. 苹果", "2. 香蕉", "橘子很好吃"]),
    ("# 标题\n正文在这里。", ["标题", "正文在这里。"]),
    ("看代码：```python\nprint('不读')\n```就是这样。", ["看代码：", "就是这样。"]),
    ("没有结束的```代码", ["没有结束的"]),
    ("Open file main.py at example.com now.", ["Open file main.py at example.com now."]),
    ("。。。！！！", []),
    ("😊😊", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
def test_text_is_cut_the_same_however_it_arrives(text: str, expected: list[str], step: int) -> None:
    assert cut(text, step) == expected


def test_first_sentence_is_given_out_before_the_text_goes_on() -> None:
    cutter = SentenceCutter()
    assert list(cutter.feed("今天天气")) == []
    assert list(cutter.feed("很好，")) == []
    assert [s.text for s in cutter.feed("我")] == ["今天天气很好，"]
    assert [s.text for s in cutter.feed("们走吧明天见。")] == ["我们走吧明天见。"]


@pytest.mark.parametrize(
    ("text", "most"), [("啊" * 1000, 80), ("字" * 79 + "word " * 60, 300), ("word " * 500, 200), ("x" * 5000, 400)]
)
def test_run_on_is_cut_at_the_cap(text: str, most: int) -> None:
    for step in (1, 5000):
        found = cut(text, step)
        assert max(map(len, found)) <= most
        assert "".join(found).replace(" ", "") == text.replace(" ", "")


def test_run_on_with_commas_is_cut_at_one() -> None:
    found = cut("今天我们一起来说一说" * 2 + "，" + "很长很长的一句话" * 9)
    assert found[0].endswith("，")


def letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


ALPHABET = "我们去公园好吗abc Dr12.,，。！？!?…\n：:“”\"'、；-—#*（）😊 "


@given(st.text(alphabet=ALPHABET, max_size=300), st.integers(1, 20))
def test_nothing_speakable_is_lost_and_order_is_kept(text: str, step: int) -> None:
    assert letters("".join(cut(text, step))) == letters(text)


@given(st.text(max_size=200), st.integers(1, 50))
def test_any_text_never_raises_and_gives_speakable_sentences(text: str, step: int) -> None:
    assert all(sentence == sentence.strip() and speakable(sentence) for sentence in cut(text, step))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这是**重点**和*斜体*", "这是重点和斜体"),
        ("3*4=12 和 3 * 4", "3*4=12 和 3 * 4"),
        ("`code` 和 ~~删~~", "code 和 删"),
        ("[天气](http://a.b/c) 很好", "天气 很好"),
        ("## 标题", "标题"),
        ("> 引用", "引用"),
        ("- 项目", "项目"),
        ("-5度", "-5度"),
        ("| 甲 | 乙 |", "甲 乙"),
        ("snake_case 和 _强调_", "snake_case 和 强调"),
        ("---", ""),
        ("好👍🏽的", "好的"),
    ],
)
def test_markdown_and_emoji_are_taken_out(text: str, expected: str) -> None:
    assert speakable(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("😂 哈哈", "laughing"), ("🚗😢", "sad"), ("没有", ""), ("😊😢", "happy")]
)
def test_first_known_emoji_is_the_emotion(text: str, expected: str) -> None:
    assert emotion_of(text) == expected


def test_face_without_words_goes_with_the_next_sentence() -> None:
    cutter = SentenceCutter()
    found = [*cutter.feed("😊\n你好！"), *cutter.flush()]
    assert [(s.text, s.emotion) for s in found] == [("你好！", "happy")]


def test_stream_is_cut_and_closed() -> None:
    closed = []

    async def deltas() -> AsyncGenerator[CompletionDelta, None]:
        try:
            for text in ("你好啊。我", "是小智。"):
                yield CompletionDelta(text=text)
        finally:
            closed.append(True)

    async def scene() -> list[str]:
        return [sentence.text async for sentence in sentences(deltas())]

    assert run(scene()) == ["你好啊。", "我是小智。"]
    assert closed
