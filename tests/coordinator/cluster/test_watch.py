from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from coordinator.cluster import watch as module
from coordinator.cluster.endpoints import Endpoint, ServicePort, Slice, WatchEvent, ready_urls
from coordinator.cluster.watch import FIRST_WAIT_S, LONGEST_WAIT_S, EndpointWatch, Follower, State
from models.errors import CloudUnreachableError, ConfigError
from tests import real_time
from tests.coordinator.cluster.api_server import bookmark, endpoint, event, expired, slice_document

WHERE = ServicePort("vllm-qwen-72b", "xiaozhi-cloud", "http")
AWAY = CloudUnreachableError("kubernetes: away")


def listed(*addresses: str, version: int = 1) -> tuple[list[Slice], str]:
    document = slice_document("a", [endpoint(address, f"pod-{address}") for address in addresses])
    return [msgspec.json.decode(json.dumps(document), type=Slice)], str(version)


def changed(*addresses: str, version: int, name: str = "a") -> bytes:
    document = slice_document(name, [endpoint(address, f"pod-{address}") for address in addresses])
    document["metadata"]["resourceVersion"] = str(version)
    return event("MODIFIED", document)


class Script:
    """An API that answers as planned on a clock of its own, and what came of it; ends the follower when the plan is over."""

    def __init__(self, *answers: Any, resync_s: float = 300.0) -> None:
        self.now_s = 0.0
        self.answers = list(answers)
        self.asked: list[str] = []
        self.waits: list[float] = []
        self.found: list[set[str]] = []
        self.states: list[State] = []
        self.reasons: list[str] = []
        self.is_over = False
        follower = Follower(
            WHERE,
            found=lambda endpoints: self.found.append(set(ready_urls(endpoints))),
            state=self._note,
            wait=self._wait,
            resync_s=resync_s,
            now=lambda: self.now_s,
            rng=random.Random(1),
        )
        follower.follow(self._connect, lambda _api: None)

    def _connect(self) -> Script:
        if self.answers[0] == "no account":
            self.answers.pop(0)
            raise ConfigError("no Kubernetes account")
        return self

    def _next(self) -> Any:
        if not self.answers:
            self.is_over = True
            raise AWAY
        return self.answers.pop(0)

    def _note(self, state: State, reason: str) -> None:
        if not self.is_over:
            self.states.append(state)
            self.reasons.append(reason)

    def _wait(self, seconds: float) -> bool:
        if seconds and not self.is_over:
            self.waits.append(seconds)
        self.now_s += seconds
        return self.is_over

    def list_slices(self, _where: ServicePort) -> tuple[list[Slice], str]:
        answer = self._next()
        self.asked.append("list")
        assert isinstance(answer, tuple | Exception), "a watch was planned"
        if isinstance(answer, Exception):
            raise answer
        return answer

    def watch_slices(self, _where: ServicePort, version: str) -> Generator[WatchEvent, None, None]:
        plan: Iterable[bytes | float | Exception] = self._next()
        self.asked.append(f"watch {version}")
        assert isinstance(plan, list), "a list was planned"
        for each in plan:
            if isinstance(each, Exception):
                raise each
            if isinstance(each, float):
                self.now_s += each
            else:
                yield msgspec.json.decode(each, type=WatchEvent)

    def close(self) -> None:
        pass


def url(*addresses: str) -> set[str]:
    return {f"http://{address}:8000" for address in addresses}


def test_changes_follow_a_list() -> None:
    script = Script(listed("10.0.0.1"), [changed("10.0.0.1", "10.0.0.2", version=2), changed("10.0.0.2", version=3)])
    assert script.found == [url("10.0.0.1"), url("10.0.0.1", "10.0.0.2"), url("10.0.0.2")]
    assert script.asked == ["list", "watch 1"]


