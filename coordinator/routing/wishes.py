"""What a person wants done rather than answered: a device moved, the world as it is now, more thought; pure.

Each takes the folded text of ``wording``. A sentence *about* a command (a story, a translation, a why) is none, so a clause must begin with
the wish and hold no word that asks for something else.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 120
"""Nobody speaks a longer command; a longer text is material to work on and is read for its score only. A guess."""

_CLAUSE = re.compile(r"[,.?!;\n]+(?!\d)|然后再?|接着|\band then\b|\band (?=(?:turn|play|set|open|close|dim|stop)\b)")
_OPTION = re.compile(r"(?:^|[\s,.?:;(])\(?([a-h])[.):、]\s*(?=\S)")
_QUOTED = re.compile(r"\"[^\"]*\"|(?<![a-z])'[^']*'(?![a-z])|\[[^\]]*\]")
_ABOUT = re.compile(
    "故事|为什么|为啥|怎么(?!样)|如何(?!$)|什么意思|是什么(?!时间|时候|日子)|翻译|英文|英语|日语|法语|造句|作文|写|讲一?个|讲讲|一首诗|的诗|诗歌|原理|发明|历史|作用|区别|好处|"
    "坏处|歌词|含义|用法|解释|描写|成语|谜语|概念|定义|影响|分析|有必要|安全吗|费电|省电|如果|假如|多久"
    r"|\b(?:why|how (?!is the weather|'s the weather|cold|hot|warm|about)|story|poem|translate|meaning|means?|"
    r"explain|write|difference|invented|history|essay|sentence|song called|lyrics|joke|should i (?!take|bring|"
    r"carry)|supposed|if )\b"
)
_MATERIAL = re.compile(
    "以下|下列|下面|给定|文章|段落|句子|摘要|分类|改写|对话|那么|假设|假如|如果|现在是[^,]{1,12}点,|\\b(?:following|passage|paragraph|sentences?|"
    "suppose|if)\\b"
)
_DEVICE_ZH = (
    "(?:灯|空调|电视|风扇|电扇|窗帘|音乐|收音机|音箱|闹钟|加湿器|净化器|扫地机|热水器|地暖|暖气|插座|摄像头|屏幕|蓝牙|门锁|车库门|窗户|投影|洗衣机|电饭煲|夜灯|开关|音量|声音|亮度|"
    "温度|风速|无线网|wifi|手电筒|勿扰模式|静音|睡眠模式|除湿机|油烟机|咖啡机|门)"
)
_LEAD_ZH = (
    "(?:小智|你|快点?|赶紧|马上|立刻|现在|先|再|那就?|就|我要(?:你)?|我想(?:要|让你)?|帮(?:我|忙)?|替我|给我|请|去|十分钟后|半小时后|一会儿|晚上|明早|都|全部|可以|能|"
    "麻烦)*"
)
_COMMAND_ZH = re.compile(
    rf"{_LEAD_ZH}(?:"
    rf"(?:打开|开启|关闭|关掉|关上|启动|停止|关一下|开一下|开一?下|关了|锁上|拉上|拉开|合上|调节|关|开)(?:一?下)?(?!始|心|花|车|会|学|于|系|怀|"
    rf"玩笑)[^,]{{0,8}}?{_DEVICE_ZH}(?!泡|塔|具|笼|谜|会|台|剧|票|学|派|口碑|的(?:原理|发明|作者|历史))[^,]{{0,3}}"
    rf"|[把将][^,]{{0,10}}?{_DEVICE_ZH}[^,]{{0,6}}?(?:打开|开|关|调|锁|拉|放|设|升|降)[^,]{{0,12}}"
    rf"|[^,]{{0,6}}{_DEVICE_ZH}(?:太[^,]{{1,2}}了)?(?:都|再|给我|帮我|稍微)*(?:调|开|关|设|放)(?:到|成|为|大|小|高|低|亮|暗|得|回|一下|掉|上|点)[^,]{{0,10}}"
    rf"|(?:调|增|降|放|加|减)(?:大|小|高|低|亮|暗)(?:一?点|一些)?(?:儿)?[^,]{{0,4}}(?:音量|声音|亮度|温度|屏幕|灯)?"
    r"|(?:声音|音量|亮度|温度|空调)?(?:再|稍微)?(?:大声|小声|大|小|高|低|亮|暗)(?:一)?(?:点|些)儿?(?:声)?|静音|取消静音|关机|重启|休眠|待机|闭嘴|别说了|安静|退出|"
    r"进入配网(?:模式)?"
    r"|(?:播放|放一?首|放点|放一?段|放个(?=[^,]{1,10}的)|放些|来一?首(?:歌|.{0,6}的歌|.{0,6}歌曲|.{0,6}音乐)|来点音乐|听一?首|我?想听(?!.*(?:故事|笑话|意见|看法|解释|诗)))[^,]{0,20}"
    r"|(?:暂停|停止播放|继续播放|下一首|上一首|切歌|换一首(?:歌)?|换首歌|单曲循环|别放了|别唱了|不要放了|快进|快退|停下来?|停|继续放)(?:一下|吧|播放|音乐|歌曲)*"
    r"|(?:设|定|订|取消|关掉|删除|设置|设定|添加|建)(?:一?个|一?下|好|置|掉)?[^,]{0,16}?(?:闹钟|闹铃|计时器?|倒计时|提醒|日程)[^,]{0,8}|[^,]{0,14}(?:提醒我|叫我起床|"
    r"叫醒我)[^,]{0,20}|倒计时[^,]{0,8}"
    r")$"
)
_LEAD_EN = r"(?:(?:now|just|then|xiaozhi|also|quickly|go ahead and|i want you to|i need you to|let's|i'd like you to|and|help me) )*"
_NOUN_EN = (
    r"(?:lights?|lamps?|tv|television|fans?|air ?con(?:ditioner|ditioning)?|ac|a/c|heater|heating|curtains?|"
    r"blinds?|music|radio|speakers?|volume|sound|alarms?|brightness|bluetooth|wi-?fi|camera|"
    r"doors?|vacuum|humidifier|oven|screen|display|bulbs?|plugs?|thermostat|temperature|timers?|reminders?|"
    r"windows?|garage|kettle|coffee (?:machine|maker)|night ?light|playback|song|flashlight|nightlight|"
    r"everything)"
)
_COMMAND_EN = re.compile(
    rf"{_LEAD_EN}(?:"
    rf"(?:turn|switch|power|shut) (?:it |this |that |them )?(?:on|off|up|down)(?: (?:the|my|all|all the|both|"
    rf"that|this))?(?: [a-z']+){{0,2}}? {_NOUN_EN}(?: .{{0,30}})?"
    rf"|(?:turn|switch|power|shut)(?: (?:the|my|all|all the|both|that))?(?: [a-z']+){{0,2}}? {_NOUN_EN}(?: (?:in|"
    rf"of) the [a-z ]{{3,14}}?)? (?:on|off|up|down)(?: .{{0,20}})?"
    rf"|turn (?:it|that|this) (?:up|down|off|on)(?: a (?:bit|little))?|(?:set|change|adjust|put)(?: (?:the|my|"
    rf"an?|up|another))*(?: [a-z0-9:]+){{0,3}}? {_NOUN_EN}(?: .{{0,30}})?"
    rf"|(?:increase|decrease|raise|lower|mute|unmute|dim|brighten|lock|unlock|open|close|start|stop|pause|resume|"
    rf"cancel|delete|skip)(?: (?:the|my|this|all|all the|that))?(?: [a-z']+)? {_NOUN_EN}(?: .{{0,20}})?"
    r"|play (?:(?:some|the|my|an?|me|next|previous|another) )*(?:[a-z']+ ){0,3}?(?:music|songs?|playlist|album|"
    r"radio|jazz|rock|track|podcast|white noise|mozart|beethoven|bach|pop)(?: .{0,30})?"
    r"|(?:pause|resume|mute|unmute|stop|volume (?:up|down)|make it (?:louder|quieter|brighter|darker|warmer|cooler)(?: please)?|kill the lights|louder|quieter|next (?:song|track)|previous (?:song|"
    r"track)|skip(?: this)?(?: (?:song|track))?|shut up|be quiet|stop (?:playing|talking|it)|reboot|restart|"
    r"power off|shut down)"
    r"|remind me (?:to|at|in|that) .{2,40}|wake me up .{2,20}"
    r")$"
)
_REAL_TIME_ZH = re.compile(
    r"天气(?:怎么样|如何|咋样|好不好|好吗|预报|情况|冷吗|热吗)|(?:今天|明天|后天|今晚|现在|外面|周末|这周|下周|北京|上海)[^,]{0,6}天气$|(?:查|"
    r"看)(?:一?下)?[^,]{0,8}天气$|^天气$|(?:今天|明天|后天|今晚|现在|外面|周末|下午|晚上|一会儿|待会儿?)[^,]{0,6}(?:会|要|有没有|在|会不会)?(?:下雨|下雪|刮风|"
    r"降温|台风)(?:吗|了吗|没有|没|不)?$"
    r"|(?:今天|明天|现在|外面|今晚|室内|屋里)[^,]{0,6}(?:多少度|几度|气温|冷不冷|热不热|冷吗|热吗|温度(?:是)?多少|空气质量|雾霾|湿度|穿什么)|(?:要不要|用不用|需不需要|"
    r"需要|要)带(?:雨)?伞"
    r"|(?:现在|今天|今儿|明天|后天|昨天|当前|这会儿|此刻)(?:是|都)?(?:几点|几号|星期几|周几|礼拜几|几月|什么时间|什么时候$|什么日子|农历|阴历|哪一天)|几点了|几点钟了|"
    r"今天(?:的)?日期|报(?:一?下)?时|(?:现在|当前)(?:的)?时间|(?:北京|纽约|伦敦|东京|巴黎|洛杉矶)(?:现在)?(?:是)?几点(?!的)"
    r"|(?:今天|今日|最新|最近|现在|刚刚|当前|今早|昨天|本地|国际)[^,]{0,8}(?:新闻|热搜|头条|热点)|(?:播报|播放|听|看|有什么|有啥)[^,]{0,4}(?:新闻|热搜|头条)"
    r"|(?:今天|现在|目前|最新|实时|当前|此刻|今日|昨天)[^,]{0,12}(?:股价|股市|汇率|金价|油价|大盘|行情|币价|比分|路况|限行|堵车|堵吗|堵不堵|股票|票房|房价|价格|菜价)|"
    r"(?:股价|汇率|油价|金价|大盘|比分|股票|比特币)(?:是|现在|今天)?(?:多少|怎么样|几比几|涨了|跌了|涨了吗|跌了吗)|路况(?:怎么样|如何)|(?:堵车|堵)(?:吗|不堵)"
    r"|附近(?:有|哪|的)[^,]{0,12}(?:吗|什么|哪些|哪里|餐厅|饭店|医院|银行|药店|超市|厕所|加油站)|(?:快递|航班|飞机|高铁)[^,]{0,6}(?:到哪|晚点|到了吗|延误)|"
    r"(?:电量|电池)(?:还)?(?:有|剩)(?:多少|几)"
)
_REAL_TIME_EN = re.compile(
    r"\b(?:what(?:'s| is|s) the (?:current )?(?:weather|forecast|temperature)(?! (?:of|on (?:mars|venus|"
    r"jupiter)|at which|like on (?:mars|venus|jupiter)))|how(?:'s| is) the weather(?! on (?:mars|venus))|"
    r"weather (?:forecast|today|tomorrow|tonight|outside|in [a-z ]+ (?:today|tomorrow|now))|"
    r"(?:will|is) it (?:going to |gonna )?(?:be )?(?:rain|snow|raining|snowing|rainy|sunny|cold|hot|windy)(?: (?:today|"
    r"tomorrow|tonight|outside|now|later|right now|this (?:weekend|week|evening|afternoon)|in [a-z ]+)){1,2}$|"
    r"is it (?:raining|snowing)$|do i need (?:an umbrella|a coat)|should i (?:take|bring|carry) an umbrella|"
    r"what time is it(?! when)|what(?:'s| is) the (?:current )?time(?:$| (?:now|right now|in [a-z ]+)$)|"
    r"what(?:'s| is) today'?s date|what(?:'s| is) the date(?:$| today| tomorrow)|what (?:day|date) is (?:it|"
    r"today|tomorrow)|what day of the week is (?:it|today)|"
    r"(?:latest|today'?s|breaking|current|this morning'?s) (?:[a-z]+ )?(?:news|headlines|scores?|traffic)|"
    r"what(?:'s| is) (?:in |on )?the (?:latest )?(?:news|headlines)(?: today)?$|news (?:today|headlines)|"
    r"any news(?: today| about .*)?$|"
    r"(?:current|latest|today'?s|live) (?:[a-z]+ )?(?:stock|share|gold|oil|gas|bitcoin)? ?(?:price|prices|"
    r"exchange rate|score)|stock price (?:of|for)|(?:stock|share) price (?:today|now|right now)$|"
    r"exchange rate (?:today|now|right now)|how(?:'s| is) the (?:traffic|stock market)|how is traffic|what(?:'s| is) happening in the world|(?:got|have) the time$|"
    r"(?:restaurants?|pharmac(?:y|ies)|hospitals?|cafes?|gas stations?|atms?) (?:near me|nearby)|how (?:cold|"
    r"hot|warm) is it(?: outside| today| now| right now)?$|temperature (?:outside|right now))"
)
_THINK_WORD = re.compile("think|take your time|想|思考|考虑|琢磨|动动脑")
_THINK_ZH = re.compile(
    r"(?:^|(?<=[,.?!;:)\]])|(?<=你)|(?<=要)|(?<=请)|(?<=要你)|(?<=先)|(?<=再)|(?<=帮我)|(?<=给我)|(?<=得)|(?<=题)|(?<=这个问题)|"
    r"(?<=,这次)|(?<=务必)|(?<=认真地))"
    r"(?:认真|仔细|好好|深入|慢慢|多|用心|认认真真|仔仔细细|动脑子?)(?:地|的)?(?:想想|想一想|想一下|想清楚|思考|琢磨|考虑(?:一下|清楚)|想(?=再|,|$|后|一会|之后))"
    r"|(?:^|(?<=[,.?!;你]))(?:动动脑子?|想清楚)(?:再|,|$)"
)
_NOT_THINK_ZH = re.compile(
    "什么意思|是什么|怎么说|怎么写|翻译|造句|不用|不要|不必|无需|别|让我|我(?:要|得|再|先|会|想|需要)?(?:认真|仔细|好好|深入)|他|她|人们|同义词|反义词|近义词|英文|英语|一个人|"
    "学生|孩子|能力|方法"
)
_THINK_EN = re.compile(
    r"(?:^|[,.?!;:)\]] ?|\b(?:please|now|and|then|to|you should|you must|need you to|want you to|really|but|so) )"
    r"(?:think (?:very |really |long and )?(?:hard|carefully|deeply|thoroughly|harder|twice)|"
    r"take your time(?: to think| and think)?|think (?:it|this) (?:through|over)(?: carefully)?|"
    r"think step by step carefully)"
    r"(?=$|[,.?!;:]| (?:about (?:it|this|that|the|my|your|how|what|why|whether|each)|before|and|then|on this|"
    r"first|for a|here|when))"
)
_NOT_THINK_EN = re.compile(
    r"\b(?:don't|do not|no need to|not|never|people|we|they|he|she|i|students?|mean|means|meaning|translate|say|"
    r"phrase|learn(?:ed|ing)?|taught|made|makes?|have|has|had|try|tend) (?:(?:to|me|him|her|us|you|should|must|"
    r"often|always|'|\") ?)*$"
)


def is_device_command(text: str) -> bool:
    """Return whether a clause of the folded ``text`` tells a device to do something."""
    pattern = _COMMAND_EN if text.isascii() else _COMMAND_ZH
    return any(pattern.match(clause) and not _ABOUT.search(clause) for clause in _clauses(text))


def is_real_time(text: str) -> bool:
    """Return whether a clause of the folded ``text`` asks for what only the present moment and place can tell."""
    pattern = _REAL_TIME_EN if text.isascii() else _REAL_TIME_ZH
    return any(pattern.search(clause) and not _ABOUT.search(clause) for clause in _clauses(text))


def asks_to_think(text: str) -> bool:
    """Return whether the folded ``text`` tells the answerer, outside quotation marks, to think hard."""
    if _THINK_WORD.search(text) is None:
        return False
    bare = _QUOTED.sub(" ", text)
    chinese = _THINK_ZH.search(bare)
    if chinese is not None and not _NOT_THINK_ZH.search(_clause_around(bare, chinese)):
        return True
    english = _THINK_EN.search(bare)
    return english is not None and not _NOT_THINK_EN.search(_before(bare, english))


def options(text: str) -> int:
    """Return how many answers the folded ``text`` offers to choose from (A. B. C.)."""
    return len(set(_OPTION.findall(text)))


def _clauses(text: str) -> list[str]:
    """Return the clauses that may hold a wish, none of a text that is material or a choice; one letter offers no choice."""
    if len(text) > MAX_CHARACTERS or _MATERIAL.search(text) is not None or options(text) > 1:
        return []
    return [part.strip() for part in _CLAUSE.split(_QUOTED.sub('"', text)) if part.strip()]


def _clause_around(text: str, found: re.Match[str]) -> str:
    start = max(text.rfind(mark, 0, found.start()) for mark in ",.?!;") + 1
    ends = [at for mark in ",.?!;" if (at := text.find(mark, found.end())) >= 0]
    return text[start : min(ends, default=len(text))]


def _before(text: str, found: re.Match[str]) -> str:
    at = found.start() + found.group().rfind("think") if "think" in found.group() else found.start()
    start = max(text.rfind(mark, 0, at) for mark in ",.?!;:") + 1
    return text[start:at].lstrip()
