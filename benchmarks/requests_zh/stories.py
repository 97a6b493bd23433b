"""Word problems of everyday life, from one step to four, with answers computed here."""

from __future__ import annotations

import random

from benchmarks.requests_zh.request import Draft
from benchmarks.requests_zh.speech import counted, said

NAMES = ("小明", "小红", "小刚", "小丽", "小华", "小军", "小芳", "小强", "妞妞", "豆豆")
_GOODS = (
    ("苹果", "斤"),
    ("铅笔", "支"),
    ("本子", "本"),
    ("面包", "个"),
    ("牛奶", "瓶"),
    ("橙子", "斤"),
    ("酸奶", "盒"),
)


def _number(text: str, gold: float, unit: str = "", tolerance: float = 0.0) -> Draft:
    return Draft(text=text, gold=round(gold, 6), grader="number", unit=unit, tolerance=tolerance)


def left_over(rng: random.Random) -> Draft:
    """Some, some given away, some got."""
    who, (what, measure) = rng.choice(NAMES), rng.choice((("糖", "颗"), ("贴纸", "张"), ("苹果", "个"), ("弹珠", "颗")))
    had, gave, got = rng.randint(12, 40), rng.randint(3, 11), rng.randint(2, 15)
    text = f"{who}有{counted(had, measure)}{what}，送给同学{counted(gave, measure)}，妈妈又给了{counted(got, measure)}，现在有几{measure}？"
    return _number(text, had - gave + got)


def change(rng: random.Random) -> Draft:
    """Change from a note."""
    (what, measure), price, n = rng.choice(_GOODS), rng.randint(3, 9), rng.randint(2, 6)
    note = rng.choice([each for each in (20, 50, 100) if each > price * n])
    text = (
        f"{what}{counted(price, '块')}钱一{measure}，我买了{counted(n, measure)}，给了{said(note)}块，应该找我多少钱？"
    )
    return _number(text, note - price * n, "元")


def total_price(rng: random.Random) -> Draft:
    """Two kinds of goods together."""
    (a, a_measure), (b, b_measure) = rng.sample(_GOODS, 2)
    a_price, b_price, a_n, b_n = rng.randint(2, 9), rng.randint(2, 12), rng.randint(2, 6), rng.randint(2, 5)
    text = (
        f"{a}{counted(a_price, '块')}一{a_measure}，{b}{counted(b_price, '块')}一{b_measure}，"
        f"买{counted(a_n, a_measure)}{a}和{counted(b_n, b_measure)}{b}一共多少钱？"
    )
    return _number(text, a_price * a_n + b_price * b_n, "元")


def discount(rng: random.Random) -> Draft:
    """A price after so many tenths off."""
    what, price = (
        rng.choice(("一件衣服", "一双鞋", "一个书包", "一盏台灯")),
        rng.choice((80, 120, 150, 200, 240, 300, 400)),
    )
    tenths = rng.randint(5, 9)
    return _number(f"{what}原价{said(price)}块，打{said(tenths)}折，现在卖多少钱？", price * tenths / 10, "元")


def saved_by_discount(rng: random.Random) -> Draft:
    """How much a discount saves."""
    price, tenths = rng.choice((100, 150, 200, 250, 300, 500)), rng.randint(6, 9)
    return _number(
        f"一个箱子标价{said(price)}块，打{said(tenths)}折的话能便宜多少钱？", price * (10 - tenths) / 10, "元"
    )


def money_off(rng: random.Random) -> Draft:
    """So much off from so much on."""
    limit, off = rng.choice(((100, 20), (200, 30), (150, 25), (300, 50)))
    price = limit + rng.randint(5, 80)
    return _number(
        f"商场满{said(limit)}减{said(off)}，我买了{said(price)}块的东西，实际要付多少钱？", price - off, "元"
    )


def age_later(rng: random.Random) -> Draft:
    """An age in some years, by a difference."""
    who, age, more, years = rng.choice(NAMES), rng.randint(5, 12), rng.randint(22, 33), rng.randint(3, 15)
    text = f"{who}今年{said(age)}岁，妈妈比{who}大{said(more)}岁，{said(years)}年以后妈妈多少岁？"
    return _number(text, age + more + years)


def age_times(rng: random.Random) -> Draft:
    """How many years ago a parent was so many times as old."""
    child, times, ago = rng.randint(4, 9), rng.randint(4, 7), rng.randint(1, 6)
    text = f"爸爸今年{said(child * times + ago)}岁，儿子今年{said(child + ago)}岁，{counted(ago, '年')}前爸爸的年龄是儿子的几倍？"
    return _number(text, times)


