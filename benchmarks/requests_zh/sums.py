"""Arithmetic as it is asked aloud, from 3加5 to percentages, with results computed here."""

from __future__ import annotations

import random

from benchmarks.requests_zh.request import Draft
from benchmarks.requests_zh.speech import counted, said

_ASKED = ("{}等于多少？", "{}等于几？", "{}是多少？", "帮我算一下{}", "{}得多少？", "算算{}等于多少")


def _asked(rng: random.Random, sum_: str, gold: float, tolerance: float = 0.0) -> Draft:
    return Draft(text=rng.choice(_ASKED).format(sum_), gold=gold, grader="number", tolerance=tolerance)


def add_small(rng: random.Random) -> Draft:
    """Two digits."""
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return _asked(rng, f"{said(a)}加{said(b)}", a + b)


def subtract_small(rng: random.Random) -> Draft:
    """A difference below twenty."""
    a, b = rng.randint(6, 18), rng.randint(1, 5)
    return _asked(rng, f"{said(a)}减{said(b)}", a - b)


def next_number(rng: random.Random) -> Draft:
    """The number before or after one."""
    a, (name, step) = rng.randint(3, 98), rng.choice((("后面", 1), ("前面", -1)))
    return Draft(text=f"数数的时候，{said(a)}{name}那个数是几？", gold=a + step, grader="number")


def round_sum(rng: random.Random) -> Draft:
    """Round tens and hundreds, added or taken away."""
    unit = rng.choice((10, 100))
    a, b = rng.randint(5, 9) * unit, rng.randint(1, 4) * unit
    name, gold = rng.choice((("加", a + b), ("减", a - b)))
    return _asked(rng, f"{said(a)}{name}{said(b)}", gold)


def times_ten(rng: random.Random) -> Draft:
    """A number by ten or a hundred."""
    a, b = rng.randint(3, 60), rng.choice((10, 10, 100))
    return _asked(rng, f"{said(a)}乘{said(b)}", a * b)


def few_things(rng: random.Random) -> Draft:
    """A handful of things, some more or fewer."""
    a, b = rng.randint(4, 9), rng.randint(1, 3)
    what = rng.choice(("个苹果", "颗糖", "只小鸭子", "块积木", "朵花"))
    told, gold = rng.choice(((f"又来了{counted(b, what[0])}", a + b), (f"拿走了{counted(b, what[0])}", a - b)))
    return Draft(text=f"这里有{counted(a, what)}，{told}，现在有几{what[0]}？", gold=gold, grader="number")


def larger(rng: random.Random) -> Draft:
    """The larger of two whole numbers."""
    a, b = rng.sample(range(11, 999), 2)
    forms = tuple(f"{said(each)}/{each}" for each in (max(a, b), min(a, b)))
    return Draft(text=f"{said(a)}和{said(b)}哪个数大？", gold=(forms[0],), grader="choice", rivals=(forms[1],))


def add_tens(rng: random.Random) -> Draft:
    """Two numbers below a hundred."""
    a, b = rng.randint(13, 89), rng.randint(13, 89)
    return _asked(rng, f"{said(a)}加{said(b)}", a + b)


def add_hundreds(rng: random.Random) -> Draft:
    """Two numbers below a thousand."""
    a, b = rng.randint(112, 879), rng.randint(112, 879)
    return _asked(rng, f"{said(a)}加{said(b)}", a + b)


def add_three(rng: random.Random) -> Draft:
    """Three numbers below a hundred."""
    a, b, c = (rng.randint(11, 79) for _ in range(3))
    return _asked(rng, f"{said(a)}加{said(b)}再加{said(c)}", a + b + c)


def subtract_tens(rng: random.Random) -> Draft:
    """A difference below a hundred."""
    a, b = rng.randint(41, 99), rng.randint(12, 39)
    return _asked(rng, f"{said(a)}减{said(b)}", a - b)


def subtract_hundreds(rng: random.Random) -> Draft:
    """A difference from a round or crooked number."""
    a, b = rng.choice((500, 1000, rng.randint(520, 990))), rng.randint(123, 487)
    return _asked(rng, f"{said(a)}减去{said(b)}", a - b)


def table(rng: random.Random) -> Draft:
    """The multiplication table."""
    a, b = rng.randint(3, 9), rng.randint(3, 9)
    return _asked(rng, f"{said(a)}乘{said(b)}", a * b)


def multiply_tens(rng: random.Random) -> Draft:
    """Two digits by one."""
    a, b = rng.randint(12, 69), rng.randint(3, 9)
    return _asked(rng, f"{said(a)}乘以{said(b)}", a * b)


def multiply_both(rng: random.Random) -> Draft:
    """Two digits by two."""
    a, b = rng.randint(12, 48), rng.randint(12, 39)
    return _asked(rng, f"{said(a)}乘以{said(b)}", a * b)


def divide(rng: random.Random) -> Draft:
    """A division without remainder."""
    a, b = rng.randint(3, 9), rng.randint(4, 25)
    return _asked(rng, f"{said(a * b)}除以{said(a)}", b)


def remainder(rng: random.Random) -> Draft:
    """What a division leaves."""
    a = rng.randint(3, 9)
    b = a * rng.randint(3, 15) + rng.randint(1, a - 1)
    text = rng.choice(("{}除以{}余几？", "{}除以{}的余数是多少？"))
    return Draft(text=text.format(said(b), said(a)), gold=b % a, grader="number")


def plus_minus(rng: random.Random) -> Draft:
    """Three steps of adding and taking away."""
    a, b, c = rng.randint(30, 99), rng.randint(11, 60), rng.randint(11, 30)
    return _asked(rng, f"{said(a)}加{said(b)}减{said(c)}", a + b - c)


