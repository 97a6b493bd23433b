"""An English question into the one form that all its wordings share; pure. It knows far fewer wordings than the Chinese one."""

from __future__ import annotations

import re

_RULES = tuple(
    (re.compile(pattern), change)
    for pattern, change in (
        (r"\b(what|who|where|why|how|when|that|there|it) s\b", r"\1 is"),
        (r"\bcan t\b", "can not"),
        (r"\bwon t\b", "will not"),
        (r"\b(is|are|was|were|do|does|did|has|have|had|could|should|would)n t\b", r"\1 not"),
        (r"^(?:hey|hi|hello|ok|okay|well|so|um|please|kindly)\b ", ""),
        (
            r"^(?:(?:can|could|would) (?:you|someone|anyone) )?(?:please )?(?:tell(?: me| us)?|do you know) (?=who|what|why|how|which|where)",
            "",
        ),
        (r"^(?:(?:can|could|would) (?:you|someone|anyone) )?(?:please )?explain (?=who|what|why|how|which|where)", ""),
        (r"^(?:(?:can|could|would) (?:you|someone) )?(?:please )?(?:explain|define) ", "what is "),
        (r" (?:please|thanks|thank you)$", ""),
        (r"^how (?:do|can|should) (?:i|you|we|one) ", "how to "),
        (r"^what does (.+) mean$", r"what is \1"),
        (r"^what is (?:the )?meaning of (.+)$", r"what is \1"),
        (r"^what is (\w+) s (\w+)$", r"what is the \2 of \1"),
        (r"^why is it that (.+)$", r"why \1"),
        (r"^how many (\w+) are there in ", r"how many \1 are in "),
        (r"^how many (\w+) does (.+) have$", r"how many \1 are in \2"),
        (r"^in (.+?) how many (\w+) are there$", r"how many \2 are in \1"),
        (r"^(?:which|what) city is (the capital of .+)$", r"what is \1"),
        (r"^how (?:tall|high) is ((?:mount|mt) .+)$", r"what is the height of \1"),
        (r"^who (?:was|is) the inventor of (.+)$", r"who invented \1"),
    )
)


def form_of_english(text: str) -> str:
    """Return the form of normalised English ``text``; equal forms mean the same."""
    before = ""
    while before != text:
        before = text
        for pattern, change in _RULES:
            text = pattern.sub(change, text)
    return text