def distance(rng: random.Random) -> Draft:
    """Speed by time."""
    speed, what = rng.choice((14, 40, 60, 76, 80, 90, 120)), rng.choice(("汽车", "大巴", "货车"))
    hours, said_hours = rng.choice(
        ((2, "两个"), (3, "三个"), (4, "四个"), (5, "五个"), (1.5, "一个半"), (2.5, "两个半"))
    )
    return _number(f"一辆{what}每小时走{said(speed)}公里，走{said_hours}小时能走多少公里？", speed * hours)


def travel_time(rng: random.Random) -> Draft:
    """Distance by speed."""
    speed, hours = rng.choice((50, 60, 80, 90, 100)), rng.choice((2, 3, 4, 5, 6))
    return _number(f"从家到老家有{said(speed * hours)}公里，开车每小时{said(speed)}公里，要开几个小时？", hours, "小时")


def meeting(rng: random.Random) -> Draft:
    """Two who walk towards each other."""
    a, b, hours = rng.randint(4, 9) * 10, rng.randint(4, 9) * 10, rng.randint(2, 5)
    text = f"两地相距{said((a + b) * hours)}公里，两辆车同时相向开，一辆每小时{said(a)}公里，一辆每小时{said(b)}公里，几小时后相遇？"
    return _number(text, hours, "小时")


def share_equally(rng: random.Random) -> Draft:
    """So many each."""
    people, each = rng.randint(3, 9), rng.randint(3, 14)
    return _number(f"把{said(people * each)}块饼干平均分给{counted(people, '个')}小朋友，每人分几块？", each)


def share_remainder(rng: random.Random) -> Draft:
    """What is left after sharing."""
    people = rng.randint(4, 9)
    n = people * rng.randint(3, 9) + rng.randint(1, people - 1)
    return _number(f"{said(n)}个橘子平均分给{counted(people, '个')}人，最后还剩几个？", n % people)


def boats(rng: random.Random) -> Draft:
    """Rounding up."""
    seats = rng.randint(4, 8)
    people = seats * rng.randint(3, 9) + rng.randint(1, seats - 1)
    return _number(
        f"一条船最多坐{counted(seats, '个')}人，{said(people)}个人一次全部过河，至少要几条船？", people // seats + 1
    )


def pages(rng: random.Random) -> Draft:
    """A book read by so many pages a day."""
    a_day, days, done = rng.randint(8, 25), rng.randint(4, 9), rng.randint(2, 4)
    text = (
        f"一本书有{said(a_day * (days + done))}页，每天看{said(a_day)}页，已经看了{counted(done, '天')}，还要几天看完？"
    )
    return _number(text, days)


def savings(rng: random.Random) -> Draft:
    """Money put aside month by month."""
    month, months, start = rng.choice((50, 80, 120, 150, 200, 300)), rng.randint(3, 12), rng.choice((100, 200, 500))
    return _number(
        f"我已经存了{said(start)}块，以后每个月存{said(month)}块，{counted(months, '个月')}后一共有多少钱？",
        start + month * months,
        "元",
    )


def rabbits(rng: random.Random) -> Draft:
    """Chickens and rabbits in one cage."""
    chickens, rabbits_ = rng.randint(2, 12), rng.randint(2, 12)
    text = f"鸡和兔子关在一个笼子里，一共{said(chickens + rabbits_)}个头，{said(2 * chickens + 4 * rabbits_)}条腿，兔子有几只？"
    return _number(text, rabbits_)


def trees(rng: random.Random) -> Draft:
    """Trees along a road, at both ends too."""
    gap, gaps = rng.choice((2, 3, 4, 5, 10)), rng.randint(6, 25)
    return _number(
        f"一条路长{said(gap * gaps)}米，每隔{counted(gap, '米')}种一棵树，两头都种，一共要种几棵？", gaps + 1
    )


def stairs(rng: random.Random) -> Draft:
    """Time between floors."""
    first, seconds, top = rng.randint(3, 5), rng.randint(8, 15), rng.randint(6, 10)
    text = (
        f"从一楼走到{said(first)}楼用了{said(seconds * (first - 1))}秒，照这个速度，从一楼走到{said(top)}楼要多少秒？"
    )
    return _number(text, seconds * (top - 1))


