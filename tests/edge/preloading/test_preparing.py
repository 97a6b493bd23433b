from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog.testing

from coordinator.buckets import MemoryBucket
from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.preloading.foreseen import Content, Foreseen, encode_foreseen
from coordinator.preloading.shelf import ShelvedTier
from edge.preloading.idle import IdleTime
from edge.preloading.preparing import HOUR_S, TRIES, Preparer
from models.errors import SynthesisError
from models.prompts import Message, Prompt
from tests.coordinator.cache.tiers import LeasingTier
from tests.virtual_time import run

HOUR = 500_000
SPOKEN = b"o" * 20_000


def answer_key(question: str) -> str:
    return key_of(Kind.ANSWER, question)


def spoken_key(answer: str) -> str:
    return key_of(Kind.AUDIO, answer)


def content(question: str, at_edge: float = 0.9, in_fleet: float = 0.99, text: str | None = None) -> Content:
    return Content(answer_key(question), at_edge, in_fleet, 1.0, f"zh {question}" if text is None else text)


def hour_of(*contents: Content, hour: int = HOUR) -> Foreseen:
    return Foreseen(group="north", hour=hour, contents=contents)


class Making:
    """Makes what it is asked to, in five seconds; a question that begins with ! cannot be spoken, one with ? is not remembered."""

    def __init__(self, ladder: Ladder) -> None:
        self.made: list[str] = []
        self.running = 0
        self._ladder = ladder

    def key(self, prompt: Prompt) -> str | None:
        return answer_key(prompt.question) if len(prompt.question) > 1 else None

    def spoken_key(self, answer_key: str) -> str:
        return spoken_key(answer_key)

    def prompt(self, language: str, question: str) -> Prompt:
        return Prompt(turn_id="preload", messages=(Message(role="user", text=question),), language=language)

    async def make(self, prompt: Prompt) -> bool:
        self.running += 1
        try:
            await asyncio.sleep(5)
        finally:
            self.running -= 1
        if prompt.question.startswith("!"):
            raise SynthesisError("no voice")
        self.made.append(prompt.question)
        if prompt.question.startswith("?"):
            return False
        self._ladder.put(answer_key(prompt.question), b"text")
        self._ladder.put(spoken_key(answer_key(prompt.question)), SPOKEN)
        return True


@dataclasses.dataclass
class Site:
    ladder: Ladder
    shelf: ShelvedTier
    far: LeasingTier
    making: Making
    preparer: Preparer
    results: list[tuple[str, str]]
    made: list[str]
    busy: list[bool]

    def has(self, question: str) -> bool:
        return self.shelf.get(spoken_key(answer_key(question))) is not None


@asynccontextmanager
async def site(
    far: LeasingTier | None = None, *, shelf_bytes: int = 1 << 20, budget_s: float = 100.0, since_s: float = 0.0
) -> AsyncGenerator[Site, None]:
    loop = asyncio.get_running_loop()
    tier = far or LeasingTier()
    shelf = ShelvedTier(MemoryTier(max_bytes=1 << 20, now=loop.time), shelf_bytes=shelf_bytes, now=loop.time)
    results: list[tuple[str, str]] = []
    made: list[str] = []
    busy = [False]
    async with Ladder(shelf, [tier]).open() as ladder:
        making = Making(ladder)
        preparer = Preparer(
            ladder,
            shelf,
            making,
            IdleTime(is_busy=lambda: busy[0], calm_s=5.0),
            edge_id="edge-1",
            shares=True,
            shelf_bytes=shelf_bytes,
            budget_s=budget_s,
            observe=lambda action, result: results.append((action, result)),
            made=made.append,
            now=lambda: HOUR * HOUR_S + since_s + loop.time(),
        )
        yield Site(ladder, shelf, tier, making, preparer, results, made, busy)
        assert making.running == 0


async def stored(*questions: str) -> LeasingTier:
    """A far tier that another edge filled."""
    tier = LeasingTier()
    async with Ladder(None, [tier]).open() as ladder:
        for question in questions:
            ladder.put(answer_key(question), b"text")
            ladder.put(spoken_key(answer_key(question)), SPOKEN)
    return tier


