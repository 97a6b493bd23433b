from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coordinator.first_clause import draft, is_safe
from models.errors import CloudUnreachableError, OverloadedError
from models.prompts import Image, Prompt
from tests.coordinator.sources import HANG, HARD, POOL, Bench, Plan, Source, Wait, policy_of, prompt_of
from tests.virtual_time import run

CLAUSE, TOPIC = "说到电动汽车和燃油汽车，", "电动汽车和燃油汽车，"


@pytest.mark.parametrize("topic", ["电动汽车和燃油汽车", "电动汽车", "优缺点", "燃油汽车的区别", "它们的区别"])
def test_a_topic_of_the_question_is_safe(topic: str) -> None:
    assert is_safe(f"说到{topic}，", HARD) is (topic != "它们的区别")


@pytest.mark.parametrize(
    ("clause", "question"),
    [
        ("", HARD),
        ("说到，", HARD),
        ("电动汽车，", HARD),
        ("说到电动汽车", HARD),
        ("说到电动汽车。", HARD),
        ("说到电动汽车更好，", HARD),
        ("说到特斯拉汽车，", HARD),
        ("说到汽车电动，", HARD),
        ("说到电动汽车，是的，", HARD),
        ("说到电动汽车和燃油汽车的优缺点比较区别解释为，", HARD),
        ("说到三个苹果，", "小明有三个苹果吃了一个还剩几个"),
        ("说到2024年，", "2024年有多少天"),
        ("说到我室友，", "我室友总是乱花钱该怎么办"),
        ("说到那个，", "那个，复活节岛在哪里"),
        ("说到水的沸点会变低，", "水的沸点会变低吗"),
        ("说到好吃的苹果，", "不好吃的红苹果怎么办"),
        ("说到什么江，", "湄公河在中国境内叫什么江"),
    ],
)
def test_numbers_new_names_claims_and_fillers_are_refused(clause: str, question: str) -> None:
    assert not is_safe(clause, question)


@given(st.text("说到电动汽车和燃油的是不三3，。我a", max_size=12))
def test_whatever_is_safe_says_nothing_the_question_did_not(clause: str) -> None:
    if is_safe(clause, HARD):
        assert set(clause) <= set(HARD) | set("说到，")
        assert clause.count("，") == 1


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ((TOPIC, "后面还有很多。"), CLAUSE),
        (("电动汽车更好，",), ""),
        ((CLAUSE,), ""),
        ((OverloadedError("x"),), ""),
        ((HANG,), ""),
        ((Wait(0.7), TOPIC), ""),
        (("",), ""),
    ],
)
def test_a_draft_is_there_in_time_and_safe_or_not_used(plan: Plan, said: str) -> None:
    async def scenario() -> None:
        edge = Source(*plan)
        assert await draft(edge, prompt_of(HARD)) == said
        assert edge.open == 0
        assert asyncio.get_running_loop().time() <= 0.8
        assert [message.text for message in edge.prompts[0].messages] == [HARD, "说到"]

    run(scenario())


def test_nothing_is_drafted_about_a_picture_or_in_another_language() -> None:
    async def scenario() -> None:
        edge = Source(TOPIC)
        prompt = Prompt(
            turn_id="t", messages=prompt_of(HARD).messages, images=(Image(media_type="image/png", data=b""),)
        )
        assert await draft(edge, prompt) == ""
        assert await draft(edge, replace(prompt_of(HARD), language="en")) == ""
        assert edge.started == 0

    run(scenario())


def test_the_cloud_goes_on_from_the_edge_s_first_clause() -> None:
    async def scenario() -> None:
        cloud = Source("各有长处。")
        bench = Bench(Source(TOPIC), cloud, policy=policy_of(edge_speaks_first=True))
        began_s = asyncio.get_running_loop().time()
        async with aclosing(bench.hierarchy.complete(prompt_of(HARD))) as deltas:
            said = [(delta.text, asyncio.get_running_loop().time() - began_s) async for delta in deltas]
        assert said == [(CLAUSE, pytest.approx(0.5)), ("各有长处。", pytest.approx(0.75))]
        assert [(message.role, message.text) for message in cloud.prompts[0].messages] == [
            ("user", HARD),
            ("assistant", CLAUSE),
        ]
        assert bench.reasons == [f"{POOL}:complex"]

    run(scenario())


def test_a_cloud_that_fails_behind_it_is_replaced_by_the_edge_from_the_same_words() -> None:
    async def scenario() -> None:
        def plan(_call: int, prompt: Prompt) -> Plan:
            return ("各有长处。",) if prompt.messages[-1].text == CLAUSE else (TOPIC,)

        edge = Source(plans=plan)
        bench = Bench(edge, Source(CloudUnreachableError("x")), policy=policy_of(edge_speaks_first=True))
        assert await bench.ask(HARD) == CLAUSE + "各有长处。"
        assert bench.reasons == [f"{POOL}:complex", "edge:cloud-unreachable"]
        assert edge.prompts[-1].messages[-1].text == CLAUSE

    run(scenario())


def test_without_the_setting_or_for_an_edge_turn_nothing_is_drafted() -> None:
    async def scenario() -> None:
        edge = Source(TOPIC)
        assert await Bench(edge, Source("云端。")).ask(HARD) == "云端。"
        assert edge.started == 0

    run(scenario())
