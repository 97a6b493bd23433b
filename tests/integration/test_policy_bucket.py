"""Policy and turns in the hub's JetStream, as edges behind a leaf and an operator's commands meet them."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from coordinator import buckets, jetstream, wire
from coordinator.buckets import JetStreamBucket, Keeping
from coordinator.commands import explain, replay
from coordinator.jetstream import JetStream
from coordinator.nats_bus import NatsBus
from coordinator.policy_commands import app as policy_app
from coordinator.policy_store import POLICY_KEEPING
from coordinator.policy_watch import PolicyWatch
from coordinator.routing.policy import Policy
from coordinator.stores import make_stores
from coordinator.turn_log import TurnLog
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord
from coordinator.wire import POLICY_BUCKET, POLICY_KEY
from manifests.processes import children, free_ports
from models.errors import CloudUnreachableError, ConfigError
from tests.integration.test_nats_road import NOTICED_S, Server, until
from tests.real_time import run


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a followed stream be missed, and a bucket that is not made yet be asked for again, after a second or two."""
    monkeypatch.setattr(buckets, "REFUSED_S", 0.5)
    monkeypatch.setattr(jetstream, "HEARTBEAT_S", 0.5)
    monkeypatch.setattr(jetstream, "SILENCE_S", 1.5)


@asynccontextmanager
async def hub_and_leaf(base: Path, *, is_hub_up: bool = True) -> AsyncGenerator[tuple[Server, Server], None]:
    """A hub and a leaf, each with a JetStream of its own domain, as ``manifests/base`` configures them."""
    hub_port, link_port, leaf_port = free_ports(3)
    ping = {"ping_interval": "2s", "ping_max": 2}
    hub_config = {
        "port": hub_port,
        "server_name": "hub",
        "jetstream": {"store_dir": str(base / "js-hub"), "domain": "hub"},
        "leafnodes": {"host": "127.0.0.1", "port": link_port},
    }
    leaf_config = {
        "port": leaf_port,
        "server_name": "leaf",
        "jetstream": {"store_dir": str(base / "js-leaf"), "domain": "edge"},
        "leafnodes": {"remotes": [{"url": f"nats-leaf://127.0.0.1:{link_port}"}], "reconnect": 1},
    }
    async with children(base) as group:
        hub, leaf = (
            Server(group, base, name, {"host": "127.0.0.1", **ping, **config})
            for name, config in (("hub", hub_config), ("leaf", leaf_config))
        )
        if is_hub_up:
            await hub.start()
        await leaf.start()
        yield hub, leaf


def bucket_on(bus: NatsBus, asker: str = "operator", domain: str = "hub") -> JetStreamBucket:
    return JetStreamBucket(JetStream(bus, domain=domain, asker=asker), POLICY_BUCKET)


async def reached(bucket: JetStreamBucket) -> None:
    """Return once the hub answers across the leaf."""
    async with asyncio.timeout(NOTICED_S):
        while True:
            try:
                await bucket.is_made()
            except CloudUnreachableError:
                await asyncio.sleep(0.05)
            else:
                return


def document(threshold: float, version: int = 1) -> bytes:
    return json.dumps({"version": version, "threshold": threshold}).encode()


@asynccontextmanager
async def edge_on(leaf: Server, state_dir: Path | None = None) -> AsyncGenerator[list[float | None], None]:
    """An edge's watch; yields the thresholds it was told."""
    told: list[float | None] = []

    def change(policy: Policy) -> None:
        told.append(policy.threshold)

    async with NatsBus.connect(leaf.url, name="edge-1") as bus:
        watch = asyncio.create_task(PolicyWatch(bucket_on(bus, "edge-1"), change, state_dir=state_dir).run())
        try:
            yield told
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            assert watch.cancelled()


# The bucket


def test_a_value_put_at_the_hub_reaches_a_watcher_behind_the_leaf(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            hub_and_leaf(tmp_path) as (hub, leaf),
            NatsBus.connect(hub.url, name="operator") as at_hub,
            NatsBus.connect(leaf.url, name="edge") as at_leaf,
        ):
            ours, theirs = bucket_on(at_hub), bucket_on(at_leaf, "edge-1")
            await ours.make(Keeping(history=3))
            await reached(theirs)
            assert await theirs.get("k") is None
            assert await ours.put("k", b"1", expected=0) == 1
            assert await theirs.put("k", b"2", expected=1) == 2, "an operator may work from behind a leaf"
            assert await theirs.put("k", b"x", expected=1) is None
            async with aclosing(theirs.watch("k")) as entries, asyncio.timeout(NOTICED_S):
                assert (await anext(entries)).value == b"2"
                for number in (3, 4):
                    await ours.put("k", b"%d" % number)
                    entry = await anext(entries)
                    assert (entry.value, entry.revision) == (b"%d" % number, number)
            assert [entry.value for entry in await theirs.history("k")] == [b"2", b"3", b"4"]
            assert not await bucket_on(at_leaf, "edge-1", domain="").is_made(), "the leaf's own JetStream has none"
            await ours.make(Keeping(history=1))
            assert [entry.value for entry in await theirs.history("k")] == [b"4"], "made again, it keeps as told"

    run(scenario(), timeout_s=60)


