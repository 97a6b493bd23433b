from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.requests_zh.grading import clocks_in, is_right
from benchmarks.requests_zh.request import Gold, Grader, Request
from coordinator.routing.signals import Kind


def request(
    grader: Grader | None,
    gold: Gold,
    text: str = "",
    *,
    unit: str = "",
    tolerance: float = 0.0,
    rivals: tuple[str, ...] = (),
) -> Request:
    return Request(
        id="r",
        kind=Kind.FACT,
        group="g",
        text=text,
        gold=gold,
        grader=grader,
        unit=unit,
        tolerance=tolerance,
        rivals=rivals,
    )


NUMBERS = [
    # question, gold, unit, answer, right
    ("三加五等于几", 8, "", "8", True),
    ("三加五等于几", 8, "", "三加五等于八。", True),
    ("三加五等于几", 8, "", "３＋５＝８", True),
    ("三加五等于几", 8, "", "三加五等于九。", False),
    ("三加五等于几", 8, "", "等于三加五。", False),
    ("三加五等于几", 8, "", "", False),
    ("三加五等于几", 8, "", "我不会算数哦。", False),
    ("三加五等于几", 8, "", "大概是8吧。", True),
    ("三加五等于几", 8, "", "是8或者9。", False),
    ("三加五等于几", 8, "", "可能是7到8。", False),
    ("三加五等于几", 8, "", "不是9，是8。", True),
    ("三加五等于几", 8, "", "不是8，是9。", False),
    ("三加五等于几", 8, "", "等于9。不对，等于8。", True),
    ("三加五等于几", 8, "", "等于8。不对，等于9。", False),
    ("三加五等于几", 8, "", "答案是8，因为3个再加5个就有这么多。", True),
    ("十二乘十七", 204, "", "12乘以17等于204。", True),
    ("十二乘十七", 204, "", "等于两百零四", True),
    ("十二乘十七", 204, "", "二百〇四", True),
    ("十二乘十七", 204, "", "二百四", False),
    ("一千加二百三十四", 1234, "", "1,234", True),
    ("一千加二百三十四", 1234, "", "一千二百三十四", True),
    ("一万三千减五百", 12500, "", "一万二千五", True),
    ("一万三千减五百", 12500, "", "1.25万", True),
    ("十减三再减三是几", 4, "", "10减3等于7，7减3等于4。", True),
    ("十减三再减三是几", 4, "", "10减3等于7，7减3等于5，所以答案是4。", True),
    ("三十六颗糖分给四个人每人几颗", 9, "", "每人9颗，因为36除以4等于9。", True),
    ("三十六颗糖分给四个人每人几颗", 9, "", "每个小朋友分到九颗糖，一共三十六颗。", True),
    ("三十六颗糖分给四个人每人几颗", 9, "", "36颗糖分给4个人。", False),
    ("三十六颗糖分给四个人每人几颗", 9, "", "每人分到8颗糖，一共36颗。", False),
    ("原价一百打八折卖多少", 80, "元", "打八折后是80元，便宜了20元。", True),
    ("原价一百打八折能便宜多少", 20, "元", "打八折后卖80元，便宜了20元。", True),
    ("原价一百打八折卖多少", 80, "元", "能便宜20元。", False),
    ("一共多少钱", 3.5, "元", "3块5", True),
    ("一共多少钱", 3.5, "元", "三块五毛钱", True),
    ("一共多少钱", 3.5, "元", "一共3元5角。", True),
    ("一共多少钱", 3.5, "元", "3.50元", True),
    ("一共多少钱", 3.5, "元", "三十五元", False),
    ("一共多少钱", 12, "元", "十二块钱", True),
    ("多少分钟", 140, "分钟", "两个小时二十分钟", True),
    ("多少分钟", 140, "分钟", "140分钟，也就是2小时20分。", True),
    ("多少分钟", 90, "分钟", "一个半小时", True),
    ("多少分钟", 140, "分钟", "2小时10分钟", False),
    ("几个小时", 1.5, "小时", "90分钟", True),
    ("几个小时", 1.5, "小时", "一小时三十分钟", True),
    ("几个小时", 0.5, "小时", "半个小时", True),
    ("夜里多少度", -3, "", "零下三度", True),
    ("夜里多少度", -3, "", "夜里是-3度。", True),
    ("夜里多少度", -3, "", "三度", False),
    ("一百二的一半", 60, "", "一百二的一半是六十。", True),
    ("哪一年", 1949, "", "一九四九年", True),
    ("哪一年", 1949, "年", "新中国是1949年10月1日成立的。", True),
    ("哪一年", 1949, "年", "新中国是1950年10月1日成立的。", False),
    ("哪一年", 1949, "年", "1949", True),
    ("有几个字母", 3, "", "一共有三个。", True),
    ("有几个", 1, "", "只有一个。", True),
    ("有几个", 8, "", "8，这是一个简单的加法。", True),
    ("打什么电话", 119, "", "请拨打幺幺九。", True),
    ("一加到一百", 5050, "", "5050.0", True),
]


