"""What each key may do on a real hub, at the hub itself and through an edge's leaf; and that a key taken away is out in seconds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.buckets import JetStreamBucket
from coordinator.jetstream import JetStream
from coordinator.nats_bus import NatsBus
from coordinator.nats_rights import Role
from coordinator.nats_users import User, added, new_seed, revoked, users_text
from coordinator.policy_store import POLICY_KEEPING
from coordinator.wire import POLICY_BUCKET, POLICY_KEY
from manifests.processes import Child, Children, accepts_connections, children, free_ports
from manifests.servers import nats_server, program
from models.errors import ConfigError
from tests.real_time import run

CONFIGURATION = (Path(__file__).parents[2] / "manifests/base/nats-hub/nats-hub.conf").read_text()
EDGES = ("edge-1", "edge-2")
SETTLE_S = 0.3
"""Interest crosses a leaf in milliseconds; what does not come in this time is taken for refused."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub with keys, and one leaf for each edge."""

    group: Children
    folder: Path
    url: str
    leaves: dict[str, str]
    seeds: dict[str, str]
    users: list[User]

    @property
    def server(self) -> Child:
        return next(child for child in self.group.running if child.name == "nats-hub" and not child.has_ended())

    async def restart(self) -> None:
        server = self.server
        server.process.terminate()
        await server.process.wait()
        await started(self.group, self.folder, self.url)

    @asynccontextmanager
    async def as_(self, name: str) -> AsyncGenerator[NatsBus, None]:
        """Connect with the key of this name at the hub; "@edge-1" is somebody on that edge's leaf."""
        url, seed = (self.leaves[name[1:]], None) if name.startswith("@") else (self.url, self.seeds[name])
        async with NatsBus.connect(url, name="test", nkey_seed=seed, connect_s=10) as bus:
            yield bus


def configured(folder: Path, users: list[User], port: int, link: int) -> None:
    """Write what we ship with this folder and these ports in it."""
    (folder / "users.conf").write_text(users_text(users))
    conf = CONFIGURATION
    own = {"port: 4222": f"host: 127.0.0.1, port: {port}", "http_port: 8222": "", "/data": str(folder / "hub")}
    for ours, here in (own | {"port: 7422": f"host: 127.0.0.1, port: {link}"}).items():
        assert ours in conf
        conf = conf.replace(ours, here)
    (folder / "hub.conf").write_text(conf)


@asynccontextmanager
async def hub(folder: Path) -> AsyncGenerator[Hub, None]:
    users: list[User] = []
    seeds: dict[str, str] = {}
    for role in Role:
        for name in EDGES if role is Role.EDGE else (role.value,):
            seeds[name], key = new_seed()
            users = added(users, User(role=role, name=name, key=key))
    port, link, *leaf_ports = free_ports(2 + len(EDGES))
    configured(folder, users, port, link)
    async with children(folder) as group:
        url = f"nats://127.0.0.1:{port}"
        await started(group, folder, url)
        leaves = {}
        for edge, leaf_port in zip(EDGES, leaf_ports, strict=True):
            remote = {"url": f"nats-leaf://127.0.0.1:{link}", "nkey": seeds[edge]}
            leaf = {
                "host": "127.0.0.1",
                "port": leaf_port,
                "server_name": edge,
                "jetstream": {"store_dir": str(folder / edge), "domain": "edge"},
                "leafnodes": {"remotes": [remote], "reconnect": "1s"},
            }
            await nats_server(group, folder, f"leaf-{edge}", json.loads(json.dumps(leaf)), lambda _line: None)
            leaves[edge] = f"nats://127.0.0.1:{leaf_port}"
        await asyncio.sleep(1.0)  # the leaves dial
        yield Hub(group, folder, url, leaves, seeds, users)


async def started(group: Children, folder: Path, url: str) -> None:
    child = await group.start("nats-hub", [program("nats-server"), "-c", str(folder / "hub.conf")])
    await group.wait_ready(child, lambda: accepts_connections(int(url.rpartition(":")[2])), 20)


# A subject, who says it, and who of the others hears it; everybody listens to it.
WHO = ("cloud", "coordinator", "operator", "@edge-1", "@edge-2")
TABLE: list[tuple[str, str, set[str]]] = [
    ("voice.complete.qwen-14b.edge-1", "@edge-1", {"cloud", "operator"}),
    ("voice.cancel.qwen-14b.edge-2.w1", "@edge-2", {"cloud", "operator"}),
    ("voice.asking.qwen-14b.edge-1.w1", "@edge-1", {"cloud", "operator"}),
    ("voice.answer.edge-1.a.r", "cloud", {"@edge-1", "operator"}),
    ("voice.answer.edge-2.r", "cloud", {"@edge-2", "operator"}),
    ("voice.beat.pool.qwen-14b.w1", "cloud", {"coordinator", "operator", "@edge-1", "@edge-2"}),
    ("voice.beat.edge.edge-1", "@edge-1", {"coordinator", "operator"}),
    ("voice.turn.edge-1.t1", "@edge-1", {"operator"}),
    ("voice.usage.edge-1", "@edge-1", {"operator"}),
    ("voice.complete.qwen-14b.coordinator", "coordinator", {"cloud", "operator"}),
    # What nobody may
    ("voice.turn.edge-2.t1", "@edge-1", set()),
    ("voice.usage.edge-2", "@edge-1", set()),
    ("voice.beat.edge.edge-2", "@edge-1", set()),
    ("voice.complete.qwen-14b.edge-2", "@edge-1", set()),
    ("voice.complete.qwen-14b.edge-2.w1", "@edge-1", set()),
    ("voice.cancel.qwen-14b.edge-2", "@edge-1", set()),
    ("voice.asking.qwen-14b.edge-2.w1", "@edge-1", set()),
    ("voice.complete.qwen-14b.edge-2", "coordinator", set()),
    ("voice.answer.edge-2.a.r", "@edge-1", set()),
    ("voice.beat.pool.qwen-14b.w1", "@edge-1", set()),
    ("voice.seam.edge-1.up", "@edge-1", set()),
    ("voice.complete.qwen-14b.edge-1", "cloud", set()),
    ("voice.answer.edge-1.a.r", "coordinator", set()),
    ("voice.turn.edge-1.t1", "operator", set()),
]


