"""Counting puzzles: queues, sets, sequences, characters, combinations, directions; answers computed here."""

from __future__ import annotations

import random

from benchmarks.requests_zh.request import Draft
from benchmarks.requests_zh.speech import counted, said

_SENTENCES = (
    "今天天气真好", "我爱吃西瓜", "小猫在睡觉", "春天来了花开了", "我们一起去公园玩", "妈妈做的饭很香", "月亮像一条小船", "爷爷喜欢下象棋",
    "下雨了记得带伞", "他跑得比我快", "窗外有两只小鸟", "明天早上七点起床", "冬天的早晨很冷", "书包里有三本书", "大海是蓝色的",
)  # fmt: skip
_WORDS = (
    "banana",
    "apple",
    "strawberry",
    "coffee",
    "mississippi",
    "butterfly",
    "elephant",
    "balloon",
    "tomorrow",
    "address",
    "success",
    "engineer",
)
_PHRASES = (
    "天下无双",
    "春风得意",
    "风和日丽",
    "万里长城",
    "五谷丰登",
    "鹏程万里",
    "青山绿水",
    "雪中送炭",
    "百花齐放",
    "水到渠成",
    "山清水秀",
    "心想事成",
)
_ODD = 0.5


def _number(text: str, gold: float, *, is_verbatim: bool = False) -> Draft:
    return Draft(text=text, gold=gold, grader="number", is_verbatim=is_verbatim)


def queue_total(rng: random.Random) -> Draft:
    """A queue from both sides of one person."""
    front, back = rng.randint(2, 15), rng.randint(2, 15)
    if rng.random() < _ODD:
        return _number(
            f"排队的时候我前面有{counted(front, '个')}人，后面有{counted(back, '个')}人，这队一共几个人？",
            front + back + 1,
        )
    return _number(f"从前面数我排第{said(front)}，从后面数我排第{said(back)}，这一队一共多少人？", front + back - 1)


def queue_between(rng: random.Random) -> Draft:
    """People between two places."""
    a, gap = rng.randint(2, 8), rng.randint(3, 12)
    return _number(f"小红排第{said(a)}，小刚排第{said(a + gap)}，他们中间隔了几个人？", gap - 1)


def sets(rng: random.Random) -> Draft:
    """Two overlapping sets."""
    both, only_a, only_b = rng.randint(2, 9), rng.randint(3, 14), rng.randint(3, 14)
    text = f"班里会游泳的有{said(both + only_a)}人，会骑车的有{said(both + only_b)}人，两样都会的有{counted(both, '人')}，每人至少会一样，全班多少人？"
    return _number(text, both + only_a + only_b)


