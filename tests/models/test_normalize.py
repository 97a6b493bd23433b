from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.normalize import clauses, normalize

_LIVELY = st.text(
    st.one_of(st.characters(), st.sampled_from("0123456789.,:/-%°CkmgHz+×÷=*#[]()<>$¥，。年月日2个~…²³√½€£‰KMB万亿AP")),
    max_size=80,
)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("今天25°C。", "今天二十五摄氏度。"),
        ("今天25℃,有风!", "今天二十五摄氏度，有风！"),
        ("气温-5到3.5度", "气温负五到三点五度"),
        ("湿度60%左右", "湿度百分之六十左右"),
        ("2024年5月1日", "二零二四年五月一日"),
        ("2024-05-01放假", "二零二四年五月一日放假"),
        ("现在10:05,不是14:30", "现在十点零五分，不是十四点三十分"),
        ("8:00起床", "八点起床"),
        ("2:00:10", "两点零零分十秒"),
        ("比分3:2", "比分三比二"),
        ("3+5=8", "三加五等于八"),
        ("10-3=7", "十减三等于七"),
        ("3-5天", "三到五天"),
        ("6×7=42，8÷2=4", "六乘以七等于四十二，八除以二等于四"),
        ("5 * 6", "五乘以六"),
        ("吃了1/3", "吃了三分之一"),
        ("有2个苹果和12个梨", "有两个苹果和十二个梨"),
        ("共1,234,567人", "共一百二十三万四千五百六十七人"),
        ("跑了5km,重3kg", "跑了五公里，重三公斤"),
        ("时速60km/h", "时速六十公里每小时"),
        ("$5和¥10", "五美元和十元"),
        ("电话13800138000", "电话一三八零零一三八零零零"),
        ("**重点**：`代码`", "重点：代码"),
        ("# 标题\n- 第一\n- 第二", "标题。第一。第二"),
        ("1. 早餐\n2. 午餐", "一。早餐。二。午餐"),
        ("看[这里](https://example.com/a)吧", "看这里吧"),
        ("网址https://example.com/a?b=1。", "网址。"),
        ("你好😀！！！", "你好！"),
        ("他说：“好的（真的）”", "他说：好的真的"),
        ("用Python写AI", "用Python写AI"),
        ("hello world 你好", "hello world你好"),
        ("面积x²", "面积x的平方"),
        ("等等……好吧", "等等。好吧"),
        ("😀", ""),
        ("，。！", ""),
        ("", ""),
    ],
)
def test_chinese_is_written_out(written, spoken):
    assert normalize(written, "zh") == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("It is 25°C, 60% humid.", "It is 25 degrees Celsius, 60 percent humid."),
        ("3 + 5 = 8", "3 plus 5 equals 8"),
        ("10 - 3 = 7", "10 minus 3 equals 7"),
        ("10-3=7", "10 minus 3 equals 7"),
        ("6 × 7 and 8 ÷ 2", "6 times 7 and 8 divided by 2"),
        ("3-5 days at -2", "3 to 5 days at minus 2"),
        ("It costs $5.", "It costs 5 dollars."),
        ("On 2024-05-01.", "On May 1, 2024."),
        ("At 10:30, not 8:00.", "At 10 30, not 8 o'clock."),
        ("Run 5km with 3 kg.", "Run 5 kilometers with 3 kilograms."),
        ("1,234,567 people", "1234567 people"),
        ("**Bold** and `code`!", "Bold and code!"),
        ("# Title\n* one\n* two", "Title. one. two"),
        ("See [here](http://a.b/c) or www.x.org.", "See here or"),
        ("Don’t (really) “quote”", "Don't really quote"),
        ("A well-known café - yes", "A well-known cafe yes"),
        ("Hello 😀 world!!!", "Hello world!"),
        ("你好", ""),
        ("...", ""),
    ],
)
def test_english_is_written_out(written, spoken):
    assert normalize(written, "en") == spoken


@given(_LIVELY)
def test_any_text_becomes_bounded_speakable_chinese(text):
    spoken = normalize(text, "zh")
    assert re.fullmatch(r"[〇㐀-䶿一-鿿A-Za-z，。！？；：、 ]*", spoken)
    assert len(spoken) <= 20 * len(text)


@given(_LIVELY)
def test_any_text_becomes_bounded_speakable_english(text):
    spoken = normalize(text, "en")
    assert re.fullmatch(r"[A-Za-z0-9,.!?;:' -]*", spoken)
    assert len(spoken) <= 20 * len(text)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("你好。", ["你好。"]),
        ("今天天气很好，我们出去玩吧。", ["今天天气很好，", "我们出去玩吧。"]),
        ("好，我们出去玩吧。", ["好，我们出去玩吧。"]),
        ("我们现在出去玩，好。", ["我们现在出去玩，好。"]),
        ("", []),
        ("。", []),
        (
            "一二三四五六七八九十一二三四五六七八九十一二三四五",
            ["一二三四五六七八九十一二三四五六七八九十", "一二三四五"],
        ),
    ],
)
def test_chinese_is_cut_at_pauses(text, pieces):
    assert clauses(text, shortest=4, longest=20) == pieces


def test_english_is_cut_at_pauses_and_spaces():
    text = "The weather is fine today, so let us go out and see the very old town."
    assert clauses(text, shortest=12, longest=30) == [
        "The weather is fine today,",
        "so let us go out and see the",
        "very old town.",
    ]


@given(st.text(st.sampled_from("你好天，。！ ab.,"), max_size=120))
def test_cut_pieces_keep_every_word_and_the_limit(text):
    pieces = clauses(text, shortest=4, longest=10)
    assert all(len(piece) <= 10 for piece in pieces)
    assert re.sub(r"\W", "", "".join(pieces)) == re.sub(r"\W", "", text)