def times_plus(rng: random.Random) -> Draft:
    """A product, then a sum."""
    a, b, c = rng.randint(3, 12), rng.randint(3, 12), rng.randint(5, 60)
    return _asked(rng, f"{said(a)}乘{said(b)}再加{said(c)}", a * b + c)


def bracket(rng: random.Random) -> Draft:
    """A sum first, then a product."""
    a, b, c = rng.randint(3, 20), rng.randint(3, 20), rng.randint(3, 9)
    text = rng.choice(("先算{}加{}，再把结果乘以{}，得多少？", "{}加{}的和乘以{}是多少？"))
    return Draft(text=text.format(said(a), said(b), said(c)), gold=(a + b) * c, grader="number")


def product_first(rng: random.Random) -> Draft:
    """A sum whose second part is a product, to be taken first."""
    a, b, c = rng.randint(5, 40), rng.randint(3, 9), rng.randint(3, 9)
    text = rng.choice(("{}加{}乘{}，先乘后加，等于多少？", "按先乘除后加减，{}加{}乘{}等于几？"))
    return Draft(text=text.format(said(a), said(b), said(c)), gold=a + b * c, grader="number")


def square(rng: random.Random) -> Draft:
    """The square of a number."""
    a = rng.randint(6, 25)
    return _asked(rng, f"{said(a)}的平方", a * a)


def power(rng: random.Random) -> Draft:
    """Small powers."""
    a, n = rng.choice(
        ((2, 5), (2, 6), (2, 7), (2, 8), (2, 10), (3, 3), (3, 4), (4, 3), (5, 3), (6, 3), (10, 4), (5, 4))
    )
    return _asked(rng, f"{said(a)}的{said(n)}次方", a**n)


def root(rng: random.Random) -> Draft:
    """A square root that is whole."""
    a = rng.randint(4, 20)
    return Draft(
        text=rng.choice(("{}的平方根取正的是多少？", "{}开平方等于几？")).format(said(a * a)), gold=a, grader="number"
    )


def percent(rng: random.Random) -> Draft:
    """A percentage of a round number."""
    share, whole = (
        rng.choice((10, 15, 20, 25, 30, 40, 60, 75, 80)),
        rng.choice((40, 60, 80, 120, 200, 260, 300, 500, 1200)),
    )
    return _asked(rng, f"{said(whole)}的百分之{said(share)}", whole * share / 100)


def fraction(rng: random.Random) -> Draft:
    """A fraction of a number."""
    below = rng.randint(3, 8)
    above, whole = rng.randint(1, below - 1), below * rng.randint(4, 20)
    return _asked(rng, f"{said(whole)}的{said(below)}分之{said(above)}", whole * above / below)


def decimals(rng: random.Random) -> Draft:
    """Two decimals added or taken from each other."""
    a, b = rng.randint(21, 99) / 10, rng.randint(11, 20) / 10
    plus = rng.random() < 0.5  # noqa: PLR2004 - a coin
    return _asked(rng, f"{said(a)}{'加' if plus else '减'}{said(b)}", round(a + b if plus else a - b, 1))


def half_or_double(rng: random.Random) -> Draft:
    """Half, twice or three times a number."""
    a = 2 * rng.randint(13, 190)
    name, factor = rng.choice((("一半", 0.5), ("两倍", 2.0), ("三倍", 3.0)))
    return _asked(rng, f"{said(a)}的{name}", a * factor)


def average(rng: random.Random) -> Draft:
    """The mean of three numbers, whole."""
    a, b = rng.randint(60, 99), rng.randint(60, 99)
    c = rng.choice([each for each in range(60, 100) if (a + b + each) % 3 == 0])
    text = rng.choice(("{}、{}和{}的平均数是多少？", "三次考试分别考了{}分、{}分和{}分，平均多少分？"))
    return Draft(text=text.format(said(a), said(b), said(c)), gold=(a + b + c) / 3, grader="number")


def series(rng: random.Random) -> Draft:
    """One to n, added up."""
    n = rng.choice((5, 8, 9, 10, 12, 15, 20, 30, 40, 50, 100))
    text = rng.choice(("从一加到{}总共是多少？", "一加二加三一直加到{}等于多少？"))
    return Draft(text=text.format(said(n)), gold=n * (n + 1) / 2, grader="number")


SUMS = {
    "add-small": (add_small, 18),
    "subtract-small": (subtract_small, 16),
    "next-number": (next_number, 14),
    "round-sum": (round_sum, 14),
    "times-ten": (times_ten, 12),
    "few-things": (few_things, 14),
    "larger-number": (larger, 14),
    "multiplication-table": (table, 18),
    "add-tens": (add_tens, 14),
    "subtract-tens": (subtract_tens, 14),
    "add-hundreds": (add_hundreds, 8),
    "add-three": (add_three, 8),
    "subtract-hundreds": (subtract_hundreds, 8),
    "multiply-tens": (multiply_tens, 10),
    "multiply-both": (multiply_both, 7),
    "divide": (divide, 12),
    "remainder": (remainder, 7),
    "plus-minus": (plus_minus, 8),
    "times-plus": (times_plus, 8),
    "bracket": (bracket, 7),
    "product-first": (product_first, 7),
    "square": (square, 10),
    "power": (power, 8),
    "root": (root, 8),
    "percent": (percent, 8),
    "fraction": (fraction, 8),
    "decimals": (decimals, 8),
    "half-or-double": (half_or_double, 8),
    "average": (average, 6),
    "series": (series, 6),
}
"""Group, what makes a draft of it, and how many there are; more of the easy ones, so that a small model gets some right."""