@pytest.mark.parametrize(("question", "gold", "unit", "answer", "right"), NUMBERS)
def test_a_number_is_judged_by_what_is_claimed_in_the_end(
    question: str, gold: float, unit: str, answer: str, right: bool
) -> None:
    assert is_right(request("number", gold, question, unit=unit), answer) is right


def test_a_number_may_be_off_by_its_tolerance_and_no_more() -> None:
    marathon = request("number", 42.0, tolerance=0.3)
    assert is_right(marathon, "42.195公里")
    assert not is_right(marathon, "42.5公里")


TEXTS = [
    (("巴黎",), "法国的首都是巴黎。", True),
    (("巴黎",), "是里昂。", False),
    (("巴黎",), "不是巴黎，是里昂。", False),
    (("巴黎",), "不是里昂，而是巴黎。", True),
    (("巴黎",), "并非巴黎。", False),
    (("巴黎",), "我不太确定，大概是巴黎。", True),
    (("巴黎",), "是巴黎或者里昂。", False),
    (("巴黎",), "可能是里昂，也可能是巴黎。", False),
    (("巴黎",), "是里昂。不对，应该是巴黎。", True),
    (("巴黎",), "是巴黎。说错了，是里昂。", False),
    (("巴黎",), "抱歉，我不知道。", False),
    (("巴黎",), "", False),
    (("西红柿", "番茄"), "是番茄。", True),
    (("Fe",), "铁的符号是Fe。", True),
    (("Fe",), "FE", True),
    (("C",), "是Ca。", False),
    (("H2O",), "水是H₂O。", True),
    (("CO",), "是CO2。", False),
    (("apple",), "Apple.", True),
    (("apple",), "pineapple", False),
    (("黄河入海流",), "白日依山尽，黄河入海流。", True),
    (("黄河入海流",), "黄河 入海流", True),
    (("黄河入海流",), "**黄河入海流**", True),
    (("足",), "画蛇添“足”", True),
    (("明",), "我不太明白。", False),
]


@pytest.mark.parametrize(("gold", "answer", "right"), TEXTS)
def test_a_word_counts_when_it_is_claimed_and_not_one_of_two(gold: tuple[str, ...], answer: str, right: bool) -> None:
    assert is_right(request("text", gold), answer) is right


VERDICTS = [
    (("no", "哺乳"), "不是，鲸是哺乳动物。", True),
    (("no", "哺乳"), "鲸不是鱼。", True),
    (("no", "哺乳"), "鲸是哺乳动物，它用肺呼吸。", True),
    (("no", "哺乳"), "是的，鲸是鱼。", False),
    (("no",), "这个说法不对。", True),
    (("no",), "答案是否定的。", True),
    (("no",), "鲸是鱼。", False),
    (("no",), "不一定。", True),
    (("no",), "", False),
    (("yes",), "是的。", True),
    (("yes",), "对，没错。", True),
    (("yes",), "没错。", True),
    (("yes",), "能。", True),
    (("yes",), "不能。", False),
    (("yes",), "没有。", False),
    (("yes",), "二十一是质数，所以是的。", True),
    (("yes",), "太阳是恒星。", True),
    (("yes",), "因为它能被三整除，所以不是。", False),
]


@pytest.mark.parametrize(("gold", "answer", "right"), VERDICTS)
def test_a_verdict_is_read_from_its_first_word_else_from_what_is_said(
    gold: tuple[str, ...], answer: str, right: bool
) -> None:
    assert is_right(request("yes-no", gold), answer) is right