def test_what_others_made_is_loaded_and_what_nobody_has_is_made() -> None:
    async def scenario() -> None:
        async with site(await stored("猫怕水吗")) as here:
            await here.preparer.prepare(hour_of(content("猫怕水吗"), content("狗怕水吗")))
            assert here.has("猫怕水吗")
            assert here.has("狗怕水吗")
            assert here.making.made == ["狗怕水吗"]
            assert here.made == [answer_key("狗怕水吗")]
            assert here.results == [("load", "done"), ("load", "absent"), ("load", "absent"), ("make", "done")]
            assert here.ladder.near(answer_key("猫怕水吗")) == b"text"

    run(scenario())


def test_nothing_is_loaded_or_made_twice() -> None:
    async def scenario() -> None:
        async with site(await stored("猫怕水吗")) as here:
            for _ in range(2):
                await here.preparer.prepare(hour_of(content("猫怕水吗"), content("狗怕水吗")))
            assert here.making.made == ["狗怕水吗"]
            assert here.results.count(("load", "done")) == 1

    run(scenario())


def test_what_is_not_sure_has_no_words_or_leads_to_another_key_is_not_made() -> None:
    async def scenario() -> None:
        async with site() as here:
            await here.preparer.prepare(
                hour_of(
                    content("也许会问", 0.7, 0.75),
                    content("没有原话", text=""),
                    content("别的模型", text="zh 这里不一样"),
                )
            )
            assert here.making.made == []
            assert ("make", "other") in here.results

    run(scenario())


def test_a_forecast_of_another_hour_is_passed_over() -> None:
    async def scenario() -> None:
        async with site() as here:
            await here.preparer.prepare(hour_of(content("猫怕水吗"), hour=HOUR - 1))
            await here.preparer.prepare(hour_of(content("猫怕水吗"), hour=HOUR + 1))
            assert here.results == []

    run(scenario())


def test_a_shelf_takes_what_it_has_room_for_the_likeliest_first() -> None:
    async def scenario() -> None:
        questions = [f"问题{number}" for number in range(6)]
        async with site(await stored(*questions), shelf_bytes=75_000) as here:
            contents = [content(question, 0.3 + number / 10) for number, question in enumerate(questions)]
            await here.preparer.prepare(hour_of(*contents))
            shelved = [question for question in questions if here.has(question)]
            assert shelved[-3:] == questions[-3:]
            assert here.shelf.held_bytes <= 75_000

    run(scenario())


def test_making_waits_until_nobody_is_served_and_stops_when_somebody_comes() -> None:
    async def scenario() -> None:
        async with site() as here:
            loop = asyncio.get_running_loop()
            here.busy[0] = True
            loop.call_later(20, here.busy.__setitem__, 0, False)
            loop.call_later(27, here.busy.__setitem__, 0, True)
            loop.call_later(28, here.busy.__setitem__, 0, False)
            await here.preparer.prepare(hour_of(content("猫怕水吗")))
            assert here.making.made == ["猫怕水吗"]
            assert here.results[-2:] == [("make", "interrupted"), ("make", "done")]
            assert 37 < loop.time() < 40

    run(scenario())


def test_what_is_interrupted_again_and_again_is_left() -> None:
    async def scenario() -> None:
        async with site() as here:

            async def come_and_go() -> None:
                while True:
                    await asyncio.sleep(7)
                    here.busy[0] = True
                    await asyncio.sleep(0.3)
                    here.busy[0] = False

            visitors = asyncio.create_task(come_and_go())
            await here.preparer.prepare(hour_of(content("猫怕水吗")))
            assert here.results.count(("make", "interrupted")) == TRIES
            assert here.made == []
            visitors.cancel()
            await asyncio.wait([visitors])

    run(scenario())


def test_making_ends_with_its_hour() -> None:
    async def scenario() -> None:
        async with site(since_s=HOUR_S - 60) as here:
            here.busy[0] = True
            await here.preparer.prepare(hour_of(content("猫怕水吗")))
            assert asyncio.get_running_loop().time() == 60
            assert here.making.made == []

    run(scenario())