def test_a_watch_the_server_ends_goes_on_from_its_last_version() -> None:
    script = Script(listed("10.0.0.1"), [60.0], [changed("10.0.0.2", version=4), 60.0], [bookmark(9), 60.0], [60.0])
    assert script.asked == ["list", "watch 1", "watch 1", "watch 4", "watch 9"]
    assert script.waits == []


@pytest.mark.parametrize("plan", [[expired()], [bookmark(5), expired()]])
def test_a_version_too_old_means_a_new_list(plan: list[bytes]) -> None:
    script = Script(listed("10.0.0.1"), plan, listed("10.0.0.2", version=50), [60.0])
    assert [0 < wait <= 2 * FIRST_WAIT_S for wait in script.waits] == [True], "a little, lest it be a rush"
    assert script.asked == ["list", "watch 1", "list", "watch 50"]
    assert script.states == ["listed", "expired", "listed"]
    assert script.found == [url("10.0.0.1"), url("10.0.0.2")]


def test_an_api_that_is_away_empties_nothing() -> None:
    script = Script(listed("10.0.0.1"), [60.0, AWAY], AWAY, AWAY, ConfigError("forbidden (403)"), listed("10.0.0.1"))
    assert script.found == [url("10.0.0.1")] * 2
    assert script.states == ["listed", "failed", "failed", "failed", "refused", "listed"]
    assert script.reasons[4] == "forbidden (403)"


def test_a_service_scaled_to_zero_is_told_as_empty() -> None:
    script = Script(listed("10.0.0.1"), [changed(version=2)])
    assert script.found[-1] == set()


def test_waits_double_with_jitter_and_have_a_ceiling() -> None:
    script = Script(*[AWAY] * 12, listed())
    ceilings = [min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**number) for number in range(12)]
    assert len(script.waits) == 12
    assert all(most / 2 <= wait <= most for wait, most in zip(script.waits, ceilings, strict=True))
    assert len({wait / most for wait, most in zip(script.waits, ceilings, strict=True)}) == 12, "jitter"


def test_a_good_watch_makes_the_next_wait_short_again() -> None:
    script = Script(*[AWAY] * 8, listed(), [60.0], [AWAY], listed())
    assert script.waits[7] > 10
    assert script.waits[8] <= FIRST_WAIT_S


@pytest.mark.parametrize(
    "plan",
    [
        [],
        [0.5],
        [expired()],
        [event("ERROR", {"code": 500})],
        [event("ERROR", "what")],
        [event("ADDED", {"endpoints": 3})],
        [AWAY],
    ],
)
def test_watches_that_fail_at_once_are_not_repeated_in_a_rush(plan: list[Any]) -> None:
    script = Script(*[listed("10.0.0.1"), plan] * 6)
    assert script.asked == ["list", "watch 1"] * 6
    assert len(script.waits) == 6
    assert script.waits[4] > 2 * script.waits[1] > 0, "longer each time, though lists succeed"


def test_a_watch_that_ends_with_garbage_after_news_still_waits_a_little() -> None:
    script = Script(*[listed("10.0.0.1"), [changed("10.0.0.1", version=2), AWAY]] * 4, listed())
    assert len(script.waits) == 4
    assert all(0 < wait <= FIRST_WAIT_S for wait in script.waits)


def test_a_list_is_made_every_so_often_though_nothing_failed() -> None:
    script = Script(listed("10.0.0.1"), [60.0], [60.0], listed("10.0.0.2", version=7), [60.0], resync_s=100.0)
    assert script.asked == ["list", "watch 1", "watch 1", "list", "watch 7"]
    assert script.waits == []


def test_a_watch_that_never_ends_is_left_for_a_list_in_time() -> None:
    endless = [each for number in range(2, 12) for each in (60.0, changed("10.0.0.1", version=number))]
    script = Script(listed("10.0.0.1"), endless, listed("10.0.0.2", version=20))
    assert script.asked == ["list", "watch 1", "list"]
    assert script.found[-1] == url("10.0.0.2")