CHOICES = [
    ("铁和木头哪个重", "铁", ("木头",), "铁比木头重。", True),
    ("铁和木头哪个重", "铁", ("木头",), "木头没有铁重。", True),
    ("铁和木头哪个重", "铁", ("木头",), "木头比铁重。", False),
    ("铁和木头哪个重", "铁", ("木头",), "不是木头，是铁。", True),
    ("铁和木头哪个重", "铁", ("木头",), "铁和木头相比，铁更重。", True),
    ("铁和木头哪个重", "铁", ("木头",), "木头和铁相比，木头更重。", False),
    ("铁和木头哪个重", "铁", ("木头",), "铁或者木头。", False),
    ("铁和木头哪个重", "铁", ("木头",), "木头比较轻，所以铁重。", True),
    ("铁和木头哪个重", "铁", ("木头",), "我不知道。", False),
    ("一斤铁和一斤棉花哪个重", "一样/同样", ("铁", "棉花"), "一斤铁和一斤棉花一样重。", True),
    ("一斤铁和一斤棉花哪个重", "一样/同样", ("铁", "棉花"), "铁更重。", False),
    ("一斤铁和一斤棉花哪个重", "一样/同样", ("铁", "棉花"), "它们不一样重，铁重。", False),
    (
        "小明比小红高，小红比小刚高，谁最矮",
        "小刚",
        ("小明", "小红"),
        "小明比小红高，小红比小刚高，最矮的是小刚。",
        True,
    ),
    ("小明比小红高，小红比小刚高，谁最矮", "小刚", ("小明", "小红"), "最高的是小明，小刚最矮。", True),
    ("小明比小红高，小红比小刚高，谁最矮", "小刚", ("小明", "小红"), "小明最矮，小刚最高。", False),
    ("唐朝和宋朝哪个在前", "唐朝/唐代/唐", ("宋朝/宋代/宋",), "唐在宋之前。", True),
    ("九点一一和九点九哪个大", "九点九/9.9", ("九点一一/9.11",), "9.11大于9.9。", False),
    ("九点一一和九点九哪个大", "九点九/9.9", ("九点一一/9.11",), "9.9大。", True),
    ("苹果、白菜、葡萄哪个不一样", "白菜", ("苹果", "葡萄"), "苹果、葡萄都是水果，白菜是蔬菜。", True),
    ("苹果、白菜、葡萄哪个不一样", "白菜", ("苹果", "葡萄"), "白菜，因为苹果和葡萄是水果。", True),
]


@pytest.mark.parametrize(("question", "gold", "rivals", "answer", "right"), CHOICES)
def test_a_choice_is_what_the_claim_names_first(
    question: str, gold: str, rivals: tuple[str, ...], answer: str, right: bool
) -> None:
    assert is_right(request("choice", (gold,), question, rivals=rivals), answer) is right


ECHOES: list[tuple[Grader, Gold, str, str, bool]] = [
    ("yes-no", ("yes",), "如果停电灯就会灭现在停电了那灯灭这样推对吗", "如果停电，灯就会灭。", False),
    ("yes-no", ("yes",), "二零一六年是闰年吗", "二零一六年是闰年。", True),
    ("yes-no", ("yes",), "昨天的后天是明天，对吗？", "昨天的后天是明天。", True),
    ("choice", ("小华",), "小华说不是我妞妞说不是我，是谁打破的", "小华说不是我，妞妞说不是我。", False),
    (
        "choice",
        ("乙",),
        "甲店两瓶水卖六块，乙店三瓶水卖六块，哪家便宜",
        "甲店两瓶水卖六块，乙店三瓶水卖六块，乙店便宜。",
        True,
    ),
    (
        "number",
        6.0,
        "三个人十天能干完的活，换成五个人一起干要六天吗",
        "三个人十天能干完的活，换成五个人一起干。",
        False,
    ),
    (
        "number",
        5.0,
        "三个人十天能干完的活，换成五个人一起干要几天？",
        "三个人十天能干完的活，换成五个人一起干要几天？",
        False,
    ),
]


@pytest.mark.parametrize(("grader", "gold", "question", "answer", "right"), ECHOES)
def test_saying_the_question_again_claims_nothing(
    grader: Grader, gold: Gold, question: str, answer: str, right: bool
) -> None:
    assert is_right(request(grader, gold, question, rivals=("妞妞", "甲")), answer) is right


DAYS = ("星期一/周一", "星期二/周二", "星期三/周三", "星期五/周五")
CATEGORIES = [
    ("今天星期一，三天后星期几", "星期四/周四", DAYS, "今天是星期一，三天后是星期四。", True),
    ("今天星期一，三天后星期几", "星期四/周四", DAYS, "周四", True),
    ("今天星期一，三天后星期几", "星期四/周四", DAYS, "一天后星期二，两天后星期三，三天后星期四。", True),
    ("今天星期一，三天后星期几", "星期四/周四", DAYS, "三天后是星期五。", False),
    ("今天星期一，三天后星期几", "星期四/周四", DAYS, "三天后是星期一。", False),
    ("今天星期一，三天后星期几", "星期四/周四", DAYS, "星期四或者星期五。", False),
    ("鲸属于哪类", "哺乳", ("鱼类", "鸟类"), "虽然住在海里，鲸不是鱼类，是哺乳动物。", True),
    ("鲸属于哪类", "哺乳", ("鱼类", "鸟类"), "鲸是鱼类。", False),
    ("向左转面朝哪", "西", ("东", "南", "北"), "面朝西。", True),
]