def test_one_edge_of_the_fleet_makes_a_content() -> None:
    async def scenario() -> None:
        async with site() as here:
            here.far.leases[f"{spoken_key(answer_key('猫怕水吗'))}:preload"] = "somebody else"
            await here.preparer.prepare(hour_of(content("猫怕水吗")))
            assert here.making.made == []
            assert here.results[-1] == ("make", "elsewhere")

    run(scenario())


def test_what_cannot_be_made_is_told_and_the_rest_is_made() -> None:
    async def scenario() -> None:
        async with site() as here:
            with structlog.testing.capture_logs() as logs:
                await here.preparer.prepare(hour_of(content("!不能说"), content("?不记得"), content("猫怕水吗")))
            assert here.made == [answer_key("猫怕水吗")]
            assert sorted(result for action, result in here.results if action == "make") == ["done", "failed", "failed"]
            assert "不能说" not in str(logs)

    run(scenario())


def test_nothing_is_made_that_a_far_tier_which_is_down_may_have() -> None:
    async def scenario() -> None:
        async with site(LeasingTier(broken=True)) as here:
            loop = asyncio.get_running_loop()
            await here.preparer.prepare(hour_of(*(content(f"问题{number}") for number in range(20))))
            assert here.making.made == []
            assert set(here.results) == {("load", "unsure")}
            assert loop.time() < 20, "it is waited for once"
            here.results.clear()
            await here.preparer.greet([("zh", "早上好")])
            assert here.has("早上好"), "first words are few, and wanted whatever happens"

    run(scenario())


def test_a_far_tier_that_is_back_in_time_is_asked_again() -> None:
    async def scenario() -> None:
        far = await stored("猫怕水吗")
        far.broken = True
        async with site(far) as here:
            asyncio.get_running_loop().call_later(2, setattr, far, "broken", False)
            await here.preparer.prepare(
                hour_of(*(content(f"问题{number}") for number in range(3)), content("猫怕水吗"))
            )
            assert here.has("猫怕水吗")
            assert "猫怕水吗" not in here.making.made

    run(scenario())


def test_first_words_are_made_once_and_those_others_made_are_loaded() -> None:
    async def scenario() -> None:
        async with site(await stored("早上好")) as here:
            await here.preparer.greet([("zh", "早上好"), ("zh", "嗯"), ("zh", "晚上好")])
            assert here.making.made == ["晚上好"]
            assert here.has("早上好")
            assert here.made == [], "they are no forecast that could come true"

    run(scenario())


def test_each_forecast_is_followed_and_one_that_cannot_be_read_is_passed_over() -> None:
    async def scenario() -> None:
        async with site() as here:
            bucket = MemoryBucket()
            following = asyncio.create_task(here.preparer.follow(bucket, "north"))
            with structlog.testing.capture_logs() as logs:
                await bucket.put("north", b"junk")
                await asyncio.sleep(1)
                await bucket.put("north", encode_foreseen("north", HOUR, [content("猫怕水吗")]))
                await asyncio.sleep(60)
                await bucket.put("north", encode_foreseen("north", HOUR, [content("猫怕水吗"), content("狗怕水吗")]))
                await asyncio.sleep(60)
            assert here.making.made == ["猫怕水吗", "狗怕水吗"]
            assert "forecast_unreadable" in [entry["event"] for entry in logs]
            following.cancel()
            await asyncio.wait([following])

    run(scenario())


def test_what_making_takes_here_is_learned_and_kept_within_the_hours_budget() -> None:
    async def scenario() -> None:
        async with site(budget_s=20.0) as here:
            contents = [content(f"问题{number}") for number in range(30)]
            await here.preparer.prepare(hour_of(*contents))
            assert len(here.made) == 10, "two seconds each, until something was made"
            await here.preparer.prepare(hour_of(*contents))
            assert 4 <= len(here.made) - 10 < 8, "each takes five"

    run(scenario())
