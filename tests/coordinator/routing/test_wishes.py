from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing.wishes import asks_to_think, is_device_command, is_real_time
from coordinator.routing.wording import plain

COMMANDS = """
打开灯
帮我把灯打开好吗
把客厅的灯关掉
音量调大一点
请把空调调到二十六度
关灯
播放周杰伦的稻香
暂停
下一首
明天早上七点叫我起床
设一个五分钟的倒计时
提醒我下午三点开会
嗯那个帮我把窗帘拉上
静音
大声点
打开卧室空调，然后讲个故事
来一首周杰伦的歌
小声一点
关闭电视
取消明天的闹钟
把亮度调低
进入配网模式
能不能把电视声音调小一点
我想听音乐
打开扫地机器人
Turn on the light.
Please turn off the lights in the kitchen
Could you turn the volume down?
turn the tv off
set an alarm for seven am
play some jazz music
pause the music
next song
dim the bedroom lights
remind me to call mom at five
set a timer for ten minutes
increase the volume
open the curtains
hey turn up the heating please
mute
lock the front door
""".strip().splitlines()
REAL_TIME = """
今天天气怎么样
明天会下雨吗
现在几点
现在几点了呀
今天星期几
今天几号
今天有什么新闻
苹果公司现在的股价是多少
外面冷不冷
出门要不要带伞
最新的新闻
现在美元汇率多少
北京天气
附近有什么好吃的餐厅
现在路况怎么样
今天的油价是多少
请问一下现在是什么时间
查一下上海天气
What's the weather like today?
what time is it
Will it rain tomorrow?
what's the latest news
What is today's date?
How's the weather in London?
do I need an umbrella
what day is it today
Tesla stock price today
Could you tell me what time it is? What time is it?
any news today
how cold is it outside
""".strip().splitlines()
NEITHER = """
讲一个关于开灯的故事
为什么天气会变冷
开灯为什么会费电
“打开灯”用英语怎么说
怎么打开空调
如何写一封关于天气的邮件
天气和气候有什么区别
电灯是谁发明的
写一首关于暂停的诗
新闻稿怎么写
什么是股价
通货膨胀如何影响股价
开心的时候做什么好
灯泡的原理是什么
时间是什么
一天有多少小时
打开心扉是什么意思
音量的单位是什么
播放列表和歌单有什么区别
解释一下汇率
为什么会下雨
二战的时候谁是英国首相
关于时间的名言有哪些
翻译：把灯打开
用“天气”造句
开车多久可以到长城
关于音乐的历史
停车场有二十辆车开走五辆还剩几辆
写一篇今天天气怎么样的作文
唐朝的长安有多大
开学第一天要准备什么
小明开了三盏灯又关了一盏还亮几盏
来一首诗
讲个笑话
法国的首都是哪里
Write a story about turning on the light
Why is the weather getting colder?
How do I turn on the light in Spanish?
what is the difference between weather and climate
who invented the light bulb
what does turn up the volume mean
write a news article about cats
explain how stock prices are determined
How does an air conditioner work?
What is the temperature of the sun?
Who was president at the time of the moon landing?
play devil's advocate against me
what is the time complexity of quicksort
Set theory was invented by whom?
open source licences compared
Translate turn off the lights to French
how many hours are in a day
what is light
pause means what in music
turn the following essay into a poem
set up a proof that there are infinitely many primes
close reading of Hamlet
How do clocks tell time
When does it rain in deserts and why?
what was the weather like on D-Day and why did it matter
""".strip().splitlines()
THINK = """
认真想想，法国的首都是哪里
好好想想这道题怎么做
请仔细想一下再回答
你好好想想再告诉我
仔细想想，三个人怎么过河
我要你认真思考一下这个问题
Think hard: what is the capital of France?
please think carefully before you answer
think hard about this one
Think carefully. Which weighs more?
now think really hard
I want you to think hard about it
这个问题好好想想
请认真思考后回答
多想想再说
""".strip().splitlines()
NO_THINK = """
他说“好好想想”是什么意思
认真想想用英语怎么说
我认真想想再告诉你
不用仔细想，随便说一个
让我好好想想
她好好想了想就走了
怎么让孩子学会认真思考
“好好想想”怎么翻译
我想想
你想去哪里玩
思考题的答案是什么
I think hard work matters
do you think hard drives are better than ssds
don't think hard, just answer
what does "think hard" mean
people think carefully about money
Why do we think hard problems are fun?
I think so
How do animals think?
Translate "think carefully" into Chinese
""".strip().splitlines()


@pytest.mark.parametrize("text", COMMANDS)
def test_telling_a_device_what_to_do_is_a_command(text: str) -> None:
    assert is_device_command(plain(text))


@pytest.mark.parametrize("text", REAL_TIME)
def test_asking_for_the_present_is_real_time(text: str) -> None:
    assert is_real_time(plain(text))
    assert not is_device_command(plain(text))


@pytest.mark.parametrize("text", [*NEITHER, *THINK, *NO_THINK])
def test_talking_about_devices_and_time_is_neither(text: str) -> None:
    assert (is_device_command(plain(text)), is_real_time(plain(text))) == (False, False)


@pytest.mark.parametrize("text", THINK)
def test_asking_to_think_hard_is_heard(text: str) -> None:
    assert asks_to_think(plain(text))


@pytest.mark.parametrize("text", [*COMMANDS, *REAL_TIME, *NEITHER, *NO_THINK])
def test_talking_about_thinking_is_no_request_to_think(text: str) -> None:
    assert not asks_to_think(plain(text))


@given(st.text(alphabet="打开把灯空调的音量大小现在几点天气想认真好turn onthelighwacf,.?!\"'[] ", max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert {is_device_command(text), is_real_time(text), asks_to_think(text)} <= {True, False}
