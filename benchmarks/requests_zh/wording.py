"""What an answer claims: negations, corrections, either-or and conclusions in Chinese; pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

_CORRECTION = re.compile("(?:哦不|不对|不好意思|抱歉我说错了|说错了|更正一下|更正)[,，。:：!]")
_CONCLUSION = re.compile("答案(?:应该)?(?:就?是|为|:)|结果(?:就?是|为|:)|所以|因此|综上|由此可见|可见|也就是说|总之")
_NEGATED = re.compile(
    "(?:不是|并非|不叫|不属于|而非|不在|不会是|不可能是|不等于|不能是|不应该是|不应是|不要选|排除|除了|不包括|别把|不像|没有|误以为是?|混淆|不选|区别于|不同于|不为|不)"
    "(?:[“\"'‘《(了是]|什么|在|一[个种])*$"
)
_EITHER = re.compile("(?:或者|或|还是|要么|要不|也可能是?|也许是?|又可能是?)(?:是|在|叫)?[“\"'‘《]*$")
_OR = re.compile("[”\"'’》]*[,，]?(?:或者|或|还是|要么|也可能|也许)(?!说|称|叫|者说|多|少)")
_CLAUSE = re.compile("[^,。!?;]+[,。!?;]*")
_ECHO_CHARACTERS = 6
"""Shorter clauses may be an answer out of the question's words: 四分之三, 星期三."""
_SPACE = re.compile(r"(?<=[^a-z0-9 ])\s+|\s+(?=[^a-z0-9 ])")
_MARKS = str.maketrans("", "", "*_`#~")


def normal(text: str) -> str:
    """Return ``text`` NFKC, in lower case, without Markdown and without spaces beside Chinese."""
    text = unicodedata.normalize("NFKC", text).lower().translate(_MARKS)
    return _SPACE.sub("", text.replace("\\", "")).strip()


def final(text: str) -> str:
    """Return what stands after the last correction of oneself, all of it without one."""
    parts = [part for part in _CORRECTION.split(text) if part.strip()]
    return parts[-1] if len(parts) > 1 else text


def conclusion(text: str) -> str:
    """Return what follows the last word of concluding, "" when there is none."""
    found = list(_CONCLUSION.finditer(text))
    return text[found[-1].end() :].strip(" ,，:：") if found else ""


def parts(text: str) -> Iterator[str]:
    """Yield where a claim is looked for, the likeliest place first: the conclusion, what precedes the reasons, all of it."""
    yield conclusion(text)
    yield re.split("因为|由于", text, maxsplit=1)[0]
    yield text


def without_echo(text: str, question: str) -> str:
    """Return normalized ``text`` without clauses that only say the normalized ``question`` again.

    A clause that the question ends by asking about ("…是闰年吗") stays: said alone it is a claim.
    """
    asked = _bare(question)
    if _is_echo(_bare(text), asked):
        return ""
    kept = [clause for clause in _CLAUSE.findall(text) if not _is_echo(_bare(clause), asked)]
    return "".join(kept)


def _is_echo(clause: str, asked: str) -> bool:
    place = asked.find(clause)
    if len(clause) < _ECHO_CHARACTERS or place < 0:
        return False
    return re.match("对?吗", asked[place + len(clause) :]) is None


def _bare(text: str) -> str:
    return re.sub(r"\W", "", text)


def mentions(text: str, forms: Iterable[str]) -> list[tuple[int, int]]:
    """Return start and end of each form in ``text``, in order; Latin ones only as whole words."""
    found = {(match.start(), match.end()) for form in forms for match in re.finditer(_pattern(normal(form)), text)}
    return sorted(found)


def asserted(text: str, forms: Iterable[str]) -> list[tuple[int, int]]:
    """Return the mentions that are not negated."""
    return [(start, end) for start, end in mentions(text, forms) if not is_negated(text, start)]


def is_negated(text: str, start: int) -> bool:
    """Tell whether the words right before ``start`` deny what follows."""
    return _NEGATED.search(text[max(start - 14, 0) : start]) is not None


def is_either_or(text: str, start: int, end: int) -> bool:
    """Tell whether what stands there is offered beside another answer."""
    return _EITHER.search(text[max(start - 8, 0) : start]) is not None or _OR.match(text, end) is not None


def _pattern(form: str) -> str:
    escaped = re.escape(form)
    return rf"(?<![a-z0-9]){escaped}(?![a-z0-9])" if form.isascii() else escaped
