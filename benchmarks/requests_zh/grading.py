"""An answer and what a right one says, into right or wrong; pure.

An answer is a small model's spoken one or two sentences. A grader looks for what the answer claims in the end: corrections of
oneself, negations ("不是巴黎") and either-or ("三或者四") count as what they are; a lone guess ("大概是巴黎") counts as claimed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from benchmarks.requests_zh.numerals import Found, numbers_in, value_of
from benchmarks.requests_zh.request import Grader, Request
from benchmarks.requests_zh.wording import (
    asserted,
    conclusion,
    final,
    is_either_or,
    is_negated,
    mentions,
    normal,
    parts,
    without_echo,
)

_NEAR = 1e-6
_HALF_DAY_MINUTES = 720
_REFUSED = re.compile("不太?明白|不太?清楚|不知道|没听懂")
_NUMERAL = "[零〇一二两三四五六七八九十\\d]+"
_SIDE = re.compile("便宜|省|优惠|减少|增加|多了|少了|原价|原来|其中|包括|本来|剩余时间|之前|大约需要每")
_EQUALS = re.compile("=|等于|得到|得出|约为|总共是|一共是")
_JOINED = re.compile(r"\s*(?:[个块元岁天]|分钟|小时)?(?:或者?|还是|、|到|至|-|~|—)\s*$")


def is_right(request: Request, answer: str) -> bool:
    """Tell whether ``answer`` is right; raise ValueError for a request that cannot be checked."""
    if request.grader is None or request.gold is None:
        raise ValueError(f"{request.id} has no gold answer")
    claim = _REFUSED.sub("", final(normal(answer)))
    if request.grader != "text":  # its gold stands in no question but those that want a sentence said again
        claim = without_echo(claim, normal(request.text))
    return _GRADERS[request.grader](request, claim)


def number(request: Request, answer: str) -> bool:
    """Right when the number claimed in the end is the gold one, in the wanted unit."""
    gold = _number_gold(request)
    claimed = claimed_numbers(answer, normal(request.text), request.unit)
    return bool(claimed) and all(_is_near(value, gold, request) for value in claimed)


def claimed_numbers(answer: str, question: str, unit: str) -> list[float]:
    """Return the number that normalized ``answer`` claims, two of an either-or, none when it has none.

    In this order: after the last word of concluding, or all of it when no number stands there; in that after the last "=" or 等于;
    else the last one that is no aside (便宜了…) and no number of the question, as far as one is left.
    """
    for part in parts(answer):
        found = [each for each in folded(numbers_in(part), part, unit) if not is_negated(part, each.start)]
        found = [each for each in found if not each.is_weak] or found
        if unit == "年":
            found = [each for each in found if part.startswith("年", each.end)] or found
        if found:
            return _last_claim(found, part, question, unit)
    return []


def _last_claim(found: list[Found], part: str, question: str, unit: str) -> list[float]:
    equals = list(_EQUALS.finditer(part))
    after = [each for each in found if equals and each.start >= equals[-1].end()]
    if after:
        return [after[0].value]
    asked = {each.value for each in folded(numbers_in(question), question, unit)}
    kept = [each for each in found if not _is_aside(part, each.start, question)] or found
    kept = [each for each in kept if each.value not in asked] or kept
    last = kept[-1]
    before = [each for each in found if each.end <= last.start and _JOINED.fullmatch(part[each.end : last.start])]
    return [each.value for each in (*before[-1:], last)]


def _is_aside(part: str, start: int, question: str) -> bool:
    side = list(_SIDE.finditer(part, max(start - 6, 0), start))
    return bool(side) and side[-1][0] not in question


def folded(found: list[Found], text_: str, unit: str) -> list[Found]:
    """Return the numbers with amounts of two units made one, in ``unit``: 3块5 is 3.5 元, 1小时20分 80 分钟."""
    if unit not in _UNITS:
        return found
    larger, smaller = _UNITS[unit]
    result: list[Found] = []
    open_end = -1
    for each in found:
        rest = text_[each.end :]
        big, small = re.match(larger[0], rest), re.match(smaller[0], rest)
        if each.start == open_end and not big and (small or (unit == "元" and each.value < _TENTHS)):
            whole = result.pop()
            result.append(Found(value=whole.value + each.value * smaller[1], start=whole.start, end=each.end))
            continue
        scale = larger[1] if big else smaller[1] if small else 1.0
        result.append(Found(value=each.value * scale, start=each.start, end=each.end, is_weak=each.is_weak))
        open_end = each.end + big.end() if big else -1
    return result


_TENTHS = 10
"""A digit alone behind 块 counts 毛: 3块5."""
_UNITS = {
    "元": (("(?:元|块钱?|圆)又?", 1.0), ("角|毛", 0.1)),
    "分钟": (("(?:个?小时|个?钟头)又?", 60.0), ("分", 1.0)),
    "小时": (("(?:个?小时|个?钟头)又?", 1.0), ("分", 1 / 60)),
}
"""For each wanted unit a larger and a smaller one and how many of the wanted one they are."""


def _number_gold(request: Request) -> float:
    if not isinstance(request.gold, float | int):
        raise TypeError(f"{request.id}: the gold answer of a number must be one")
    return float(request.gold)


def _is_near(value: float, gold: float, request: Request) -> bool:
    tolerance = request.tolerance + _NEAR * max(1.0, abs(gold))
    return abs(value - gold) <= tolerance


def text(request: Request, answer: str) -> bool:
    """Right when an accepted form is claimed and not one of two."""
    return any(not is_either_or(answer, *place) for place in asserted(answer, _forms(request)))


_YES = re.compile("(?:嗯,?)?(?:是的?|对的?|没错|正确|可以|能|会|有|属于|当然|确实|肯定)(?!不|没|否|于)")
_NO = re.compile("(?:嗯,?|哦,?)?(?:不|没(?!错)|否|错|并非|并不)")
_DENIED = re.compile(
    "否定的|不对|不正确|错误|错的|不成立|不是|不能|不可以|不会|没有|不属于|不一定|无法|并非|不可能|不算|不该|不应"
)
_AFFIRMED = re.compile("肯定的|正确|没错|是|能|会|可以|属于|有|成立|对")


def yes_no(request: Request, answer: str) -> bool:
    """Right when the verdict is the gold one: by the first word, else by what is said; further golds are telling phrases."""
    gold, *telling = _forms(request)
    part = conclusion(answer) or answer
    opening = part.lstrip(',，。 "“”')
    if _NO.match(opening):
        return gold == "no"
    if _YES.match(opening):
        return gold == "yes"
    if asserted(part, telling):
        return True
    if _DENIED.search(part):
        return gold == "no"
    return gold == "yes" and _AFFIRMED.search(part) is not None


def choice(request: Request, answer: str) -> bool:
    """Right when of the options in the question the claim names the gold one first, and not as one of two: "铁比棉花重"."""
    options = [forms.split("/") for forms in (_forms(request)[0], *request.rivals)]
    asked = re.findall("最.", normal(request.text))
    for part in parts(answer):
        claim = _without_echo(_about(part, asked[-1]) if asked else part, options)
        named = _named(claim, options)
        if named:
            start, end, option = named[0]
            is_alone = len({each[2] for each in named}) == 1
            return option == 0 and (is_alone or not is_either_or(claim, start, end))
    return False


def _about(part: str, quality: str) -> str:
    """Return the last clause of ``part`` about the superlative asked for, all of it without one."""
    clauses = [clause for clause in re.split("[,。;!?]", part) if quality in clause]
    return clauses[-1] if clauses else part


_LESS = re.compile("[”\"'’]?(?:没有|不如|没|比不上|不及)")


def _named(claim: str, options: list[list[str]]) -> list[tuple[int, int, int]]:
    """Return start, end and option of every mention that is claimed, in order; of two that overlap the longer one."""
    found = [
        (start, end, option)
        for option, forms in enumerate(options)
        for start, end in asserted(claim, forms)
        if not _LESS.match(claim, end)
    ]
    return sorted(
        each
        for each in found
        if not any(o[0] <= each[0] and each[1] <= o[1] and o[1] - o[0] > each[1] - each[0] for o in found)
    )


def _without_echo(part: str, options: list[list[str]]) -> str:
    """Return ``part`` without the question's options said again: 铁和棉花相比, 在猫和狗中, 一斤铁和一斤棉花一样重."""
    names = "|".join(sorted((re.escape(normal(form)) for forms in options for form in forms), key=len, reverse=True))
    behind = "相比|比较|之间|之中|当中|中|里|这[两三四]|都是|,|(?=一样|同样|都|的重量|的长度)"
    echo = rf"(?:在|比较|关于)?(?:{names})(?:(?:和|与|跟|还是|、|以及).{{0,4}}?(?:{names}))+(?:{behind})"
    less = rf"(?:{names}){_LESS.pattern}(?=[一两]?.?(?:{names}))"
    return re.sub(less, "", re.sub(echo, "", part))


