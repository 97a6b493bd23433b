"""The text that is scored: folded, without padding, manners and what it claims about itself; pure.

People pad, and some try to talk the router into the other model. Neither changes what they ask, so neither may change the score. The
answering model still gets every word: this text is read by the router only.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 400
"""Of a longer text only the two ends are read, half each, so that the time is bounded; nothing was lost by it on published questions."""

_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]"
)
_EDGES = str.maketrans(
    {
        "。": ".",
        "、": ",",
        "「": '"',
        "」": '"',
        "『": '"',
        "』": '"',
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "【": "[",
        "】": "]",
        "《": '"',
        "》": '"',
        "…": ".",
        "～": "~",
        "—": "-",
        "–": "-",
        "−": "-",
    }
)
_SPACE = re.compile(r"\s+")
_SPACE_BY_CHINESE = re.compile(r"(?<=[\u3400-\u9fff,.?!;:]) (?=[\u3400-\u9fff])|(?<=[\u3400-\u9fff]) (?=[,.?!;:])")
_REPEATED_MARK = re.compile(r"([?!,;~])(?:\s*[?!,.;~])+|\.(?:\s*[?!,;~])+|\.{2,}|-{3,}")
_REPEATED_CHARACTER = re.compile(r"([^\W\d_])\1{3,}")
_TRAILING = re.compile(r"[\s.,!?;~:\-#*@]+$")
_LEADING = re.compile(r"^[\s.,!?;~:]+")

_VERY = r"(?:真的|其实|确实|实在|都|也|太|很|非常|特别|超级|超|十分|极其|挺|好|比较|相当|可|是|不|又|道|个|一)*"
_CLAIM_ZH = (
    r"(?:这|这个|这道|本|此|我的|我这个|下面的?|下面这个|以下|上面的?|注意)*(?:问题|题目|题|任务|请求|对话|事)?(?:对你来说)?"
    rf"{_VERY}(?:简单|容易|复杂|困难|难|小儿科|基础|高深|烧脑)(?:的)?(?:问题|题目|题|任务|请求)?(?:了|啦|啊|哦|吧|得很|极了)?"
)
_ROUTING_ZH = (
    r"(?:请|请你|务必|必须|一定|直接|只|只能|只需|就|帮我|给我)*(?:(?:使?用|交给|转给|转到|发给|发到|路由到|送到|走|让)(?:你们?的?|那个|这个|最)*"
    r"(?:小|大|本地|边缘|云端|云上|云|便宜|最强|强|贵)+(?:的)?(?:模型|端|侧|节点)?(?:来)?(?:回答|处理|就行|就可以|就好|即可)*"
    r"|忽略(?:之前|以上|前面|先前|所有)*(?:的)?(?:路由|指令|规则|设置|提示|要求)+"
    r"|(?:不需要|不用|无需|别|需要)(?:用|走|上|调用)?(?:大模型|云端|小模型|动脑|思考))"
)
_CLAIM_EN = (
    r"(?:(?:note|hint|btw|by the way|trust me|honestly|just)[,:]? )?(?:(?:this|that|it|here|the question|"
    r"this question|this one|the following)(?: is|'s| was)? )"
    r"(?:(?:just|really|very|so|quite|super|extremely|pretty|such|actually|an?|rather) )*(?:simple|easy|trivial|"
    r"basic|hard|complex|difficult|complicated|quick|tough|challenging)"
    r"(?: (?:question|task|problem|one|request|query|for you))*"
    r"|(?:(?:an?|just|very|really|super|quick|another) )*(?:simple|easy|trivial|basic|hard|complex|difficult|"
    r"complicated|quick) (?:question|task|problem|one|request|query)(?: for you)?"
)
_ROUTING_EN = (
    r"(?:please )?(?:ignore|disregard|forget|override) (?:(?:all|any|the|your|previous|prior|above|"
    r"earlier) ?)+(?:routing|instructions?|rules?|prompts?|policy|settings)*(?: rules?| instructions?)?"
    r"|(?:please |just )?(?:(?:route|send|forward|pass|give|escalate)(?: this| it| me)*(?: question)? to|use|"
    r"answer with|reply with|stay on|run on)(?: the| a| your| an)?"
    r" (?:edge|cloud|small(?:est)?|large(?:st)?|big(?:gest)?|local|cheap(?:est)?|best|strong(?:est)?|tiny|"
    r"expensive)(?: (?:model|node|device|llm|tier|one))?(?: only| please)?"
    r"|(?:there is )?no need (?:to think|for (?:the|a) (?:big|large|cloud) model)|(?:complexity|difficulty|"
    r"score|priority|tier|route|gain)\s*[:=]\s*(?:\d+(?:\.\d+)?|low|high|edge|cloud|simple|easy|hard|none|max)"
)
_OPEN, _CLOSE = r"[\s\[\](){}<>\"'*#]*(?:system|系统|note|注|提示)?[:\s]*", r"[\s\[\](){}<>\"'*#]*"
_BODY = f"(?:{_CLAIM_ZH}|{_ROUTING_ZH}|{_CLAIM_EN}|{_ROUTING_EN})"
_CLAIM = re.compile(
    rf"[\[(\"'<{{]\s*(?:system|系统|note|注)?[:\s]*{_BODY}\s*[.!]*\s*[\])\"'>}}][.,?!;:]?"
    rf"|(?:^|(?<=[.,?!;:\n])){_OPEN}{_BODY}{_CLOSE}(?:$|[.,?!;:\n]+|(?=[^\w]))"
)
_CLAIM_RUN_ON = re.compile(
    rf"^(?:这个?问?题?|这道题?){_VERY}(?:简单|容易|复杂|难)(?:的)?(?:问题)?|^(?:{_ROUTING_ZH})|(?:这个?问题|这道题|这){_VERY}(?:简单|容易|复杂)$"
    r"|^(?:this is (?:very |so |really |a |an )*(?:simple|easy|trivial|complex|hard)(?: question| task| problem)?)\b"
    r"|\b(?:this is (?:very |so |really |a |an )*(?:simple|easy|trivial|complex|hard)(?: question| task|"
    r" problem)?)[.! ]*$"
    r"|(?<! a)(?<! an)(?<!is) (?:easy|simple|hard|quick) question[.! ]*$"
)
_CLAIM_WORD = re.compile(
    "简单|容易|复杂|难|基础|小儿科|高深|烧脑|模型|云端|边缘|本地|忽略|动脑|思考|simpl|eas[yi]|trivial|basic|hard|complex|difficult|complicat|"
    "quick|tough|challeng|ignor|disregard|forget|overrid|rout|send|forward|edge|cloud|model|no need|score|"
    "priority|gain"
)

_MANNERS_ZH = re.compile(
    r"请问一下|请问|麻烦你?您?(?:帮我|给我)?(?:一下)?|劳驾|拜托(?:你|您|了)*|不好意思,?|打扰(?:你|您)?(?:一下|了),?|(?:非常|多|十分)?感谢(?:你|您)?|(?:多谢|"
    r"谢谢)(?:你|您|啦|了|哦|大家)*|辛苦(?:你|您)?了|"
    r"(?:你|您)?(?:可以|能不能|能否|能|可不可以)(?:请)?(?:你|您)?(?:帮我|告诉我|给我|跟我)(?:说说|讲讲)?(?:一下)?|我想(?:请)?问(?:你|您)?(?:一下|个问题)?|"
    r"问(?:你|您)?(?:一下|个问题|个事)|告诉我(?:一下)?|跟我说(?:说|一下)?|"
    r"(?:^|(?<=[,.?!;]))(?:请(?:你|您)?(?:帮我|给我|告诉我)?|帮我|给我(?=讲|说|写|算)|你说说?看?|顺便(?:说|问)?(?:一下|一句)?)|(?:好吗|行吗|可以吗|"
    r"好不好|行不行|可以不)(?=$|[,.?!;])"
)
_MANNERS_EN = re.compile(
    r"\b(?:please|kindly|thanks(?: a lot| so much)?|thank you(?: very much| so much)?|excuse me|pardon me|"
    r"sorry to bother you|if you don't mind|(?:could|can|would|will) you(?: please| kindly)?(?: tell me|"
    r" help me)?|"
    r"i was wondering(?: if you could)?|i would like to know|i'd like to know|i want to know|"
    r"do you happen to know|would you mind|may i ask|by the way|tell me)\b,?"
)
_MANNERS_EN_WORD = re.compile(
    "please|kind|thank|excuse|pardon|sorry|mind| you|wonder|like to know|want to know|may i|by the|tell"
)
_FILLERS_ZH = re.compile(
    r"(?:^|(?<=[,.?!;\u3400-\u9fff]))(?:[嗯呃唔额诶哎欸]+(?:那个)?|啊+(?=$|[,.?!;])|那个,|那个那个|那个(?=帮|请|把|你|我|打开)|就是说|就是那个|"
    r"怎么说呢|我想想|话说|这个这个|小智(?:小智)?|哈喽|喂)(?:,|(?=[^,]))|(?:^|(?<=[,.?!;]))(?:你好|您好|嗨|那个|然后呢?|好的|对了|那什么)[,.]|"
    r"[啊呀呢吧嘛哦哈啦]+(?=$|[,.?!;])"
)
_FILLERS_EN = re.compile(
    r"\b(?:u+m+|u+h+|e+r+m*|h+m+|well|you know|i mean|like(?=,)|so(?=,)|okay|ok|actually|basically|hey|hello|"
    r"hi)\b,?(?! world)"
)
_FILLERS_EN_WORD = re.compile("um|uh|er|hm|well|you know|i mean|like,|so,|ok|actual|basical|he[yl]|hi")
_CHATTER_ZH = re.compile(
    r"(?:^|(?<=[.?!,;]))(?:我?(?:今天|刚才|刚刚|昨天|最近)?(?:心情|天气|阳光)(?:真|很|还|挺|特别)?(?:不错|好|棒|糟糕|一般)|我?(?:今天|刚刚|"
    r"刚才)?(?:刚)?(?:吃完饭|下班|起床|放学|回到家|喝了杯咖啡)(?:了)?|我(?:就是)?(?:随便|好奇)(?:问问|一下)?|闲着(?:没事|也是闲着)|我朋友(?:刚才)?问我的)(?=$|"
    r"[.?!,;])[.?!,;]*"
)
_CHATTER_EN = re.compile(
    r"(?:^|(?<=[.?!,;])) ?(?:i'?m just (?:curious|asking|wondering)|i (?:just )?(?:had|got|came) [a-z ]{3,30}|"
    r"it'?s (?:a )?(?:nice|lovely|beautiful|sunny) (?:day|outside|today)[a-z ]{0,12}|hope you'?re (?:well|"
    r"doing well)|my friend asked me(?: this)?)(?=$|[.?!,;])[.?!,;]*"
)
_SENTENCE = re.compile(r"[^.?!\n;]+(?:[.?!\n;]+|$)|\.")
_PERIOD_TWICE = 4
"""Shortest text that is looked at for being its own first half over again."""


def fold(text: str) -> str:
    """Return ``text`` in one width, one case and one kind of marks, with nothing invisible and single spaces."""
    text = _ends(text, 4 * MAX_CHARACTERS)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_EDGES)
    text = _ends(_SPACE.sub(" ", _INVISIBLE.sub("", text)).lower().strip(), MAX_CHARACTERS)
    return _REPEATED_CHARACTER.sub(r"\1", _REPEATED_MARK.sub(_one_mark, _without_spaces_by_chinese(text)))


def plain(text: str) -> str:
    """Return the text that is scored; a text that is nothing but padding stays as ``fold`` leaves it."""
    folded = fold(text)
    bare = clean = _once(_without_claims(folded))
    if not clean.isascii():
        clean = _CHATTER_ZH.sub("", _trimmed(_MANNERS_ZH.sub(" ", clean)))
        clean = _FILLERS_ZH.sub("", clean)
    clean = _without_english_padding(clean)
    if clean != bare:
        clean = _without_claims(_trimmed(clean))
    clean = _trimmed(_once(_trimmed(clean)))
    return clean or _trimmed(folded) or folded


def _without_english_padding(text: str) -> str:
    if _MANNERS_EN_WORD.search(text) is not None:
        text = _trimmed(_MANNERS_EN.sub(" ", text))
    if " " in text:
        text = _CHATTER_EN.sub("", text)
    return text if _FILLERS_EN_WORD.search(text) is None else _FILLERS_EN.sub("", text)


def _without_spaces_by_chinese(text: str) -> str:
    return text if text.isascii() else _SPACE_BY_CHINESE.sub("", text)


def _ends(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters // 2]} {text[-characters // 2 :]}"


def _one_mark(found: re.Match[str]) -> str:
    run = found.group()
    return next((mark for mark in "?!;," if mark in run), run[0])


def _without_claims(text: str) -> str:
    if _CLAIM_WORD.search(text) is None:
        return text
    before = ""
    while text != before:
        before, text = text, _CLAIM_RUN_ON.sub("", _CLAIM.sub(" ", text).strip())
    return text


def _trimmed(text: str) -> str:
    text = _without_spaces_by_chinese(_SPACE.sub(" ", text))
    return _LEADING.sub("", _TRAILING.sub("", text))


def _once(text: str) -> str:
    """Return ``text`` with sentences, and itself, said once."""
    if len(text) < _PERIOD_TWICE:
        return text
    text = _first_period(text)
    sentences = _SENTENCE.findall(text)
    if len(sentences) < 2:  # noqa: PLR2004 - one sentence cannot repeat another
        return text
    kept: dict[str, str] = {}
    for sentence in sentences:
        kept.setdefault(sentence.strip(" .?!;\n,"), sentence)
    return "".join(kept.values())


def _first_period(text: str) -> str:
    """Return what ``text`` says over and over, with or without a space between; numbers repeat their digits on purpose."""
    for joined in (text, f"{text} "):
        period = (joined + joined).find(joined, 1)
        if period < len(joined) and not joined[:period].strip().isdigit():
            return joined[:period].rstrip()
    return text