def sequence(rng: random.Random) -> Draft:
    """The next number of a series."""
    a, step = rng.randint(1, 9), rng.randint(2, 9)
    kind = rng.randrange(5)
    if kind == 0:
        terms = [a + step * n for n in range(6)]
    elif kind == 1:
        terms = [a * 2**n for n in range(6)]
    elif kind == 2:  # noqa: PLR2004 - one of five kinds
        terms = [(a + n) ** 2 for n in range(6)]
    elif kind == 3:  # noqa: PLR2004
        terms = [a + n * (n + 1) // 2 for n in range(6)]
    else:
        terms = [a, a + step]
        terms += [terms[0] + terms[1], terms[0] + 2 * terms[1]]
        terms += [terms[2] + terms[3], terms[2] + 2 * terms[3]]
    return _number(f"找规律，{'、'.join(said(term) for term in terms[:5])}，下一个数是几？", terms[5])


def characters(rng: random.Random) -> Draft:
    """How many characters a sentence has."""
    sentence = rng.choice(_SENTENCES)
    return _number(f"“{sentence}”这句话一共有几个字？", len(sentence), is_verbatim=True)


def letters(rng: random.Random) -> Draft:
    """How often a letter stands in a word."""
    word = rng.choice(_WORDS)
    letter = rng.choice(sorted({each for each in word if word.count(each) > 1}))
    return _number(f"英语单词{word}里面有几个字母{letter}？", word.count(letter), is_verbatim=True)


def nth_character(rng: random.Random) -> Draft:
    """One character of a phrase by its place."""
    phrase, place = rng.choice(_PHRASES), rng.randint(2, 4)
    ask = f"{phrase}这四个字里，第{said(place)}个字是哪个字？"
    gold = phrase[place - 1]
    return Draft(text=ask, gold=(gold,), grader="category", rivals=tuple(each for each in phrase if each != gold))


def digits_reversed(rng: random.Random) -> Draft:
    """A number read backwards."""
    n = int("".join(str(digit) for digit in rng.sample(range(1, 10), rng.randint(3, 4))))
    return _number(f"把{said(n)}这个数的数字倒过来是多少？", int(str(n)[::-1]))


def digit_sum(rng: random.Random) -> Draft:
    """The digits of a number added up."""
    n = rng.randint(123, 9876)
    return _number(f"{said(n)}这个数每一位上的数字加起来是几？", sum(int(digit) for digit in str(n)))


def legs(rng: random.Random) -> Draft:
    """Legs of a mixed yard."""
    animals = (("猫", "只", 4), ("鸡", "只", 2), ("鸭子", "只", 2), ("狗", "条", 4), ("牛", "头", 4), ("兔子", "只", 4))
    (a, a_measure, a_legs), (b, b_measure, b_legs) = rng.sample(animals, 2)
    m, n = rng.randint(2, 6), rng.randint(2, 7)
    return _number(
        f"院子里有{counted(m, a_measure)}{a}和{counted(n, b_measure)}{b}，一共几条腿？", m * a_legs + n * b_legs
    )


def socks(rng: random.Random) -> Draft:
    """The pigeonhole principle."""
    colours, pairs = rng.randint(2, 6), rng.choice((4, 5, 6, 8, 10))
    return _number(
        f"抽屉里有{counted(colours, '种')}颜色的袜子，每种{said(pairs)}只，闭着眼睛拿，至少拿几只一定有两只同色？",
        colours + 1,
    )


def handshakes(rng: random.Random) -> Draft:
    """Everyone with everyone."""
    n = rng.randint(3, 10)
    what = rng.choice(("{}个人见面，每两个人握一次手，一共握几次？", "{}支球队，每两队踢一场，一共踢几场？"))
    return _number(what.format(said(n)), n * (n - 1) / 2)


def knockout(rng: random.Random) -> Draft:
    """Matches until one is left."""
    n = rng.choice((8, 12, 16, 20, 24, 32, 50, 64))
    return _number(f"{said(n)}个选手打淘汰赛，输一场就走人，决出冠军一共要打几场？", n - 1)


def outfits(rng: random.Random) -> Draft:
    """Products of choices."""
    a, b, c = rng.randint(2, 6), rng.randint(2, 6), rng.choice((1, 1, 2, 3))
    more = f"，{counted(c, '双')}鞋" if c > 1 else ""
    return _number(f"我有{counted(a, '件')}上衣，{counted(b, '条')}裤子{more}，每样穿一件，一共有几种搭配？", a * b * c)


def overtaken(rng: random.Random) -> Draft:
    """The place after overtaking."""
    place = rng.randint(2, 9)
    if rng.random() < _ODD:
        return _number(f"跑步比赛里我超过了第{said(place)}名，我现在是第几名？", place)
    more = rng.randint(1, 3)
    return _number(f"我跑在第{said(place + more)}名，又超过了{counted(more, '个')}人，现在第几名？", place)


_COMPASS = ("北", "东", "南", "西")


def _direction(text: str, index: int) -> Draft:
    gold = _COMPASS[index % 4]
    return Draft(text=text, gold=(gold,), grader="category", rivals=tuple(each for each in _COMPASS if each != gold))


def turning(rng: random.Random) -> Draft:
    """Where one looks after some turns."""
    start = facing = rng.randrange(4)
    turns = [rng.choice((("左", -1), ("右", 1), ("后", 2))) for _ in range(rng.randint(2, 3))]
    facing += sum(turn for _, turn in turns)
    told = "，再".join(f"向{name}转" for name, _ in turns)
    if facing % 4 == start:
        return turning(rng)
    return _direction(f"我面朝{_COMPASS[start]}站着，{told}，现在面朝哪个方向？", facing)


def beside(rng: random.Random) -> Draft:
    """Which direction is at one's hand."""
    facing = rng.randrange(4)
    name, turn = rng.choice((("左手边", -1), ("右手边", 1), ("背后", 2)))
    return _direction(
        f"{rng.choice(('早上', '晚上', '现在', '中午'))}我脸朝{_COMPASS[facing]}，我的{name}是什么方向？", facing + turn
    )


PUZZLES = {
    "queue-total": (queue_total, 8),
    "queue-between": (queue_between, 8),
    "sets": (sets, 8),
    "sequence": (sequence, 8),
    "characters": (characters, 8),
    "letters": (letters, 8),
    "nth-character": (nth_character, 8),
    "digits-reversed": (digits_reversed, 8),
    "digit-sum": (digit_sum, 8),
    "legs": (legs, 8),
    "socks": (socks, 8),
    "handshakes": (handshakes, 8),
    "knockout": (knockout, 8),
    "outfits": (outfits, 8),
    "overtaken": (overtaken, 8),
    "turning": (turning, 8),
    "beside": (beside, 8),
}
"""Group, what makes a draft of it, and how many there are."""