def test_an_unknown_kind_of_event_moves_the_version_only() -> None:
    document = slice_document("a", [])
    document["metadata"]["resourceVersion"] = "6"
    script = Script(listed("10.0.0.1"), [event("SOMETHING", document), 60.0], [60.0])
    assert script.asked == ["list", "watch 1", "watch 6"]
    assert script.found == [url("10.0.0.1")]


def test_a_list_without_a_version_is_repeated_at_leisure() -> None:
    slices, _ = listed("10.0.0.1")
    script = Script(*[(slices, "")] * 4)
    assert script.asked == ["list"] * 4
    assert len(script.waits) == 4


def test_a_missing_account_is_tried_again() -> None:
    script = Script("no account", "no account", listed("10.0.0.1"))
    assert script.states == ["refused", "refused", "listed"]
    assert len(script.waits) == 2


# The thread


class Held:
    """An API whose watch yields what a test puts there."""

    def __init__(self) -> None:
        self.news: list[bytes | Exception] = []
        self.told = threading.Condition()
        self.closed = threading.Event()
        self.lists = 0
        self.slices = listed("10.0.0.1")
        self.fails = False

    def say(self, *news: bytes | Exception) -> None:
        with self.told:
            self.news += news
            self.told.notify_all()

    def list_slices(self, _where: ServicePort) -> tuple[list[Slice], str]:
        self.lists += 1
        if self.fails:
            raise AWAY
        return self.slices

    def watch_slices(self, _where: ServicePort, _version: str) -> Generator[WatchEvent, None, None]:
        while not self.closed.is_set():
            with self.told:
                if not self.news:
                    self.told.wait(5)
                news = self.news.pop(0) if self.news else None
            if isinstance(news, Exception):
                raise news
            if news is not None:
                yield msgspec.json.decode(news, type=WatchEvent)
        raise CloudUnreachableError("kubernetes: closed")

    def close(self) -> None:
        self.closed.set()
        with self.told:
            self.told.notify_all()


class Heard:
    """What a watch told, and a way to wait for it."""

    def __init__(self) -> None:
        self.sets: list[set[str]] = []
        self.states: list[State] = []
        self.news = asyncio.Event()

    def __call__(self, endpoints: frozenset[Endpoint]) -> None:
        self.sets.append(set(ready_urls(endpoints)))
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the other thread has no way to tell this loop
            await asyncio.sleep(0.005)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("watch-")}


@contextmanager
def no_threads_left() -> Generator[None, None, None]:
    assert not threads()
    yield
    assert not threads()


def test_what_changes_is_told_on_the_loop_and_nothing_after_closing() -> None:
    async def scenario() -> None:
        api, heard = Held(), Heard()
        loop_thread = threading.current_thread()
        told_in: set[threading.Thread] = set()

        def told(endpoints: frozenset[Endpoint]) -> None:
            told_in.add(threading.current_thread())
            heard(endpoints)

        watch = EndpointWatch(WHERE, told, connect=lambda: api, observe=heard.states.append)
        assert not watch.is_current
        async with watch:
            await heard.until(lambda: watch.is_current and bool(heard.sets))
            api.say(changed("10.0.0.1", "10.0.0.2", version=2))
            await heard.until(lambda: len(heard.sets) == 2)
            assert threads() == {"watch-vllm-qwen-72b"}
        api.say(changed("10.0.0.9", version=3))
        await asyncio.sleep(0)
        assert heard.sets == [url("10.0.0.1"), url("10.0.0.1", "10.0.0.2")]
        assert told_in == {loop_thread}
        assert heard.states == ["listed"]
        assert api.closed.is_set()

    with no_threads_left():
        real_time.run(scenario())


