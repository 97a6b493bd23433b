from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing

from coordinator.buckets import MemoryBucket
from coordinator.policy_watch import STATE_FILE, PolicyWatch, replace_file
from coordinator.routing.policy import Conditions, Policy
from coordinator.routing.router import Router
from coordinator.turns import Tier
from coordinator.wire import POLICY_KEY
from models.errors import ConfigError
from models.prompts import Message, Prompt
from tests import real_time
from tests.virtual_time import run


def document(version: int, threshold: float = 0.7) -> bytes:
    return json.dumps({"version": version, "threshold": threshold}).encode()


class Edge:
    """What takes policies, and perhaps not all."""

    def __init__(self, unusable: int = -1) -> None:
        self.versions: list[int] = []
        self.refused: list[str] = []
        self._unusable = unusable
        self._changed = asyncio.Event()

    def change(self, policy: Policy) -> None:
        if policy.version == self._unusable:
            raise ConfigError("it has no weights for this router")
        self.versions.append(policy.version)
        self._changed.set()

    def refuse(self, reason: str) -> None:
        self.refused.append(reason)
        self._changed.set()

    async def has(self, versions: list[int], refused: tuple[str, ...] = ()) -> None:
        async with asyncio.timeout(10):
            while (self.versions, tuple(self.refused)) != (versions, refused):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def watching(
    bucket: MemoryBucket, edge: Edge, state_dir: Path | None = None
) -> AsyncGenerator[PolicyWatch, None]:
    watch = PolicyWatch(bucket, edge.change, state_dir=state_dir, refused=edge.refuse)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), "it ends for nothing else"


def test_each_good_policy_is_put_in_force() -> None:
    async def scenario() -> None:
        bucket, edge = MemoryBucket(), Edge()
        await bucket.put(POLICY_KEY, document(1))
        async with watching(bucket, edge) as watch:
            await edge.has([1])
            await bucket.put("other", b"x")
            await bucket.put(POLICY_KEY, document(2))
            await edge.has([1, 2])
            assert watch.revision == 3

    run(scenario())


@pytest.mark.parametrize(
    "bad", [b"", b"junk", b"\xff", b"[]", b'{"version": 2, "treshold": 0.7}', b'{"version": 2, "threshold": "high"}']
)
def test_a_policy_that_cannot_be_one_is_refused_whole_and_the_old_one_stays(bad: bytes) -> None:
    async def scenario() -> None:
        bucket, edge = MemoryBucket(), Edge()
        async with watching(bucket, edge) as watch:
            await bucket.put(POLICY_KEY, document(1))
            await edge.has([1])
            with structlog.testing.capture_logs() as logs:
                await bucket.put(POLICY_KEY, bad)
                await edge.has([1], ("invalid",))
            assert [(entry["event"], entry["revision"]) for entry in logs] == [("policy_refused", 2)]
            assert watch.revision == 1
            await bucket.put(POLICY_KEY, document(3))
            await edge.has([1, 3], ("invalid",))

    run(scenario())


def test_a_policy_this_edge_cannot_use_is_refused_and_not_saved(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket, edge = MemoryBucket(), Edge(unusable=2)
        async with watching(bucket, edge, tmp_path):
            await bucket.put(POLICY_KEY, document(1))
            await edge.has([1])
            await bucket.put(POLICY_KEY, document(2))
            await edge.has([1], ("unusable",))
            assert json.loads((tmp_path / STATE_FILE).read_bytes())["version"] == 1
            await bucket.put(POLICY_KEY, document(3))
            await edge.has([1, 3], ("unusable",))

    real_time.run(scenario())


def test_a_router_follows_its_bucket_and_keeps_what_it_decided_and_what_it_can_do() -> None:
    async def scenario() -> None:
        router, refused = Router(Policy(threshold=2.0), None), asyncio.Event()
        prompt = Prompt(turn_id="t", messages=(Message(role="user", text="讲个故事"),))
        changed = asyncio.Event()

        def change(policy: Policy) -> None:
            router.change(policy)
            changed.set()

        bucket = MemoryBucket()
        watch = PolicyWatch(bucket, change, refused=lambda _reason: refused.set())
        task = asyncio.create_task(watch.run())
        before = router.decide(prompt, Conditions())
        await bucket.put(POLICY_KEY, document(4, threshold=0.0))
        await changed.wait()
        after = router.decide(prompt, Conditions())
        assert [(one.tier, one.policy) for one in (before, after)] == [(Tier.EDGE, 0), (Tier.CLOUD, 4)]
        await bucket.put(POLICY_KEY, b'{"version": 5, "quality_floor": 0.95}')
        await refused.wait()
        assert router.decide(prompt, Conditions()) == after, "nothing was proven for this router"
        task.cancel()
        await asyncio.wait([task])

    run(scenario())


def test_the_last_good_policy_outlives_a_restart_without_the_bucket(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = tmp_path / "made" / "when needed"
        bucket, before, after = MemoryBucket(), Edge(), Edge()
        async with watching(bucket, before, state):
            await bucket.put(POLICY_KEY, document(1))
            await before.has([1])
            await bucket.put(POLICY_KEY, b"junk")
            await before.has([1], ("invalid",))
        async with watching(MemoryBucket(), after, state) as watch:
            await after.has([1])
            assert watch.revision == 0, "it is not known whether the bucket still says so"
        assert sorted(path.name for path in state.iterdir()) == [STATE_FILE]

    real_time.run(scenario())


def test_a_watch_that_is_left_while_it_saves_is_done_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []

    def slowly(_file: int) -> None:
        threading.Event().wait(0.2)
        saved.append("to the disk")

    async def scenario() -> None:
        bucket, edge = MemoryBucket(), Edge()
        async with watching(bucket, edge, tmp_path):
            await bucket.put(POLICY_KEY, document(1))
            await edge.has([1])
            assert not saved
        assert saved

    monkeypatch.setattr("os.fsync", slowly)
    real_time.run(scenario())
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_a_start_may_wait_for_the_saved_policy(tmp_path: Path) -> None:
    async def scenario() -> None:
        edge = Edge()
        watch = PolicyWatch(MemoryBucket(), edge.change, state_dir=tmp_path, refused=edge.refuse)
        assert not await watch.restore()
        (tmp_path / STATE_FILE).write_bytes(document(4))
        assert await watch.restore()
        assert edge.versions == [4]
        (tmp_path / STATE_FILE).write_bytes(document(4)[:-3])
        assert not await watch.restore()
        assert (edge.versions, edge.refused) == ([4], ["invalid"])
        assert not await PolicyWatch(MemoryBucket(), edge.change).restore()

    real_time.run(scenario())


def test_a_state_directory_that_cannot_be_used_costs_only_the_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / STATE_FILE).mkdir()
        bucket, edge = MemoryBucket(), Edge()
        with structlog.testing.capture_logs() as logs:
            async with watching(bucket, edge, tmp_path):
                await bucket.put(POLICY_KEY, document(1))
                await edge.has([1], ("unsaved",))
        assert [entry["event"] for entry in logs] == ["policy_unreadable", "policy_in_force", "policy_unsaved"]

    real_time.run(scenario())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