def sawing(rng: random.Random) -> Draft:
    """Cuts are one fewer than pieces."""
    pieces, minutes = rng.randint(4, 9), rng.randint(2, 6)
    return _number(
        f"把一根木头锯成{said(pieces)}段，每锯一次要{counted(minutes, '分钟')}，一共要几分钟？",
        (pieces - 1) * minutes,
        "分钟",
    )


def area(rng: random.Random) -> Draft:
    """Area of a rectangle."""
    a, b, what = rng.randint(5, 18), rng.randint(3, 12), rng.choice(("房间", "菜地", "院子", "操场"))
    return _number(f"一个长方形的{what}，长{said(a)}米，宽{counted(b, '米')}，面积是多少平方米？", a * b)


def perimeter(rng: random.Random) -> Draft:
    """Length around a rectangle or square."""
    a, b = rng.randint(5, 30), rng.randint(3, 20)
    if rng.random() < 0.5:  # noqa: PLR2004 - a coin
        return _number(f"一个正方形边长是{said(a)}厘米，周长是多少厘米？", 4 * a)
    return _number(f"一块长方形的布，长{said(a)}分米宽{said(b)}分米，绕一圈是多少分米？", 2 * (a + b))


def temperature(rng: random.Random) -> Draft:
    """Degrees up and down, across zero."""
    a, up, down = rng.randint(-5, 6), rng.randint(4, 12), rng.randint(6, 16)
    start = f"零下{said(-a)}度" if a < 0 else f"{said(a)}度"
    return _number(f"早上气温{start}，中午升高了{said(up)}度，夜里又降了{said(down)}度，夜里是多少度？", a + up - down)


def bill(rng: random.Random) -> Draft:
    """A bill by the unit, rounded to a tenth."""
    price, used, what = rng.choice((0.5, 0.6, 0.8)), rng.choice((40, 60, 75, 90, 120, 150, 200)), "电"
    return _number(f"{what}费每度{said(price)}块，这个月用了{said(used)}度{what}，要交多少钱？", price * used, "元")


def work_rate(rng: random.Random) -> Draft:
    """More workers, fewer days."""
    workers, days = rng.choice((2, 3, 4, 5, 6)), rng.choice((6, 8, 10, 12))
    more = rng.choice([each for each in range(2, 13) if workers * days % each == 0 and each != workers])
    return _number(
        f"{counted(workers, '个')}人{said(days)}天能干完的活，换成{counted(more, '个')}人一起干要几天？",
        workers * days / more,
    )


def group_ticket(rng: random.Random) -> Draft:
    """Adults and children at the door."""
    adult, grown, children = rng.choice((20, 30, 40, 50, 60, 80)), rng.randint(2, 4), rng.randint(1, 4)
    text = f"门票大人{said(adult)}块一张，小孩半价，{counted(grown, '个')}大人带{counted(children, '个')}小孩，买票要多少钱？"
    return _number(text, adult * grown + adult / 2 * children, "元")


def ratio(rng: random.Random) -> Draft:
    """A recipe for more people."""
    people, grams, more = rng.choice((2, 3, 4)), rng.choice((60, 120, 180, 240)), rng.choice((6, 8, 9, 10, 12))
    return _number(
        f"做{counted(people, '个')}人的饭要{said(grams)}克米，{said(more)}个人吃要多少克米？", grams / people * more
    )


def more_and_fewer(rng: random.Random) -> Draft:
    """A total from two comparisons."""
    a, more, fewer = rng.randint(15, 40), rng.randint(3, 12), rng.randint(2, 9)
    x, y, z = rng.sample(NAMES, 3)
    text = f"{x}有{said(a)}本书，{y}比{x}多{said(more)}本，{z}比{y}少{said(fewer)}本，三个人一共多少本？"
    return _number(text, a + (a + more) + (a + more - fewer))


def backwards(rng: random.Random) -> Draft:
    """What a number was before it was changed."""
    a, b, c = rng.randint(4, 20), rng.randint(2, 6), rng.randint(3, 30)
    return _number(f"一个数乘以{said(b)}再加上{said(c)}等于{said(a * b + c)}，这个数是几？", a)


STORIES = {
    maker.__name__.replace("_", "-"): (maker, 6)
    for maker in (
        left_over, change, total_price, discount, saved_by_discount, money_off, age_later, age_times, distance, travel_time,
        meeting, share_equally, share_remainder, boats, pages, savings, rabbits, trees, stairs, sawing, area, perimeter,
        temperature, bill, work_rate, group_ticket, ratio, more_and_fewer, backwards,
    )
}  # fmt: skip
"""Group, what makes a draft of it, and how many there are."""