@pytest.mark.parametrize(("question", "gold", "rivals", "answer", "right"), CATEGORIES)
def test_a_category_is_the_last_one_claimed_beside_the_questions_own(
    question: str, gold: str, rivals: tuple[str, ...], answer: str, right: bool
) -> None:
    assert is_right(request("category", tuple(gold.split("/")), question, rivals=rivals), answer) is right


ORDERS = [
    (("甲", "乙", "丙"), "甲、乙、丙。", True),
    (("甲", "乙", "丙"), "第一名是甲，第二名是乙，第三名是丙。", True),
    (("甲", "乙", "丙"), "甲、丙、乙。", False),
    (("甲", "乙", "丙"), "甲、乙。", False),
    (("甲", "乙", "丙"), "丙比乙后到，甲比乙先到，所以是甲、乙、丙。", True),
    (("十二/12", "三十/30", "四十五/45"), "12，30，45", True),
    (("十二/12", "三十/30", "四十五/45"), "十二、四十五、三十", False),
    (("四十一/41", "十一/11"), "四十一、十一", True),
    (("十一/11", "四十一/41"), "四十一、十一", False),
    (("三/3", "二/2", "一/1"), "三，二，一", True),
    (("一/1", "二/2", "三/3"), "三二一", False),
    (("八/8", "五/5", "三/3"), "三、八、五从大到小排是：八、五、三。", True),
    (("八/8", "五/5", "三/3"), "八、五、三从小到大排是三、五、八。", False),
]


@pytest.mark.parametrize(("gold", "answer", "right"), ORDERS)
def test_an_order_wants_every_item_in_its_place(gold: tuple[str, ...], answer: str, right: bool) -> None:
    assert is_right(request("order", gold), answer) is right


CLOCKS = [
    ("15:40", "下午三点四十", True),
    ("3:40", "15:40", True),
    ("3:40", "三点四十分。", True),
    ("3:40", "四点差二十分", True),
    ("3:30", "三点半", True),
    ("3:15", "三点一刻", True),
    ("3:45", "差一刻四点", True),
    ("4:00", "四点整", True),
    ("4:05", "四点零五", True),
    ("4:05", "4点5分", True),
    ("4:30", "现在三点四十，再过五十分钟是四点三十。", True),
    ("4:30", "四点二十。", False),
    ("4:30", "五十分钟以后。", False),
    ("12:10", "0点10分", True),
]


@pytest.mark.parametrize(("gold", "answer", "right"), CLOCKS)
def test_a_time_of_day_is_the_last_one_claimed(gold: str, answer: str, right: bool) -> None:
    assert is_right(request("clock", (gold,)), answer) is right


DATES = [
    ("10-1", "国庆节是十月一号。", True),
    ("10-1", "10月1日，放假到10月7日。", True),
    ("10-1", "10月2日", False),
    ("10-1", "不是10月2日，是10月1日。", True),
    ("8-15", "农历八月十五，公历一般在九月。", True),
    ("1-15", "正月十五", True),
    ("12-8", "腊月初八", True),
    ("5-5", "五月初五。", True),
    ("5-5", "五月。", False),
]


@pytest.mark.parametrize(("gold", "answer", "right"), DATES)
def test_a_date_is_the_first_one_claimed(gold: str, answer: str, right: bool) -> None:
    assert is_right(request("date", (gold,)), answer) is right


def test_an_unchecked_request_cannot_be_graded() -> None:
    with pytest.raises(ValueError, match="no gold"):
        is_right(request(None, None), "好的")


@pytest.mark.parametrize(("grader", "gold"), [("number", ("8",)), ("text", 8.0)])
def test_a_gold_of_the_wrong_form_is_refused(grader: Grader, gold: Gold) -> None:
    with pytest.raises(TypeError):
        is_right(request(grader, gold), "8")


def test_morning_and_afternoon_are_the_same_time() -> None:
    assert clocks_in("3:40") == clocks_in("15:40") == [220]


GOLDS: list[tuple[Grader, Gold]] = [
    ("number", 8.0),
    ("text", ("巴黎",)),
    ("yes-no", ("no", "哺乳")),
    ("choice", ("铁",)),
    ("category", ("东",)),
    ("order", ("甲", "乙")),
    ("clock", ("3:40",)),
    ("date", ("10-1",)),
]


@given(
    st.text(
        alphabet="零一二三十百万亿点分之半个小时块毛月日初差刻0123456789.,/%-:年巴黎铁东甲乙不是或者所以因为最\\*（。",
        max_size=40,
    )
)
def test_any_answer_is_judged_without_an_error(answer: str) -> None:
    for grader, gold in GOLDS:
        assert is_right(request(grader, gold, "一共多少", unit="元", rivals=("西",)), answer) in (True, False)