def test_a_bucket_is_the_one_other_tools_know(tmp_path: Path) -> None:
    async def scenario() -> None:
        nats = pytest.importorskip("nats")
        async with hub_and_leaf(tmp_path) as (hub, _), NatsBus.connect(hub.url, name="operator") as bus:
            ours = bucket_on(bus)
            await ours.make(POLICY_KEEPING)
            await ours.put("k", b"1")
            client = await nats.connect(hub.url)
            theirs = await client.jetstream(domain="hub").key_value(POLICY_BUCKET)
            assert (await theirs.get("k")).value == b"1"
            await theirs.delete("k")
            assert await ours.get("k") is None
            assert await ours.put("k", b"3") == 3
            await client.close()

    run(scenario(), timeout_s=60)


def test_more_replicas_than_servers_is_said_to_be_a_mistake(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hub_and_leaf(tmp_path) as (hub, _), NatsBus.connect(hub.url, name="operator") as bus:
            with pytest.raises(ConfigError, match="replicas"):
                await bucket_on(bus).make(Keeping(replicas=3))

    run(scenario(), timeout_s=60)


def test_a_user_with_the_rights_of_an_edge_can_watch_and_not_change(tmp_path: Path) -> None:
    rights = {
        # The second as the hub itself sees the first, before it looks at the rights of its own users.
        "publish": ["$JS.hub.API.CONSUMER.CREATE.KV_policy", "$JS.API.CONSUMER.CREATE.KV_policy"],
        "subscribe": ["voice.answer.edge-1.*"],
    }
    users = [{"user": "all", "password": "x"}, {"user": "edge", "password": "x", "permissions": rights}]

    async def scenario() -> None:
        port = free_ports(1)[0]
        config = {"jetstream": {"store_dir": str(tmp_path / "js"), "domain": "hub"}, "authorization": {"users": users}}
        async with children(tmp_path) as group:
            await Server(group, tmp_path, "hub", {"host": "127.0.0.1", "port": port, **config}).start()
            async with (
                NatsBus.connect(f"nats://all:x@127.0.0.1:{port}", name="all") as everything,
                NatsBus.connect(f"nats://edge:x@127.0.0.1:{port}", name="edge") as edge,
            ):
                await bucket_on(everything).make(POLICY_KEEPING)
                await bucket_on(everything).put("k", b"1")
                theirs = JetStreamBucket(JetStream(edge, domain="hub", asker="edge-1", answer_s=0.5), POLICY_BUCKET)
                async with aclosing(theirs.watch("k")) as entries, asyncio.timeout(NOTICED_S):
                    assert (await anext(entries)).value == b"1"
                with pytest.raises(CloudUnreachableError, match="may this user ask it"):
                    await theirs.put("k", b"2")

    run(scenario(), timeout_s=60)


# The watch


@pytest.mark.usefixtures("soon")
def test_an_edge_whose_hub_comes_late_and_goes_and_comes_again_has_the_newest_policy(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = tmp_path / "state"
        async with hub_and_leaf(tmp_path, is_hub_up=False) as (hub, leaf):
            async with edge_on(leaf, state) as told:
                await hub.start()
                async with NatsBus.connect(hub.url, name="operator") as bus:
                    bucket = bucket_on(bus)
                    await bucket.make(POLICY_KEEPING)
                    await bucket.put(POLICY_KEY, document(0.1))
                    await until(lambda: told == [0.1])
                await hub.kill()
                await hub.start()
                async with NatsBus.connect(hub.url, name="operator") as bus:
                    await bucket_on(bus).put(POLICY_KEY, document(0.2))
                    await until(lambda: told == [0.1, 0.2])
                await hub.kill()
            async with edge_on(leaf, state) as told:
                await until(lambda: told == [0.2])
                await hub.start()
                async with NatsBus.connect(hub.url, name="operator") as bus:
                    await bucket_on(bus).put(POLICY_KEY, document(0.3))
                    await until(lambda: told[-1] == 0.3)

    run(scenario(), timeout_s=120)


@pytest.mark.usefixtures("soon")
def test_an_edge_whose_hub_froze_has_the_newest_policy_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hub_and_leaf(tmp_path) as (hub, leaf), edge_on(leaf) as told:
            async with NatsBus.connect(hub.url, name="operator") as bus:
                await bucket_on(bus).make(POLICY_KEEPING)
                await bucket_on(bus).put(POLICY_KEY, document(0.1))
                await until(lambda: told == [0.1])
            hub.send(signal.SIGSTOP)
            await asyncio.sleep(3)
            hub.send(signal.SIGCONT)
            async with NatsBus.connect(hub.url, name="operator") as bus:
                await bucket_on(bus).put(POLICY_KEY, document(0.2))
                await until(lambda: told == [0.1, 0.2])

    run(scenario(), timeout_s=60)


@pytest.mark.usefixtures("soon")
def test_an_edge_whose_leaf_restarts_has_the_newest_policy_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            hub_and_leaf(tmp_path) as (hub, leaf),
            NatsBus.connect(hub.url, name="operator") as bus,
            edge_on(leaf) as told,
        ):
            await bucket_on(bus).make(POLICY_KEEPING)
            await bucket_on(bus).put(POLICY_KEY, document(0.1))
            await until(lambda: told == [0.1])
            await leaf.kill()
            await bucket_on(bus).put(POLICY_KEY, document(0.2))
            await leaf.start()
            await until(lambda: told == [0.1, 0.2])

    run(scenario(), timeout_s=60)


# Turns


def turn(number: int, edge_id: str = "edge-1") -> TurnRecord:
    decision = RoutingDecision(turn_id=f"t{number}", tier=Tier.EDGE, reason="below-threshold", score=0.2, threshold=0.7)
    return TurnRecord(
        turn_id=f"t{number}",
        session_id="s",
        device_id="d",
        edge_id=edge_id,
        outcome="answered",
        heard="水的沸点是多少度？",
        decisions=(decision,),
        marks=Marks(first_audio_ms=700),
    )


@asynccontextmanager
async def turns_kept(base: Path, count: int) -> AsyncGenerator[tuple[Server, Server], None]:
    """A hub that keeps the turns an edge behind a leaf told of."""
    async with (
        hub_and_leaf(base) as (hub, leaf),
        NatsBus.connect(hub.url, name="coordinator") as at_hub,
        NatsBus.connect(leaf.url, name="edge-1") as at_leaf,
    ):
        await make_stores(JetStream(at_hub, domain="hub"), keep_turns_hours=1, keep_turns_mib=64)
        log = TurnLog(JetStream(at_leaf, domain="hub"))
        async with asyncio.timeout(NOTICED_S):
            while not await found(log, "t0"):  # until the leaf knows that the hub listens
                await at_leaf.publish(wire.turn_subject("edge-1", "t0"), wire.encode(turn(0)))
                await asyncio.sleep(0.05)
        await at_leaf.publish(wire.turn_subject("edge-1", "junk"), b"junk")
        for number in range(1, count):
            await at_leaf.publish(wire.turn_subject("edge-1", f"t{number}"), wire.encode(turn(number)))
        async with asyncio.timeout(NOTICED_S):
            while not await found(log, f"t{count - 1}"):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
        yield hub, leaf


async def found(log: TurnLog, turn_id: str) -> bool:
    try:
        return await log.find(turn_id) is not None
    except CloudUnreachableError:
        return False


def test_turns_told_of_behind_the_leaf_are_kept_by_the_hub_until_it_is_told_to_forget(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with turns_kept(tmp_path, 700) as (hub, leaf), NatsBus.connect(leaf.url, name="operator") as bus:
            log = TurnLog(JetStream(bus, domain="hub"))
            kept = await log.find("t350")
            assert kept is not None
            assert kept.turn == turn(350)
            assert await log.find("unknown") is None
            assert await log.find("junk") is None
            async with aclosing(log.since(3600)) as turns:
                everything = [kept.turn.turn_id async for kept in turns]
            assert list(dict.fromkeys(everything)) == [f"t{number}" for number in range(700)], (
                "in order, without the junk"
            )
            async with aclosing(log.since(-60)) as turns:
                assert [kept async for kept in turns] == []
            async with NatsBus.connect(hub.url, name="coordinator") as at_hub:
                await make_stores(JetStream(at_hub, domain="hub"), keep_turns_hours=0)
            with pytest.raises(ConfigError, match="COORDINATOR_KEEP_TURNS_HOURS"):
                await log.find("t350")

    run(scenario(), timeout_s=60)


# The commands

fleet = typer.Typer()
fleet.command("explain")(explain)
fleet.command("replay")(replay)
fleet.add_typer(policy_app, name="policy")


async def said(url: str, *arguments: str) -> Result:
    """Return what a command says, run as people do but for its process."""
    return await asyncio.to_thread(CliRunner().invoke, fleet, [*arguments, "--nats-url", url])


def test_an_operator_explains_turns_and_tries_a_policy_on_them_from_a_leaf(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with turns_kept(tmp_path, 30) as (_, leaf):
            whole = await said(leaf.url, "explain", "t7")
            assert whole.exit_code == 0, whole.output
            assert whole.stdout.startswith("turn t7: answered by the edge, first sound 0.70 s")
            assert "“水的沸点是多少度？”" in whole.stdout
            listed = await said(leaf.url, "explain", "--last", "5")
            assert [line.split()[3] for line in listed.stdout.splitlines()[1:]] == [
                f"t{number}" for number in range(25, 30)
            ]
            unknown = await said(leaf.url, "explain", "nobody")
            assert (unknown.exit_code, unknown.stdout) == (1, "")
            assert "turn nobody is not kept" in unknown.stderr
            lines = await said(leaf.url, "explain", "--json")
            (tmp_path / "turns.jsonl").write_text(lines.stdout)
            again = await said("nats://127.0.0.1:1", "explain", "t29", "--from", str(tmp_path / "turns.jsonl"))
            assert again.stdout.startswith("turn t29: ")
            (tmp_path / "policy.json").write_bytes(document(0.0))
            tried = await said(leaf.url, "replay", str(tmp_path / "policy.json"), "--since", "1h", "--json")
            result = json.loads(tried.stdout)
            assert result["turns"] >= 30
            assert (result["cloud_share_before"], result["cloud_share_after"]) == (0.0, 1.0)
            arms = await said(leaf.url, "policy", "arms", "--since", "1h")
            assert arms.stdout.splitlines()[1].startswith("(none)")

    run(scenario(), timeout_s=60)


@pytest.mark.usefixtures("soon")
def test_an_operator_changes_the_policy_and_takes_it_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        file = tmp_path / "policy.json"
        async with hub_and_leaf(tmp_path) as (hub, leaf), edge_on(leaf) as told:
            nothing = await said(hub.url, "policy", "show")
            assert nothing.exit_code == 1
            assert "no policy is set" in nothing.stderr
            for threshold in (0.5, 0.9):
                file.write_bytes(document(threshold, version=99))
                done = await said(hub.url, "policy", "set", str(file), "--yes")
                assert done.exit_code == 0, done.output
            assert '+  "threshold": 0.9' in done.stdout
            assert "version 2 is in force as revision 2" in done.stdout
            await until(lambda: told[-1:] == [0.9])
            same = await said(hub.url, "policy", "set", str(file), "--yes")
            assert same.stdout == "nothing to do: revision 2 says the same\n"
            file.write_bytes(document(0.1))
            stale = await said(hub.url, "policy", "set", str(file), "--yes", "--revision", "1")
            assert stale.exit_code == 1
            assert "somebody else changed the policy" in stale.stderr
            back = await said(leaf.url, "policy", "rollback", "--yes")
            assert back.exit_code == 0, back.output
            await until(lambda: told[-1] == 0.5)
            shown = await said(hub.url, "policy", "show")
            assert json.loads(shown.stdout) == {"version": 3, "threshold": 0.5}
            history = await said(hub.url, "policy", "history", "--json")
            assert [(known["revision"], known["version"]) for known in json.loads(history.stdout)] == [
                (1, 1),
                (2, 2),
                (3, 3),
            ]

    run(scenario(), timeout_s=60)


@pytest.mark.parametrize("arguments", [["explain", "t1"], ["explain"], ["policy", "show"], ["policy", "arms"]])
def test_a_hub_that_keeps_nothing_and_none_at_all_are_told_apart(tmp_path: Path, arguments: list[str]) -> None:
    async def scenario() -> None:
        async with hub_and_leaf(tmp_path, is_hub_up=False) as (hub, leaf):
            cut_off = await said(leaf.url, *arguments)
            assert cut_off.exit_code == 1
            assert "JetStream of domain 'hub' is out of reach" in cut_off.stderr
            away = await said(hub.url, *arguments)
            assert away.exit_code == 1
            assert "is nats-server running there" in away.stderr
            await hub.start()
            empty = await said(hub.url, *arguments)
            assert empty.exit_code == 1
            assert "COORDINATOR_KEEP_TURNS_HOURS" in empty.stderr or "no policy is set" in empty.stderr
            for result in (cut_off, away, empty):
                assert result.stderr.count("\n") == 1, "one line and no traceback"

    run(scenario(), timeout_s=60)