def category(request: Request, answer: str) -> bool:
    """Right when the last class claimed is the gold one; classes the question names count only when nothing else is said."""
    options = {"gold": _forms(request), **{str(index): [rival] for index, rival in enumerate(request.rivals)}}
    question = normal(request.text)
    for part in parts(answer):
        places = [
            (start, end, name)
            for name, forms in options.items()
            for start, end in asserted(part, [form for given in forms for form in given.split("/")])
        ]
        places = [place for place in places if question.find(part[place[0] : place[1]]) < 0] or places
        if places:
            start, end, name = max(places)
            return name == "gold" and not is_either_or(part, start, end)
    return False


def order(request: Request, answer: str) -> bool:
    """Right when the items are claimed in the gold order, each by its first mention after the last 是, else in the conclusion or all of it."""
    items = [form.split("/") for form in _forms(request)]
    for part in (re.split("[:是为]", answer)[-1], *parts(answer)):
        places = [[place for place in mentions(part, forms) if not _is_inside_numeral(part, *place)] for forms in items]
        if all(places):
            firsts = [place[0][0] for place in places]
            return firsts == sorted(set(firsts))
    return False


def _is_inside_numeral(part: str, start: int, end: int) -> bool:
    """Tell whether a numeral of two characters or more is a piece of a longer one: 十一 in 四十一."""
    if end - start == 1 or not re.fullmatch(_NUMERAL, part[start:end]):
        return False
    return re.match(_NUMERAL, part[max(start - 1, 0) : start]) is not None or re.match(_NUMERAL, part[end:]) is not None