def test_each_key_says_and_hears_what_its_role_may_and_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hub(tmp_path) as here, AsyncExitStack() as stack:
            buses = {name: await stack.enter_async_context(here.as_(name)) for name in WHO}
            wrong = []
            for number, (subject, sender, expected) in enumerate(TABLE):
                heard = await heard_by(buses, subject, sender, str(number).encode())
                if heard - {sender} != expected:
                    wrong.append((subject, sender, heard))
            assert not wrong

    run(scenario(), timeout_s=120)


async def heard_by(buses: dict[str, NatsBus], subject: str, sender: str, payload: bytes) -> set[str]:
    """Return who hears a message of the sender's."""
    heard: set[str] = set()
    async with AsyncExitStack() as stack:
        for name, bus in buses.items():
            line = await stack.enter_async_context(bus.subscribe(subject))

            async def listen(name: str = name, line: object = line) -> None:
                async for message in line:  # type: ignore[attr-defined]  # a subscription
                    if message.payload == payload:
                        heard.add(name)

            listening = asyncio.create_task(listen())
            stack.push_async_callback(_ended, listening)
        await asyncio.sleep(SETTLE_S)
        await buses[sender].publish(subject, payload)
        await asyncio.sleep(SETTLE_S)
    return heard


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def test_an_edge_reads_the_policy_and_cannot_write_it_or_look_into_turns(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hub(tmp_path) as here, here.as_("coordinator") as maker, here.as_("operator") as operator:
            await JetStreamBucket(JetStream(maker, domain="hub", asker="coordinator"), POLICY_BUCKET).make(
                POLICY_KEEPING
            )
            at_operator = JetStreamBucket(JetStream(operator, domain="hub", asker="operator"), POLICY_BUCKET)
            assert await at_operator.put(POLICY_KEY, b"{}") == 1
            async with here.as_("@edge-1") as edge:
                streams = JetStream(edge, domain="hub", asker="edge-1", answer_s=1.0)
                watching = JetStreamBucket(streams, POLICY_BUCKET).watch(POLICY_KEY)
                assert (await anext(watching)).value == b"{}"
                await watching.aclose()
                for refused in (
                    JetStreamBucket(streams, POLICY_BUCKET).put(POLICY_KEY, b'{"threshold": 2}'),
                    streams.drop("KV_policy"),
                    streams.last("TURNS", "voice.turn.*.*"),
                ):
                    with pytest.raises(Exception, match=r"did not answer|out of reach"):
                        await refused
            assert (await at_operator.get(POLICY_KEY)).value == b"{}"  # type: ignore[union-attr]  # it is there

    run(scenario(), timeout_s=120)


def test_an_edge_whose_key_is_taken_away_is_out_after_a_restart_and_the_others_are_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hub(tmp_path) as here, here.as_("cloud") as cloud:

            async def crosses(edge: NatsBus, name: str) -> bool:
                async with cloud.subscribe("voice.complete.qwen-14b.*") as line:
                    await asyncio.sleep(SETTLE_S)
                    await edge.publish(f"voice.complete.qwen-14b.{name}", b"x")
                    try:
                        async with asyncio.timeout(SETTLE_S):
                            await anext(aiter(line))
                    except TimeoutError:
                        return False
                    return True

            async with here.as_("@edge-1") as stolen, here.as_("@edge-2") as other:
                assert await crosses(stolen, "edge-1")
                (here.folder / "users.conf").write_text(users_text(revoked(here.users, "edge-1")))
                await here.restart()
                async with asyncio.timeout(30):
                    while not (cloud.is_connected and await crosses(other, "edge-2")):  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(0.05)
                assert not await crosses(stolen, "edge-1")
                assert not await crosses(stolen, "edge-1"), "it does not come back"


def test_a_client_whose_key_is_taken_away_is_cut_at_the_reload(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hub(tmp_path) as here, here.as_("cloud") as cloud, here.as_("operator") as operator:
            (here.folder / "users.conf").write_text(users_text(revoked(here.users, "cloud")))
            here.server.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(20):
                while cloud.is_connected:  # noqa: ASYNC110 - the library tells nobody
                    await asyncio.sleep(0.02)
            assert operator.is_connected

    run(scenario(), timeout_s=120)


def test_a_hub_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        port, link = free_ports(2)
        configured(tmp_path, [], port, link)
        async with children(tmp_path) as group:
            url = f"nats://127.0.0.1:{port}"
            await started(group, tmp_path, url)
            for seed in (None, new_seed()[0]):
                with pytest.raises(ConfigError, match=r"may this user in|EDGE_NATS|NKEY"):
                    async with NatsBus.connect(url, name="nobody", nkey_seed=seed, connect_s=1.0):
                        pass

    run(scenario(), timeout_s=60)


def test_the_key_that_keeps_an_empty_hub_shut_is_a_hash_that_nobody_has_the_seed_of() -> None:
    import nkeys

    raw = bytes([nkeys.PREFIX_BYTE_USER]) + hashlib.sha256(b"xiaozhi-fleet: a key that nobody has").digest()
    key = base64.b32encode(raw + int(nkeys.crc16(raw)).to_bytes(2, "little")).decode().rstrip("=")
    assert f"nkey: {key} }}" in CONFIGURATION
