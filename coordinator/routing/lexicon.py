"""The words that say what a request is about, in Chinese and English, and one pass that counts them; pure.

Chinese is matched by character (every word has at least two), so no word boundaries are needed; English by whole words.
The lists are written by hand for spoken requests and the names of school and professional subjects; they are no dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

SUBJECTS = ("law", "medicine", "science", "maths", "society", "computing")
"""Fields of knowledge that have words below."""

_CHINESE: Mapping[str, str] = {
    "why": "为什么 为啥 缘故 为何 原因 原理 凭什么 怎么会 怎么回事 何以",
    "how": "怎么 如何 怎样 咋样 怎么办 方法 办法 步骤",
    "compare": "比较 对比 区别 不同 差别 差异 相比 哪个更 哪种更 优缺点 利弊 优点 缺点 异同 更好 还是",
    "explain": "解释 分析 说明 论述 阐述 评价 推理 证明 推导 总结 概括 归纳 详细 推断 权衡 讨论 影响 意义",
    "steps": "然后 接着 之后再 一步一步 一步步 逐步 分步 首先 其次 最后 第一步 第二步 接下来 并且 同时 分别",
    "constraint": "不超过 不少于 不多于 不低于 至少 至多 最多 必须 只能 只用 除了 以内 以上 以下 不要 不能 不许 押韵 格式 开头 结尾 每句 每行 "
    "字数 要求 用一句话 一句话 三句话 两句话 包含 避免 控制在 恰好 不得 仅用 列表 表格",
    "negation": "不是 没有 不会 不能 不要 不对 不正确 错误的 并非 不属于 不可以 不用 不可能 别说 无法 从不 从未 未曾",
    "writing": "写一 写个 写首 写封 写篇 写段 写出 作文 作诗 写诗 文案 续写 改写 润色 扩写 缩写 仿写 藏头诗 一首诗 对联 演讲稿 邮件 日记 祝福语 "
    "剧本 小说 编一个 编个 造句 起个名 取名 标题 广告语 发言稿 读后感 情书 通知 请假条 简历 歌词 朋友圈",
    "tell": "讲个 讲一个 故事 笑话 谜语 绕口令 脑筋急转弯 童话 睡前 讲讲",
    "translation": "翻译 译成 英语怎么说 英文怎么说 用英语 用英文 日语怎么说 用日语 用法语 译为 中文意思 法语怎么说 韩语怎么说 怎么翻译",
    "code": "代码 编程 程序 函数 算法 脚本 正则 数据库 接口 报错 调试 递归 数组 链表 循环 变量 编译 排序算法 写个程序 爬虫 服务器",
    "safety": "自杀 自残 炸弹 炸药 毒品 制毒 冰毒 下毒 杀人 杀死 枪支 黑客攻击 盗号 诈骗 洗钱 伤害自己 不想活 作弊 偷窃 走私 色情 未成年人 "
    "紧急 中毒 触电 着火 心脏骤停 胸口疼 胸痛 一氧化碳 煤气泄漏 急救 报警 割腕 跟踪别人 入侵 破解密码",
    "arithmetic": "加上 减去 乘以 除以 加减 乘除 等于几 等于多少 等于 平方 立方 开方 平方根 百分之 总和 平均 一共 总共 还剩 剩下 几个 多少钱 "
    "一半 两倍 三倍 几倍 打折 利息 折扣 余数 乘积 求和 算一下 算算 计算 口算 面积 周长 体积 速度 每小时 相遇 多少个 多少人 折后 找零",
    "reasoning": "如果 假设 假如 已知 推理 逻辑 真话 假话 谁说 谁是 排第 比小 比大 一定 必然 可以推出 那么 因此 所以 证明 推断 规律 下一个数 "
    "几种 多少种 可能性 概率 甲乙 至少有 称重 过河 要么",
    "chat": "你好 您好 早上好 晚上好 晚安 再见 拜拜 你是谁 你叫什么 你几岁 谢谢 心情 无聊 聊天 聊聊 陪我 我好累 好累 开心 难过 喜欢你 "
    "你喜欢 你觉得 想你 我爱你 孤独 压力 烦死 伤心 你会什么 吃了吗 哈哈 在吗 失眠 想家 郁闷",
    "fact": "是谁 是什么 是啥 啥是 什么叫 哪里 哪儿 哪个 哪一年 哪年 什么时候 首都 多高 多长 多大 多远 多重 多少年 作者 谁写 谁发明 第一个 最大 最高 最长 最小 叫什么 "
    "属于 成立于 出生 哪国 几月 几个省 是哪 什么是 是指",
    "back": "刚才 上面 前面 继续 刚刚说 你说的 上一个 那个呢 这个呢 它的 它是 他的 她的 他们 它们 再说一遍 再讲一 换一个 接着说 再来一 第二个呢",
    "law": "法律 合同 诉讼 被告 原告 刑法 民法 宪法 违约 赔偿 仲裁 继承 离婚 侵权 判刑 律师 劳动法 知识产权 专利 条款 法院 遗嘱 担保",
    "medicine": "症状 治疗 药物 疾病 诊断 医生 患者 手术 感染 病毒 细菌 高血压 糖尿病 癌症 副作用 剂量 疫苗 发烧 神经 心脏 血管 抗生素 基因 维生素 胰岛素",
    "science": "物理 化学 生物 量子 原子 分子 电子 重力 引力 相对论 能量 光速 元素 反应 细胞 进化 电流 电压 磁场 黑洞 行星 光合作用 酸碱 蛋白质 热力学 牛顿",
    "maths": "方程 函数 导数 积分 矩阵 概率 几何 三角形 定理 向量 微积分 质数 素数 数列 集合 圆周率 对数 多项式 勾股 线性代数 极限",
    "society": "历史 朝代 战争 革命 皇帝 经济 通货膨胀 货币 政治 哲学 宗教 社会 文化 文学 心理 贸易 市场 地理 条约 改革 唐朝 宋朝 明朝 清朝 秦始皇 管理 会计 伦理 佛教",
    "computing": "计算机 操作系统 网络 内存 处理器 人工智能 机器学习 神经网络 加密 协议 编译器 线程 二进制 云计算 大模型 软件 硬件 缓存",
}
_ENGLISH: Mapping[str, str] = {
    "why": "why,reason,reasons,cause,causes,because",
    "how": "how,how to,method,approach",
    "compare": (
        "compare,contrast,difference,differences,versus,vs,pros and cons,advantages,disadvantages,better,worse,"
        "rather than,similarities,best,most likely"
    ),
    "explain": (
        "explain,analyze,analyse,describe,discuss,evaluate,prove,derive,summarize,summarise,elaborate,justify,"
        "implications,significance,in detail,impact,assess"
    ),
    "steps": "then,after that,next,finally,first,second,step by step,steps,also,followed by,afterwards,respectively",
    "constraint": "must,at least,at most,no more than,no less than,exactly,except,only,without,within,do not,don't,avoid,include,limit,words or less,fewer than,format,"
    "rhyme,starting with,ending with,bullet,table,in one sentence,json,should not",
    "negation": (
        "not,no,never,none,cannot,can't,isn't,aren't,doesn't,don't,didn't,won't,neither,nor,without,false,"
        "incorrect,untrue,except,unless"
    ),
    "writing": (
        "write,compose,draft,poem,essay,story about,letter,email,lyrics,rewrite,paraphrase,haiku,speech,slogan,"
        "headline,blog,script,caption,novel,diary"
    ),
    "tell": "tell me a,story,joke,riddle,fairy tale,bedtime",
    "translation": (
        "translate,translation,in chinese,in english,in french,in spanish,in japanese,in german,how do you say"
    ),
    "code": (
        "code,python,javascript,java,function,algorithm,program,sql,script,regex,html,compile,api,array,loop,"
        "recursion,debug,class,database,linux,bash,int,return,printf"
    ),
    "safety": (
        "suicide,kill myself,bomb,explosive,poison,drug,drugs,murder,weapon,hack,steal,self-harm,overdose,"
        "illegal,meth,fraud,emergency,bleeding,choking,chest pain,hurt myself"
    ),
    "arithmetic": "plus,minus,times,divided by,multiply,multiplied,sum,total,percent,percentage,average,half,twice,triple,double,square root,squared,how many,how much,cost,costs,"
    "left,remaining,altogether,per,each,ratio,profit,discount,interest,calculate,area,miles,dollars,hours,pounds,more than,less than,times as",
    "reasoning": (
        "if,suppose,assume,given,therefore,implies,conclude,logic,premise,argument,valid,true,probability,"
        "must be,likely,deduce,infer,hence,consistent with,consider,let,which of the following,follows"
    ),
    "chat": (
        "hello,hi,hey,good morning,good night,goodbye,bye,how are you,your name,who are you,thank,lonely,bored,"
        "sad,happy,love you,do you like,i feel,tired,i'm,chat"
    ),
    "fact": (
        "who,when,where,what is,what was,which,capital,largest,tallest,longest,invented,author,born,founded,"
        "how old,how tall,how far,what year,known as,refers to,defined as,called"
    ),
    "back": (
        "it,that one,those,these,them,continue,previous,above,again,you said,the other one,go on,its,the second one"
    ),
    "law": "law,legal,court,contract,plaintiff,defendant,statute,constitutional,jurisdiction,liability,tort,negligence,crime,criminal,trial,evidence,lease,treaty,sued,"
    "property,attorney,judge,jury,damages,amendment,testimony,convicted,landowner,conveyed,felony,rights,clause,appeal,homicide,burglary",
    "medicine": "patient,disease,symptoms,treatment,diagnosis,drug,blood,clinical,therapy,infection,virus,cancer,heart,pain,doctor,physician,muscle,nerve,surgery,"
    "diabetes,pressure,vaccine,hormone,bone,tissue,acute,chronic,mg,artery,fever,pregnancy,lesion,syndrome,vitamin,serum,examination,year-old,insulin,renal",
    "science": "energy,mass,force,velocity,electron,electrons,atom,molecule,acid,reaction,cell,cells,dna,gene,protein,species,evolution,quantum,charge,magnetic,temperature,"
    "gas,planet,star,orbit,light,voltage,current,circuit,ion,enzyme,wavelength,membrane,organism,chromosome,oxygen,carbon,momentum,gravity,photon,equilibrium,solution,kinetic",
    "maths": "equation,function,integral,derivative,matrix,probability,triangle,theorem,vector,polynomial,prime,group,ring,finite,subset,graph,abelian,integer,integers,"
    "circle,angle,slope,random,variance,regression,mean,standard deviation,variable,variables,proof,sample,distribution,isomorphic,homomorphism,statement",
    "society": "history,war,century,empire,government,economic,economy,political,president,market,demand,supply,inflation,price,monetary,religion,god,moral,morally,ethics,"
    "philosophy,psychology,social,culture,revolution,policy,trade,tax,firm,company,asset,cost,consumer,behavior,theory,sociologists,buddhist,jewish,islam,utilitarian,"
    "states,nation,congress,marketing,cash,accounting,audit,management,organization,foreign,security,soviet,kant,aristotle",
    "computing": "computer,algorithm,memory,network,cpu,encryption,protocol,software,hardware,operating system,cache,binary,neural,machine learning,classifier,training,bit,"
    "bits,byte,tcp,server,attack,vulnerability,overflow,tree,sort,complexity,kernel,gradient",
}
CATEGORIES = tuple(_CHINESE)
_ENGLISH_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")


def _chinese_index() -> dict[str, tuple[tuple[str, int], ...]]:
    found: dict[str, list[tuple[str, int]]] = {}
    for number, words in enumerate(_CHINESE.values()):
        for word in dict.fromkeys(words.split()):
            found.setdefault(word[:2], []).append((word, number))
    return {start: tuple(entries) for start, entries in found.items()}


def _english_index() -> dict[str, tuple[tuple[tuple[str, ...], int], ...]]:
    found: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for category, phrases in _ENGLISH.items():
        for phrase in dict.fromkeys(phrases.split(",")):
            first, *rest = phrase.split()
            found.setdefault(first, []).append((tuple(rest), CATEGORIES.index(category)))
    return {first: tuple(entries) for first, entries in found.items()}


_BY_START = _chinese_index()
_BY_WORD = _english_index()


def words(text: str) -> list[str]:
    """Return the English words of a lower-cased text."""
    return _ENGLISH_WORD.findall(text)


def count(text: str, english: Sequence[str]) -> dict[str, int]:
    """Return for each category how many *distinct* words of it stand in a folded text; ``english`` are its words."""
    found: set[tuple[int, str]] = set()
    for at, start in enumerate(map("".join, pairwise(text))):
        for word, number in _BY_START.get(start, ()):
            if text.startswith(word, at):
                found.add((number, word))
    for at, first in enumerate(english):
        for rest, number in _BY_WORD.get(first, ()):
            if not rest or tuple(english[at + 1 : at + 1 + len(rest)]) == rest:
                found.add((number, " ".join((first, *rest))))
    return _tally(number for number, _ in found)


def _tally(numbers: Iterable[int]) -> dict[str, int]:
    counts = [0] * len(CATEGORIES)
    for number in numbers:
        counts[number] += 1
    return dict(zip(CATEGORIES, counts, strict=True))