def test_equal_sets_are_told_once() -> None:
    async def scenario() -> None:
        api, heard = Held(), Heard()
        async with EndpointWatch(WHERE, heard, connect=lambda: api):
            await heard.until(lambda: bool(heard.sets))
            api.say(changed("10.0.0.1", version=2), changed("10.0.0.1", version=3), changed("10.0.0.2", version=4))
            await heard.until(lambda: len(heard.sets) > 1)
        assert heard.sets == [url("10.0.0.1"), url("10.0.0.2")]

    real_time.run(scenario())


def test_a_busy_loop_hears_only_the_latest() -> None:
    async def scenario() -> None:
        api, heard = Held(), Heard()
        async with EndpointWatch(WHERE, heard, connect=lambda: api):
            await heard.until(lambda: bool(heard.sets))
            read = threading.Event()
            api.say(*[changed(f"10.0.1.{number}", version=number + 2) for number in range(200)])
            wait_for(lambda: not api.news, read)
            await heard.until(lambda: url("10.0.1.199") in heard.sets)
        assert len(heard.sets) < 10

    real_time.run(scenario())


def wait_for(condition: Callable[[], bool], pause: threading.Event) -> None:
    """Block the loop on purpose until the other thread has done its part."""
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never came")


def test_the_last_endpoints_stay_and_the_problem_is_told_while_the_api_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)

    async def scenario() -> None:
        api, heard = Held(), Heard()
        async with EndpointWatch(WHERE, heard, connect=lambda: api, observe=heard.states.append) as watch:
            await heard.until(lambda: watch.is_current and bool(heard.sets))
            api.fails = True
            api.say(AWAY)
            await heard.until(lambda: api.lists > 2)
            assert watch.problem == "kubernetes: away"
            assert heard.sets == [url("10.0.0.1")]
            api.slices = listed("10.0.0.5")
            api.fails = False
            await heard.until(lambda: watch.is_current and len(heard.sets) == 2)
            assert heard.sets[-1] == url("10.0.0.5")

    with no_threads_left():
        real_time.run(scenario())


def test_cancelling_while_open_leaves_no_thread() -> None:
    async def scenario() -> None:
        api, heard = Held(), Heard()

        async def live() -> None:
            async with EndpointWatch(WHERE, heard, connect=lambda: api):
                await asyncio.Event().wait()

        living = asyncio.create_task(live())
        await heard.until(lambda: bool(heard.sets))
        living.cancel()
        await asyncio.sleep(0)
        living.cancel()  # and once more while it closes
        with pytest.raises(asyncio.CancelledError):
            await living
        assert not threads()

    with no_threads_left():
        real_time.run(scenario())


def test_closing_while_it_connects_waits_for_that_and_closes_what_came() -> None:
    async def scenario() -> None:
        api, heard, going, go = Held(), Heard(), threading.Event(), threading.Event()

        def connect() -> Held:
            going.set()
            go.wait(5)
            return api

        async with EndpointWatch(WHERE, heard, connect=connect):
            await heard.until(going.is_set)
            asyncio.get_running_loop().call_later(0.02, go.set)
        assert api.closed.is_set()
        assert heard.sets == []

    with no_threads_left():
        real_time.run(scenario())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_broke_off_says_so() -> None:
    class Broken(Held):
        def list_slices(self, _where: ServicePort) -> tuple[list[Slice], str]:
            raise ZeroDivisionError

    async def scenario() -> None:
        api, heard = Broken(), Heard()
        async with EndpointWatch(WHERE, heard, connect=lambda: api) as watch:
            await heard.until(lambda: not threads())
            assert "broke off" in watch.problem
        assert api.closed.is_set()

    with no_threads_left():
        real_time.run(scenario())


def test_a_missing_library_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from coordinator.cluster import api

    monkeypatch.setattr(api, "find_spec", lambda _name: None)

    async def scenario() -> None:
        async with EndpointWatch(WHERE, Heard()):
            raise AssertionError("it opened")

    with pytest.raises(ConfigError, match="pip install"):
        real_time.run(scenario())
