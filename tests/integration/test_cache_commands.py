"""The ``cache`` command on a real Redis, and a purge as edges behind a leaf meet it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from coordinator.buckets import JetStreamBucket
from coordinator.cache.answers import AnswerCache
from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.cache.redis_tier import RedisTier
from coordinator.jetstream import JetStream
from coordinator.nats_bus import NatsBus
from coordinator.policy_store import POLICY_KEEPING
from coordinator.wire import POLICY_BUCKET
from edge.brain.conversation import Conversation
from edge.cache_commands import app
from edge.remembering import answers, follow_purges
from edge.settings import EdgeSettings
from tests.integration.cache_servers import redis_server
from tests.integration.test_policy_bucket import hub_and_leaf
from tests.real_time import run

QUESTION = "水的沸点是多少度"


async def said(redis_url: str, *arguments: str) -> Result:
    return await asyncio.to_thread(
        CliRunner().invoke, app, [*arguments], env={"EDGE_REDIS_URL": redis_url, "EDGE_S3_URL": ""}
    )


async def until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110  # other processes: nothing to wait on
            await asyncio.sleep(0.02)


def test_what_is_remembered_is_counted_shown_and_forgotten_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_server(tmp_path) as (port, _), hub_and_leaf(tmp_path) as (hub, leaf):
            url = f"redis://127.0.0.1:{port}/0"
            settings = EdgeSettings(redis_url=url)
            prompt = Conversation("d").prompt("t", QUESTION)
            async with (
                RedisTier.connect(url) as tier,
                Ladder(MemoryTier(), [tier]).open() as ladder,
                NatsBus.connect(leaf.url, name="edge") as bus,
            ):
                bucket = JetStreamBucket(JetStream(bus, domain="hub", asker="edge-1"), POLICY_BUCKET)
                await bucket.make(POLICY_KEEPING)  # as the coordinator does
                following = asyncio.create_task(follow_purges(bucket, ladder))
                cache: AnswerCache = answers(settings, ladder)
                speech = [key_of(Kind.SPEECH, str(number)) for number in range(40)]
                assert cache.put(prompt, "一百度。", "qwen")
                for key in speech:
                    ladder.put(key, b"opus" * 100)
                await until(lambda: not any(waiting() for waiting in ladder.writes_waiting.values()))

                counted = json.loads((await said(url, "stats", "--json")).stdout)["tiers"]["redis"]
                assert counted["kinds"] == {"answer": 1, "speech": 40}
                assert counted["bytes"] > 16_000
                assert counted["age_s"]["values"] == 41
                assert 0 <= counted["age_s"]["p50"] <= counted["age_s"]["oldest"] < 60
                assert "41 looked at" in (await said(url, "stats")).stdout
                shown = await said(url, "get", QUESTION + "？")
                assert (shown.exit_code, "一百度。" in shown.stdout) == (0, True), shown.output
                assert (await said(url, "get", "月亮离地球有多远")).exit_code == 1

                dry = await said(url, "purge", "--scope", "speech", "--dry-run", "--json")
                assert json.loads(dry.stdout) == {"held": {"redis": 40}}
                assert ladder.near(speech[0]) is not None

                to_hub = ("--nats-url", hub.url, "--yes", "--json")
                forgot = await said(url, "purge", "--scope", "speech", *to_hub)
                assert forgot.exit_code == 0, forgot.output
                assert json.loads(forgot.stdout)["deleted"] == {"redis": 40}
                await until(lambda: ladder.near(speech[0]) is None)
                assert await ladder.get(speech[1]) is None
                assert await cache.get(prompt) is not None

                refused = await said(url, "purge", "--question", QUESTION, "--nats-url", hub.url, "--json")
                assert refused.exit_code == 1
                assert "add --yes" in refused.stderr
                assert (await said(url, "purge", "--question", QUESTION, *to_hub)).exit_code == 0
                asked = cache.key(prompt)
                assert asked is not None
                await until(lambda: ladder.near(asked) is None)
                assert await ladder.beyond(asked, again=True) is None
                following.cancel()
                await asyncio.wait([following])

    run(scenario(), timeout_s=90)
