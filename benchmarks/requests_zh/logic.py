"""Reasoning over people and statements: orders, comparisons, liars, syllogisms, assignments; answers computed here."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise, permutations

from benchmarks.requests_zh.request import Draft
from benchmarks.requests_zh.speech import said
from benchmarks.requests_zh.stories import NAMES

_PLAIN = 0.6
"""Share of comparisons told from the larger side."""
_SCALES = (("高", "矮"), ("重", "轻"), ("跑得快", "跑得慢"), ("年纪大", "年纪小"))


def _choice(text: str, gold: str, rivals: list[str]) -> Draft:
    return Draft(text=text, gold=(gold,), grader="choice", rivals=tuple(each for each in rivals if each != gold))


def _yes_no(text: str, *, is_so: bool) -> Draft:
    return Draft(text=text, gold=("yes" if is_so else "no",), grader="yes-no")


def extreme(rng: random.Random) -> Draft:
    """Who of three or four is the most or least of something."""
    people = rng.sample(NAMES, rng.choice((3, 3, 4)))
    more, less = rng.choice(_SCALES)
    facts = [f"{a}比{b}{more}" if rng.random() < _PLAIN else f"{b}比{a}{less}" for a, b in pairwise(people)]
    rng.shuffle(facts)
    asks_more = rng.random() < 0.5  # noqa: PLR2004 - a coin
    return _choice(
        f"{'，'.join(facts)}，谁{_most(more if asks_more else less)}？", people[0] if asks_more else people[-1], people
    )


def _most(quality: str) -> str:
    """Return the superlative: 最高, 跑得最快, 年纪最大."""
    return f"{quality[:-1]}最{quality[-1]}"


def middle(rng: random.Random) -> Draft:
    """Who of three stands between."""
    people = rng.sample(NAMES, 3)
    more, less, scale = rng.choice((("高", "矮", "身高"), ("重", "轻", "体重")))
    facts = [f"{people[0]}比{people[1]}{more}", f"{people[2]}比{people[1]}{less}"]
    rng.shuffle(facts)
    return _choice(f"{'，'.join(facts)}，{scale}排在中间的是谁？", people[1], people)


def finish(rng: random.Random) -> Draft:
    """The whole order of a race."""
    people = rng.sample(NAMES, 3)
    facts = [f"{people[0]}比{people[1]}先到终点", f"{people[2]}比{people[1]}后到"]
    rng.shuffle(facts)
    text = f"三个人赛跑，{'，'.join(facts)}，从第一名到第三名依次是谁？"
    return Draft(text=text, gold=tuple(people), grader="order")


def sorted_numbers(rng: random.Random) -> Draft:
    """Four numbers into order."""
    numbers = rng.sample(range(11, 99), 4)
    down = rng.random() < 0.5  # noqa: PLR2004 - a coin
    gold = tuple(f"{said(each)}/{each}" for each in sorted(numbers, reverse=down))
    text = f"把{'、'.join(said(each) for each in numbers)}这四个数从{'大到小' if down else '小到大'}排一下"
    return Draft(text=text, gold=gold, grader="order")


def larger_decimal(rng: random.Random) -> Draft:
    """Two decimals, the longer one being the smaller."""
    whole = rng.randint(1, 12)
    long, short = whole + rng.choice((11, 12, 15, 18, 25)) / 100, whole + rng.choice((3, 5, 7, 8, 9)) / 10
    a, b = rng.sample((long, short), 2)
    asks_larger = rng.random() < 0.7  # noqa: PLR2004 - most ask so
    gold, rival = (max(a, b), min(a, b)) if asks_larger else (min(a, b), max(a, b))
    text = f"{said(a)}和{said(b)}哪个{'大' if asks_larger else '小'}？"
    return Draft(text=text, gold=(f"{said(gold)}/{gold:g}",), grader="choice", rivals=(f"{said(rival)}/{rival:g}",))


def larger_fraction(rng: random.Random) -> Draft:
    """Two fractions with unlike denominators."""
    pool = [
        (1, 2),
        (1, 3),
        (2, 3),
        (1, 4),
        (3, 4),
        (2, 5),
        (3, 5),
        (4, 5),
        (1, 6),
        (5, 6),
        (3, 8),
        (5, 8),
        (2, 7),
        (4, 7),
    ]
    (a, b), (c, d) = rng.sample(pool, 2)
    names = {(x, y): f"{said(y)}分之{said(x)}/{x}/{y}" for x, y in ((a, b), (c, d))}
    gold, rival = ((a, b), (c, d)) if a * d > c * b else ((c, d), (a, b))
    forms = tuple(name.replace("/", "|", 1).split("|")[0] for name in (names[gold], names[rival]))
    text = f"{said(b)}分之{said(a)}和{said(d)}分之{said(c)}哪个大？"
    return Draft(text=text, gold=(forms[0],), grader="choice", rivals=(forms[1],))


def older(rng: random.Random) -> Draft:
    """Who is older by year of birth."""
    a, b = rng.sample(NAMES, 2)
    year, later = rng.randint(1970, 2005), rng.randint(1, 9)
    pair = [(a, year), (b, year + later)]
    asks_older = rng.random() < 0.5  # noqa: PLR2004 - a coin
    told = [f"{who}是{''.join(said(int(digit)) for digit in str(born))}年出生的" for who, born in rng.sample(pair, 2)]
    return _choice(f"{'，'.join(told)}，谁的年纪{'大' if asks_older else '小'}？", a if asks_older else b, [a, b])


def balance(rng: random.Random) -> Draft:
    """What weighs most by how things balance."""
    fruit = rng.sample(("苹果", "梨", "桃子", "橘子", "李子"), 3)
    m, n = rng.sample((2, 3, 4, 5), 2)
    heavy, mid, light = fruit
    text = f"一个{heavy}和{said(m) if m != 2 else '两'}个{mid}一样重，一个{mid}和{said(n) if n != 2 else '两'}个{light}一样重，"  # noqa: PLR2004
    if rng.random() < 0.5:  # noqa: PLR2004 - a coin
        return Draft(text=f"{text}一个{heavy}和几个{light}一样重？", gold=m * n, grader="number")
    return _choice(f"{text}这三样哪个最重？", heavy, fruit)


def divisible(rng: random.Random) -> Draft:
    """Whether a number can be divided."""
    by, n = rng.choice((2, 3, 4, 5, 6, 7, 9)), rng.randint(4, 30)
    off = rng.choice((0, 0, 1, 2))
    value = by * n + min(off, by - 1)
    return _yes_no(f"{said(value)}能被{said(by)}整除吗？", is_so=value % by == 0)


def prime(rng: random.Random) -> Draft:
    """Whether a number is prime."""
    value = rng.choice(
        (11, 13, 17, 19, 21, 23, 27, 29, 31, 33, 37, 39, 41, 43, 49, 51, 53, 57, 61, 63, 67, 77, 87, 91, 97)
    )
    return _yes_no(f"{said(value)}是质数吗？", is_so=all(value % each for each in range(2, value)))


def odd_or_even(rng: random.Random) -> Draft:
    """Odd or even, of a sum or product."""
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    name, value = rng.choice((("加", a + b), ("乘", a * b)))
    text = f"{said(a)}{name}{said(b)}的结果是单数还是双数？"
    forms = ("双数/偶数", "单数/奇数")
    return _choice(text, forms[value % 2], list(forms))


_SYLLOGISMS: tuple[tuple[str, bool], ...] = (
    ("所有的{a}都是{b}，{x}是{a}，那{x}一定是{b}吗？", True),
    ("所有的{a}都是{b}，{x}是{b}，那{x}一定是{a}吗？", False),
    ("有的{a}是{b}，{x}是{a}，那{x}一定是{b}吗？", False),
    ("没有一个{a}是{b}，{x}是{a}，那{x}可能是{b}吗？", False),
    ("所有的{a}都是{b}，{x}不是{b}，那{x}可能是{a}吗？", False),
    ("所有的{a}都是{b}，所有的{b}都是{c}，那所有的{a}都是{c}吗？", True),
    ("所有的{a}都是{b}，那所有的{b}都是{a}，这样说一定对吗？", False),
    ("只要是{a}就是{b}，{x}是{a}，所以{x}是{b}，这样推对吗？", True),
)
_MADE_UP = ("嘟嘟果", "咕噜兽", "叮当草", "毛毛怪", "哈哈鱼", "啦啦虫", "呼呼鸟", "飘飘云")
_PETS = ("皮皮", "球球", "闹闹", "点点", "圆圆")


def syllogism(rng: random.Random) -> Draft:
    """What follows about things that do not exist, so that no knowledge helps."""
    pattern, is_so = rng.choice(_SYLLOGISMS)
    a, b, c = rng.sample(_MADE_UP, 3)
    return _yes_no(pattern.format(a=a, b=b, c=c, x=rng.choice(_PETS)), is_so=is_so)


_CONDITIONS = (
    ("下雨", "地就会湿"),
    ("停电", "灯就会灭"),
    ("他放假", "他就会去爬山"),
    ("水开了", "壶就会叫"),
    ("猫饿了", "它就会叫"),
    ("周末", "他就不上班"),
)


def condition(rng: random.Random) -> Draft:
    """If and only if, or not."""
    cause, effect = rng.choice(_CONDITIONS)
    result = effect.replace("就会", "").replace("就", "")
    patterns = (
        (f"如果{cause}，{effect}，现在{cause}了，那{result}，这样推对吗？", True),
        (f"如果{cause}，{effect}，现在知道{result}，能不能断定一定是因为{cause}？", False),
        (f"如果{cause}，{effect}，现在没有{cause}，能不能断定一定不会{result}？", False),
    )
    text, is_so = rng.choice(patterns)
    return _yes_no(text.replace("了了", "了"), is_so=is_so)


def liar(rng: random.Random) -> Draft:
    """Who did it, when just one or all but one of three tell the truth; only puzzles with one solution."""
    people = rng.sample(NAMES, 3)
    while True:
        statements = [_statement(people, speaker, rng) for speaker in range(3)]
        honest = rng.choice((1, 2))
        guilty = [who for who in range(3) if sum(holds(who) for _, holds in statements) == honest]
        if len(guilty) == 1:
            break
    told = "，".join(f"{people[speaker]}说{words}" for speaker, (words, _) in enumerate(statements))
    text = f"杯子被{'、'.join(people)}里的一个人打破了，{told}，三个人里只有{'一个人说了真话' if honest == 1 else '一个人说了假话'}，是谁打破的？"
    return _choice(text, people[guilty[0]], people)


def _statement(people: list[str], speaker: int, rng: random.Random) -> tuple[str, Callable[[int], bool]]:
    about = rng.randrange(3)
    is_denial = rng.random() < 0.5  # noqa: PLR2004 - a coin
    name = "我" if about == speaker else people[about]
    if is_denial:
        return f"不是{name}", lambda guilty: guilty != about
    return f"是{name}", lambda guilty: guilty == about


def assignment(rng: random.Random) -> Draft:
    """Who has which, by two or three things that are not so."""
    people, pets = rng.sample(NAMES, 3), rng.sample(("猫", "狗", "兔子", "乌龟", "鹦鹉"), 3)
    truth = dict(zip(people, pets, strict=True))
    denials = [(who, pet) for who in people for pet in pets if truth[who] != pet]
    rng.shuffle(denials)
    used: list[tuple[str, str]] = []
    for denial in denials:
        used.append(denial)
        if len(_possible(people, pets, used)) == 1:
            break
    told = "，".join(f"{who}没养{pet}" for who, pet in used)
    pet = rng.choice(pets)
    gold = next(who for who in people if truth[who] == pet)
    return _choice(f"{'、'.join(people)}各养了一样宠物，分别是{'、'.join(pets)}，{told}，{pet}是谁养的？", gold, people)


def _possible(people: list[str], pets: list[str], denials: list[tuple[str, str]]) -> list[tuple[str, ...]]:
    return [
        order
        for order in permutations(pets)
        if all((who, pet) not in denials for who, pet in zip(people, order, strict=True))
    ]


def unit_price(rng: random.Random) -> Draft:
    """Which offer is the cheaper one."""
    a_n, b_n = rng.sample((2, 3, 4, 5, 6), 2)
    a_each, b_each = rng.sample((2, 3, 4, 5), 2)
    text = f"甲店{said(a_n) if a_n != 2 else '两'}瓶水卖{said(a_n * a_each)}块，乙店{said(b_n) if b_n != 2 else '两'}瓶同样的水卖{said(b_n * b_each)}块，哪家店的水更便宜？"  # noqa: PLR2004
    return _choice(text, "甲" if a_each < b_each else "乙", ["甲", "乙"])


def seats(rng: random.Random) -> Draft:
    """Who sits where in a row of three."""
    left, mid, right = people = rng.sample(NAMES, 3)
    facts = rng.choice(
        ((f"{left}在{mid}左边", f"{right}在{mid}右边"), (f"{mid}紧挨着在{left}右边", f"{right}坐在最右边"))
    )
    place, gold = rng.choice((("最左边", left), ("中间", mid)))
    return _choice(f"三个人坐一排，{'，'.join(facts)}，坐在{place}的是谁？", gold, people)


LOGIC = {
    "extreme": (extreme, 8),
    "middle": (middle, 8),
    "finish": (finish, 8),
    "sorted-numbers": (sorted_numbers, 8),
    "larger-decimal": (larger_decimal, 8),
    "larger-fraction": (larger_fraction, 8),
    "older": (older, 8),
    "balance": (balance, 8),
    "divisible": (divisible, 8),
    "prime": (prime, 8),
    "odd-or-even": (odd_or_even, 8),
    "syllogism": (syllogism, 8),
    "condition": (condition, 8),
    "liar": (liar, 8),
    "assignment": (assignment, 8),
    "unit-price": (unit_price, 8),
    "seats": (seats, 8),
}
"""Group, what makes a draft of it, and how many there are."""