_CLOCK = re.compile(
    rf"(?P<to>差(?P<less>{_NUMERAL}|一刻)分?钟?)?(?P<hour>{_NUMERAL})(?:点钟?|时|:)(?:(?P<half>半)|(?P<quarter>[一三])刻|过?"
    rf"(?P<minute>{_NUMERAL})分?|差(?P<less2>{_NUMERAL})分)?"
)


def clock(request: Request, answer: str) -> bool:
    """Right when the last time of day claimed is the gold one ("15:40"), morning and afternoon alike."""
    gold = clocks_in(_forms(request)[0])[-1]
    for part in parts(answer):
        if times := clocks_in(part):
            return times[-1] == gold
    return False


def clocks_in(text_: str) -> list[int]:
    """Return the times of day in normalized text as minutes within twelve hours."""
    found = []
    for match in _CLOCK.finditer(text_):
        hour, minute = value_of(match["hour"]), value_of(match["minute"] or "0")
        if match["half"] or match["quarter"]:
            minute = 30 if match["half"] else 15 * value_of(match["quarter"])
        less = match["less"] or match["less2"] or "0"
        minute -= 15 if less == "一刻" else value_of(less)
        found.append(int(hour * 60 + minute) % _HALF_DAY_MINUTES)
    return found


_DATE = re.compile(
    rf"(?P<month>{_NUMERAL}|正|腊|冬)月初?(?P<day>{_NUMERAL})|(?<!\d)(?P<m>\d{{1,2}})[-/](?P<d>\d{{1,2}})(?!\d)"
)
_MONTHS = {"正": 1.0, "腊": 12.0, "冬": 11.0}


def date(request: Request, answer: str) -> bool:
    """Right when the first date claimed is the gold one ("10-1")."""
    month, day = (float(part) for part in _forms(request)[0].split("-"))
    for part in parts(answer):
        dates = [_date_of(match) for match in _DATE.finditer(part) if not is_negated(part, match.start())]
        if dates:
            return dates[0] == (month, day)
    return False


def _date_of(match: re.Match[str]) -> tuple[float, float]:
    if match["m"]:
        return float(match["m"]), float(match["d"])
    month = match["month"]
    return _MONTHS.get(month) or value_of(month), value_of(match["day"])


def _forms(request: Request) -> list[str]:
    if not isinstance(request.gold, tuple):
        raise TypeError(f"{request.id}: the gold answer must be a list of accepted forms")
    return list(request.gold)


_GRADERS: Mapping[Grader, Callable[[Request, str], bool]] = {
    "number": number,
    "text": text,
    "yes-no": yes_no,
    "choice": choice,
    "category": category,
    "order": order,
    "clock": clock,
    "date": date,
}
