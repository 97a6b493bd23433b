"""A Chinese question into the one form that all its wordings share; pure.

Every rule says that two wordings mean the same; what no rule names stays as it is and so tells questions apart. Capital letters stand for what
is asked, since case-folded text has none: W why, H how, B what to do, T when, D how long, N how many, P who, L where, Q what, G which,
Y yes or no, E what or who something is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from coordinator.cache.meaning_numbers import with_digits

_Change = str | Callable[[re.Match[str]], str]
_Rules = Sequence[tuple[re.Pattern[str], _Change]]


def _rules(*pairs: tuple[str, _Change]) -> _Rules:
    return tuple((re.compile(pattern), change) for pattern, change in pairs)


_BEFORE = re.compile(
    r"^(?:(?:[嗯呃诶唉](?!逆)|哎(?![呀哟])|喂(?=小智|[你您请问]|什么|怎么|为什么|谁)|那个(?=[那请帮谁]|什么|怎么|为什么|你知道)|话说|对了(?![吗没多几谁])"
    r"|顺便|小智(?![慧能力商障叫会有在和跟与])|你好|您好|哈喽)(?![是的这意字])(?=.{3})|请问(?!题)(?:一下|你|您)?(?=.{3})|问(?:一下|你|您)(?:个问题)?(?=.{3})"
    r"|请(?![假客帖柬求安教愿神示辞战])(?=.{3})|麻烦(?:你|您)?(?=[请问帮给说讲查算]|告诉|解释|介绍)|劳驾"
    r"|(?:你|您)?(?:能不能|能|可以|可不可以)?(?:(?:告诉|跟|帮|教)(?:我|大家|咱们)|给(?:我|大家|咱们)(?=[讲说解介算查]))"
    r"(?:说说|讲讲|说一?下|讲一?下|想想|看看|查查|查一?下|算算|算一?下|忙)?(?:一下)?"
    r"|(?:给|跟|帮)(?=讲讲|说说|解释|介绍|算(?![命盘法术]))|帮忙(?=看看|算(?![命盘法术])|查|解释|介绍)|教教?(?=怎么|如何|怎样)"
    r"|我?很?(?:想知道|想问问?|想了解)(?:一下)?(?=.{3})|(?:你|您)(?:知不)?知道(?!分子|日报)(?=.*(?:什么|啥|怎|如何|谁|哪|多少|几|多[大久长]|为何))"
    r"|(?:说说看?|讲讲|谈谈)(?!是)(?=.*(?:什么|啥|怎|如何|谁|哪|多少|几|多[大久长]|为何))"
    r"|算(?:一下|算)?(?=[\d零一二两三四五六七八九十百]))"
)
_AFTER = re.compile(
    r"(?:呀|(?<!阿里)啊|呢|哦|啦|(?<!喇)嘛|(?<![说讲叫语文话])(?:谢谢|非常感谢|感谢)(?:你|您|了)?|(?<!不)求解答?|求助|在线等)$"
)
_ASKS = re.compile("[WHBTDNPLQG]")
_ATTRIBUTES = (
    "首都|省会|作者|面积|人口|意思|区别|好处|坏处|优点|缺点|特点|习俗|症状|脸谱|寿命|平方|立方|平方根|速度|沸点|熔点|密度|重量|高度|长度|英语|日语"
    "|法语|德语|韩语|反义词|近义词|下1句|上1句|做法|方法|原因|原料|发明者|发明人|名字|国旗|国歌|直径|半径|周长|百分之|\\d+%|值|数值"
)
_LISTED = "好处|坏处|优点|缺点|特点|习俗|症状|反义词|近义词|特产|作用|用处|危害|名胜|景点"
_WORDS = _rules(
    (
        r"(?<=[哪那这])儿|(?<=一点|一会)儿|(?<=[事玩劲味法])儿(?!子|童|女|科)",
        lambda found: "里" if found.string[found.start() - 1] == "哪" else "",
    ),
    (r"(?<![什怎多那这要])么$", "吗"),
    (r"(?:番茄|西红柿)", "西红柿"),
    (r"西红柿炒(?:鸡)?蛋", "西红柿炒鸡蛋"),
    (r"妈妈(?!节)", "母亲"),
    (r"爸爸(?!节)", "父亲"),
    (r"英文", "英语"),
    (r"计算机(?!系|专业|科学|学|网络)", "电脑"),
    (r"马铃薯", "土豆"),
    (r"狗狗", "狗"),
    (r"猫咪", "猫"),
    (r"牙(?:齿)?疼", "牙痛"),
    (r"头疼", "头痛"),
    (r"每(?=分钟|小时|天|年|秒)", "一"),
    (r"(?:里面|里头|里边)", "里"),
    (r"上面|上边", "上"),
    (r"(?:全?世界|全球)上?(?=最|第|哪)", "世界"),
    (r"(?<=.)(?:到底|究竟|具体(?![情化性])|大概(?!率))", ""),
    (r"(?:这个|这句)(?:成语|词语)(?=的?(?:是什么|是啥|什么|啥)?意思|$)", ""),
    (r"^成语", ""),
    (r"(?:一共|总共|一般|通常)(?=有|是|能|可以|会|要|应该|活|吃|喝|多少|几|多久)", ""),
    (r"(?<=[和跟与])(?=.)", ""),
    (r"可以|可不可以", lambda found: "能" if found.group() == "可以" else "能不能"),
    (r"(?<=多少|.几)(?:次|下)(?=$|呀)", "次"),
    (r"河流(?![域过经入动向])", "河"),
    (r"光的速度", "光速"),
    (r"(?<=[星球])上(?=有)", ""),
    (r"(?<![公英海])里(?=一?共?总?共?有(?:多少|几))", ""),
    (r"(?:的时候|时)(?=(?:该|要|应该)?(?:怎么|咋)办)", ""),
    (r"讲(?=什么(?:语言|话)|啥(?:语言|话))", "说"),
)
_QUESTIONS = _rules(
    (r"怎么回事|咋回事", "怎么回事"),
    (r"(?:(?<!不)(?:应该|该|要))?(?:怎么|如何|怎样|咋)(?:办|处理)(?:才好|好)?", "B"),
    (r"(?:的原因(?:是(?:什么|啥))?|(?<!是)是?(?:什么|啥)原因|是为什么|是为啥)$", "W"),
    (r"(?:为什么|为何|为啥)(?:会(?![计议员场费长所友]))?|(?:怎么|咋)会(?![计议员场费长所友做说写唱弹用])|凭什么", "W"),
    (r"什么时候|啥时候|何时|什么时间", "T"),
    (r"(?:(?<!不)(?:需要|要花|要)|花)?(?:多久|多长时间|多少时间)", "D"),
    (r"(?:(?<!不)(?:应该|该|要))?(?:怎么(?!样|回事)|如何|怎样|咋(?!样))(?:样)?(?:才能)?(?:该|要|应该)?", "H"),
    (r"什么地方|哪个地方|何处|哪里|啥地方", "L"),
    (r"(?:哪位|哪一位|哪个|哪一个)(?:人|作家|诗人|作曲家|科学家|发明家|画家)|什么人|哪位|哪一位|谁", "P"),
    (r"什么(?:东西)?|啥(?:东西|玩意儿?)?|哪些", "Q"),
    (r"多少|(?<![茶好无第十])几(?![乎何维内率丁十百千万分])", "N"),
    (
        r"(?<=N)(?:个(?![人性体头月税股案])|位(?![数置移])|颗(?!粒)|根(?![号据本源])|条(?![件约款])|只(?!有)|座(?![位谈])|名(?![字单声气额次牌片]))(?=.)",
        "",
    ),
    (r"哪(?:一)?(?:个|座|条|颗|部|本|首)(?:城市(?=$|是))?", "G"),
    (r"哪(?=朝)", "G"),
    (r"(?<![不无])需要(?=[HBTDNPLQG办]|用[NQ])|(?<![不主重需必想只])要(?=[HBTDNPLQG办加])", ""),
    (r"([^动时差]{1,2})不\1", r"\1Y"),
    (r"有没有", "有Y"),
    (r"^(.*?)是否", r"\1是Y"),
    (r"能否", "能Y"),
    (r"(?<!不)(?:属于|算)(?=.+(?:吗|Y)|Y)", "是"),
    (r"(?<=[与跟])(?=.+(?:不同|区别|差别|差异))", ""),
)
_LIGHT = _rules(
    (r"了(?=[BH])|(?<=发明|统一|发现|创作|提出|创立|打败)了|(?<=写)了(?!解)", ""),
    (rf"的(?=(?:{_ATTRIBUTES}))|(?<![PQGLTN])的$", ""),
    (r"(?<=最[大小高低长短深重轻快慢多少远近])的(?!国家|省|城市.*(?:首都|省会))", ""),
)
_VERBS = "发明|写|发现|创作|提出|创立|设计|打败|建造|统一"
_DONE = "做|养|学|洗|叠|写|煮|治|包|修|去除|缓解|止住|清洗|清洁|腌|炒|炖|蒸|烤|泡|织|折|申请|办理|计算|安装|注册|保养"
_SCALE = "[大小高低长短深浅重轻快慢远近老]"


def _said(found: re.Match[str]) -> str:
    if "H" not in found.group():
        return found.group()
    return f"{found[2] or found[3]}H说:{found[1] or found[4]}"


_FRAMES = _rules(
    (r"^(.{2,})(?<![人师员家长生妈爸母亲父者们子工])(?:H做的?|做法(?:是Q|有Q)?)$", r"H做\1"),
    (r"^(?!.*(?:怎|N|P))(.{2,})(?:有Q(?:办法|方法)|(?:办法|方法)(?:是Q|有Q)?)$", r"H\1"),
    (r"^有Q(?:办法|方法)(?:能)?(.{2,})$", r"H\1"),
    (r"^H学习", "H学"),
    (rf"^({_DONE})(.+)H\1$", r"H\1\2"),
    (r"^D给([^的]+?)([浇喂换洗].*)$", r"\1D\2"),
    (r"^([^的]+)的([^的]{1,3})有N[个颗根种块条只]?$", r"\1有N\2"),
    (rf"^([^的WNPQTDLGYH]+(?:的[^的WNPQTDLGYH]+)?)(?<![人师员家长生妈爸母亲父者们子工])H({_DONE})$", r"H\2\1"),
    (rf"^P({_VERBS})(.+)$", r"P\1:\2"),
    (rf"^(.+)是P({_VERBS})(?:出来)?的?$", r"P\2:\1"),
    (rf"^({_VERBS})(.+?)的?(?:人)?是P$", r"P\1:\2"),
    (r"^(.+?)的?作者是P$|^P是(.+?)的?作者$", lambda found: f"P写:{found[1] or found[2]}"),
    (r"^(.+?)的?发明[者人]是P$|^P是(.+?)的?发明[者人]$", lambda found: f"P发明:{found[1] or found[2]}"),
    (
        r"^(.+)是(?:用|拿)?Q做的$|^(.+?)(?:用|拿)Q做的$|^(.+?)的?原料(?:是Q)?$",
        lambda found: f"原料E{_first(found)}",
    ),
    (r"^(.+?)(?:里|中)?(?:排)?在?第(\d+)(?:位|名)?的?个?(?:是Q(?:动物)?)$", r"\1第\2E"),
    (
        r"^(?:G|G城市|L)是(.+(?:首都|省会))$|^(.+(?:首都|省会))(?:是|叫)(?:L|Q(?:名字)?|G(?:城市)?|Q城市|哪)$",
        lambda found: f"E{_first(found)}",
    ),
    (rf"^([^的最GN]*)G([^的最GN是]{{1,2}})最({_SCALE})$", lambda found: _superlative(found[1], found[3], found[2])),
    (
        rf"^G([^的最GN]{{1,2}})是([^的最GN]*)最({_SCALE})(?:的)?$",
        lambda found: _superlative(found[2], found[3], found[1]),
    ),
    (r"^(.*最.*)(?:是|叫)(?:G|哪一?[条座个]|Q(?:名字|名)?|哪)$", r"E\1"),
    (r"^(.*的.*)叫(?:Q(?:名字|名)?)$", r"E\1"),
    (
        r"^(.+?)是?Q意思$|^(.+?)意思(?:是Q)?$|^(?:解释|介绍|说明|讲讲|说说)(?:1?下)?(?:Q(?:是|叫))?([^WHBTDNPLQG]+)$",
        lambda found: f"E{_first(found)}",
    ),
    (r"^(?:Q(?:是|叫)|P是)(.+)$", r"E\1"),
    (r"^(.+)(?:这个人)?是[PQ]$", r"E\1"),
    (r"^(.+)是G$", r"E\1"),
    (
        rf"^(.+?)的?(?:都)?有Q({_LISTED})$|^E?(.+?)的?({_LISTED})(?:有Q|是Q)?$",
        lambda found: f"{found[2] or found[4]}E{found[1] or found[3]}",
    ),
    (rf"^(.+?)({_LISTED})有Q$", r"\2E\1"),
    (
        r"^E?([^和跟与]+)[和跟与]([^和跟与]+?)的?(?:有Q)?(?:区别|不同|差别|差异)(?:是Q|在L|有Q)?$",
        lambda found: _pair("区别", found),
    ),
    (r"^([^和跟与比]+)[和跟与]([^和跟与比]+?)(?:G|P|哪一?[条座个])更?(.{1,3})$", lambda found: _pair(found[3], found)),
    (r"^(.+?)(.)还是(.+)\2$", lambda found: _pair(found[2], found, second=3)),
    (
        r"^([^用的]+?)(?:用|的)?(英语|日语|法语|德语|韩语)的?H[说讲]$|^用?(英语|日语|法语|德语|韩语)里?(?:H[说讲])?(.+?)(?:H[说讲])?$",
        _said,
    ),
    (r"(?<=\d)(?:=|等于|是|得)N$", "=N"),
    (r"(?<=[沸熔冰]点)N度?$", "N度"),
    (r"^([-\d/*+%\ue000]*[/*+%-][-\d/*+%\ue000]*)$", r"\1=N"),
    (r"^E([^E]+?)(英语|日语|法语|德语|韩语)$", r"\2H说:\1"),
    (r"^(E?)(.*(?:平方|立方|平方根|%))(?:是|等于|=)?N?$", r"\2=N"),
    (r"(?:(?<=[米克斤升顷亩吨尺寸])|(?<=[公英海]里))(?:等于|是|有)(?=N)", "="),
    (r"是(?=N)|有(?=N(?:公里|千米|英里))", ""),
    (r"^(圆周率|光速)(?:速度)?的?(?:数?值)?(?:是|等于|有)?N$", r"\1=N"),
)
_DURATION = _rules(
    (r"(?:能|会)?活(?:N年|D)|寿命(?:有|是)?(?:多长|N年|D)", "寿命D"),
)


def form_of_chinese(text: str) -> str:
    """Return the form of normalised Chinese ``text``; equal forms mean the same."""
    text = _without_chatter(text)
    text = _changed(text, _WORDS)
    text = _changed(text, _QUESTIONS)
    text = with_digits(text)
    if text.endswith("吗"):
        text = text[:-1] if _ASKS.search(text) and "Y" not in text else f"{text[:-1]}Y"
    text = _changed(_changed(text, _LIGHT), _DURATION)
    text = _changed(text, _FRAMES)
    for mark in "WY":
        if mark in text:
            text = mark + text.replace(mark, "")
    return text


def _without_chatter(text: str) -> str:
    before = ""
    while before != text:
        before = text
        text = _AFTER.sub("", _BEFORE.sub("", text)) or text
    return text


def _changed(text: str, rules: _Rules) -> str:
    for pattern, change in rules:
        text = pattern.sub(change, text)
    return text


def _first(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group)


def _superlative(place: str, scale: str, noun: str) -> str:
    if re.search(f"(?:{_ATTRIBUTES})$", noun):
        return f"G{place}:{noun}最{scale}"
    return f"E{place}最{scale}{noun}"


def _pair(asked: str, found: re.Match[str], second: int = 2) -> str:
    return "|".join((asked, *sorted((found[1], found[second]))))
