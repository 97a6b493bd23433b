"""The cold-start score: how complex a prompt looks, in [0, 1], from its length, its words and its dialogue.

The formula is the one the project began with: three factors, their mean, cut at 1, compared with 0.7. Only the mean is cut, so one
factor may carry a prompt over the threshold alone. What differs from that sketch: Chinese has no spaces, so length counts each
Chinese character and each Latin word or number as one unit instead of ``split()``.
"""

from __future__ import annotations

import re
from itertools import islice

from models.prompts import Prompt

THRESHOLD = 0.7
"""Score from which the cloud is asked; the seed value, measured to be too high for exam questions and fine for spoken ones."""
UNITS_PER_POINT = 50
"""A question of so many characters or words has a length factor of 1 (seed value)."""
KEYWORD_WEIGHT = 0.5
"""Two distinct words of thinking make a keyword factor of 1. A guess, until routing is learned."""
TURN_WEIGHT = 0.05
"""Each earlier exchange of the dialogue adds this much to the context factor. A guess."""
REFERENCE_WEIGHT = 0.3
"""Added to the context factor when the question points back into the dialogue. A guess."""

_LONG_ENOUGH = 3 * UNITS_PER_POINT
_UNIT = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+(?:['’.-][^\W_\u3400-\u9fff]+)*")
_KEYWORDS = re.compile(
    "分析|比较|对比|为什么|原因|推理|证明|推导|计算|详细|步骤|一步一步|规划|计划|方案|设计|总结|解释|评价|利弊|优缺点|优点|缺点|区别|影响"
    "|论述|举例|权衡|假设|写一[篇首个封]|代码|算法|翻译|原理"
    r"|\banaly[sz]e\b|\bcompare\b|\bcontrast\b|\bwhy\b|\breasons?\b|\bprove\b|\bderive\b|\bcalculate\b|\bin detail\b|\bsteps?\b|\bstep by step\b"
    r"|\bplan\b|\bdesign\b|\bsummari[sz]e\b|\bexplain\b|\bevaluate\b|\bpros and cons\b|\badvantages?\b|\bdisadvantages?\b|\bdifferences?\b"
    r"|\bimpact\b|\bexamples?\b|\btrade-?offs?\b|\bsuppose\b|\bwrite an?\b|\bcode\b|\balgorithm\b|\btranslate\b|\bprinciples?\b",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"它|他们|她们|这个|那个|刚才|上面|前面|继续|\b(?:it|that|those|these|them|continue|previous|above)\b",
    re.IGNORECASE,
)


def units(text: str) -> int:
    """Return the length of ``text`` in Chinese characters plus Latin words and numbers."""
    return sum(1 for _ in _UNIT.finditer(text))


def keywords(text: str) -> set[str]:
    """Return the distinct words of thinking found in ``text``, lower-cased."""
    return {found.group().lower() for found in _KEYWORDS.finditer(text)}


def complexity(prompt: Prompt) -> float:
    """Return the score of the prompt's question in [0, 1]."""
    question = prompt.question
    count = sum(1 for _ in islice(_UNIT.finditer(question), _LONG_ENOUGH))
    if count == _LONG_ENOUGH:  # its length alone makes the score 1
        return 1.0
    earlier = sum(1 for message in prompt.messages if message.role == "user") - 1
    length = count / UNITS_PER_POINT
    words = len(keywords(question)) * KEYWORD_WEIGHT
    refers_back = earlier > 0 and _REFERENCE.search(question) is not None
    context = max(earlier, 0) * TURN_WEIGHT + (REFERENCE_WEIGHT if refers_back else 0.0)
    return min((length + words + context) / 3, 1.0)
