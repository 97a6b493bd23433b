"""Model files through a real bucket: one node fetches, the others take it from there, and nothing the bucket does spoils a pull."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from coordinator.cache.kinds import Kind
from coordinator.cache.model_mirror import PREFIX, ModelMirror
from coordinator.cache.object_store import ObjectStoreTier, open_client
from manifests import servers
from manifests.processes import Child, children
from models.catalog import CatalogEntry, HubSource, ModelFile
from models.errors import CatalogError
from models.mirror import MirrorRun
from models.store import pull
from tests.integration.cache_servers import once_it_can, quiet
from tests.real_time import run

PROJECT = Path(__file__).parents[2]
BUCKET = "models-and-answers"
BODY = random.Random(6).randbytes((12 << 20) + 7)  # three parts
DIGEST = hashlib.sha256(BODY).hexdigest()
SOURCE = HubSource(hub="huggingface", repo="maker/m", path="m.bin")
FILE = ModelFile(role="model", name="m.bin", size_bytes=len(BODY), sha256=DIGEST, sources=[SOURCE])
ENTRY = CatalogEntry(
    name="tiny", role="vad", stage="starter", upstream="maker/m", version="1", licence="MIT", commercial=True, files=[FILE],
    languages=["*"], note="n",
)  # fmt: skip


@dataclass
class Site:
    """A bucket, and what happened when nodes pulled."""

    url: str
    access_key: str
    secret_key: str
    child: Child
    fetched: int = 0
    said: list[str] = field(default_factory=list)

    def pull(self, root: Path, *, secret_key: str = "", has_hub: bool = True, timeout_s: float = 10.0) -> None:
        """Pull as one node does, from a hub that is there or not."""

        def fetch(
            _source: object, _file: ModelFile, part: Path, _work: Path, progress: Callable[[int, int], None]
        ) -> None:
            if not has_hub:
                raise CatalogError("the hub is away")
            self.fetched += 1
            part.write_bytes(BODY)
            progress(len(BODY), len(BODY))

        self.said.clear()
        keys = {"access_key": self.access_key, "secret_key": secret_key or self.secret_key}
        with ModelMirror.connect(self.url, BUCKET, timeout_s=timeout_s, **keys) as mirror:
            pull(ENTRY, root, fetch=fetch, say=self.said.append, mirror=MirrorRun(mirror, self.said.append))
        assert (root / "tiny" / "m.bin").read_bytes() == BODY
        assert sorted(path.name for path in (root / "tiny").iterdir()) == [".lock", "m.bin", "verified.json"]

    @contextmanager
    def client(self) -> Any:
        """Open a plain client."""
        with open_client(
            self.url, BUCKET, access_key=self.access_key, secret_key=self.secret_key, timeout_s=10.0
        ) as client:
            yield client

    def put(self, body: bytes) -> None:
        """Put other bytes where the file belongs."""
        with self.client() as client:
            client.put_object(BUCKET, PREFIX + DIGEST, io.BytesIO(body), len(body))

    def held(self) -> bytes:
        """Return what lies where the file belongs."""
        with self.client() as client:
            response = client.get_object(BUCKET, PREFIX + DIGEST)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()


@asynccontextmanager
async def site(folder: Path) -> AsyncGenerator[Site, None]:
    async with children(folder) as group:
        s3 = await servers.seaweedfs(group, folder, quiet)
        opened = Site(s3["url"], s3["access_key"], s3["secret_key"], group.running[0])
        async with tier_of(opened) as tier:
            await once_it_can(lambda: tier.put("answer:first", b"v", 60))
        yield opened


def tier_of(opened: Site) -> Any:
    keys = {"access_key": opened.access_key, "secret_key": opened.secret_key}
    return ObjectStoreTier.connect(opened.url, BUCKET, timeout_s=5.0, **keys)


def with_site(folder: Path, scenario: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with site(folder) as opened:
            await scenario(opened)

    run(whole(), timeout_s=120)


def test_one_nodes_download_serves_the_others_and_neither_lifecycle_nor_purge_reaches_it(tmp_path: Path) -> None:
    async def scenario(opened: Site) -> None:
        await asyncio.to_thread(opened.pull, tmp_path / "one")
        assert opened.said[0] == f"tiny/m.bin: not in S3 bucket {BUCKET} yet; going on with the usual sources"
        assert opened.said[-1] == f"tiny/m.bin: to S3 bucket {BUCKET}, for other nodes"
        await asyncio.to_thread(opened.pull, tmp_path / "two", has_hub=False)
        assert opened.said[0] == f"tiny/m.bin: from S3 bucket {BUCKET}"
        assert opened.fetched == 1
        async with tier_of(opened) as tier:
            await tier.put("answer:k", b"v", 60)
            assert {key async for key in tier.keys("")} == {"answer:first", "answer:k"}
            assert (await tier.size()).entries == 2
        with opened.client() as client:
            config = await asyncio.to_thread(client.get_bucket_lifecycle, BUCKET)
        assert {rule.rule_filter.prefix for rule in config.rules} == {f"{kind}/" for kind in Kind}
        assert await asyncio.to_thread(opened.held) == BODY

    with_site(tmp_path, scenario)


def test_what_is_not_the_pinned_file_is_told_removed_and_replaced(tmp_path: Path) -> None:
    async def scenario(opened: Site) -> None:
        for number, (body, told) in enumerate(
            [
                (BODY[:-1000], f"holds {len(BODY) - 1000} bytes, pinned are {len(BODY)}; removing it there"),
                (BODY[::-1], f"holds bytes with SHA-256 {hashlib.sha256(BODY[::-1]).hexdigest()}, pinned is {DIGEST}"),
                (b"", "holds 0 bytes"),
            ]
        ):
            await asyncio.to_thread(opened.put, body)
            await asyncio.to_thread(opened.pull, tmp_path / str(number))
            assert any(told in line for line in opened.said), opened.said
            assert opened.fetched == number + 1
            assert await asyncio.to_thread(opened.held) == BODY

    with_site(tmp_path, scenario)


def test_a_bucket_that_refuses_hangs_or_is_gone_costs_one_line_and_a_bounded_wait(tmp_path: Path) -> None:
    async def scenario(opened: Site) -> None:
        await asyncio.to_thread(opened.pull, tmp_path / "refused", secret_key="wrong")
        assert "going on with the usual sources" in opened.said[0]
        opened.child.process.send_signal(signal.SIGSTOP)
        began_s = time.monotonic()
        try:
            await asyncio.to_thread(opened.pull, tmp_path / "hung", timeout_s=1.0)
        finally:
            opened.child.process.send_signal(signal.SIGCONT)
        assert time.monotonic() - began_s < 30  # not for ever: two waits of 1 s at most, on a machine that may be busy
        assert "going on with the usual sources" in opened.said[0]
        assert sum("S3 bucket" in line for line in opened.said) == 1
        opened.child.process.kill()
        await opened.child.process.wait()
        await asyncio.to_thread(opened.pull, tmp_path / "gone")
        assert "not reachable" in opened.said[0]
        assert opened.fetched == 3

    with_site(tmp_path, scenario)


CHILD = """
import resource, sys, time
sys.path.insert(0, {project!r})
from models import commands
from models.catalog import Catalog
from tests.integration.test_model_mirror import ENTRY
from xiaozhi_fleet import app
commands.load_catalog = lambda: Catalog(models=[ENTRY], sets={{}})
shown = commands._Display.progress
def stall(self, model, file, done, total):
    shown(self, model, file, done, total)
    if {stall_at!r} in file and done > 1 << 20:
        print("AT", file, flush=True)
        time.sleep({stall_s})
commands._Display.progress = stall
if {disk_bytes}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({disk_bytes}, {disk_bytes}))
app(["models", "pull", "tiny"])
"""


@contextmanager
def pulling(opened: Site, root: Path, hub: str = "none", **words: object) -> Any:
    """Start the command itself as a process of its own."""
    code = CHILD.format(**{"project": str(PROJECT), "stall_at": "none", "stall_s": 0, "disk_bytes": 0, **words})
    env = os.environ | {
        "EDGE_S3_URL": opened.url,
        "EDGE_S3_BUCKET": BUCKET,
        "EDGE_S3_ACCESS_KEY": opened.access_key,
        "EDGE_S3_SECRET_KEY": opened.secret_key,
        "XIAOZHI_FLEET_MODELS": str(root),
        "XIAOZHI_FLEET_HUBS": hub,
    }
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=PROJECT, env=env, text=True, stdout=pipe, stderr=pipe) as child:
        try:
            yield child
        finally:
            child.kill()


def interrupted(opened: Site, root: Path, **words: object) -> tuple[int, str]:
    """Return status and complaint of a pull that got Ctrl-C where it stalls."""
    with pulling(opened, root, **words) as child:
        for line in child.stdout:
            if line.startswith("AT"):
                child.send_signal(signal.SIGINT)
                break
        _, complaint = child.communicate(timeout=60)
        return child.returncode, complaint


def test_ctrl_c_and_a_full_disk_while_the_bucket_sends_leave_no_partial_file(tmp_path: Path) -> None:
    def full(opened: Site, root: Path) -> tuple[int, str]:
        with pulling(opened, root, disk_bytes=3_000_000) as child:
            _, complaint = child.communicate(timeout=60)
            return child.returncode, complaint

    async def scenario(opened: Site) -> None:
        await asyncio.to_thread(opened.put, BODY)
        root = tmp_path / "stopped"
        status, complaint = await asyncio.to_thread(interrupted, opened, root, stall_at="m.bin", stall_s=60)
        assert (status, complaint.partition(":")[0]) == (130, "interrupted")
        assert [path.name for path in (root / "tiny").iterdir()] == [".lock"]
        root = tmp_path / "full"
        status, complaint = await asyncio.to_thread(full, opened, root)
        assert (status, complaint) == (1, f"error: tiny: cannot write {root / 'tiny'}: File too large\n")
        assert [path.name for path in (root / "tiny").iterdir()] == [".lock"]
        await asyncio.to_thread(opened.pull, root, has_hub=False)

    with_site(tmp_path, scenario)


class Hub(BaseHTTPRequestHandler):
    """A hub that has the file."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_arguments: object) -> None:
        pass


def test_ctrl_c_while_the_bucket_is_given_the_file_keeps_it_here_and_leaves_nothing_there(tmp_path: Path) -> None:
    async def scenario(opened: Site) -> None:
        root, server = tmp_path / "node", ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        hub = f"modelscope=,huggingface=http://127.0.0.1:{server.server_address[1]}"
        try:
            status, complaint = await asyncio.to_thread(
                interrupted, opened, root, hub=hub, stall_at="(mirror)", stall_s=2
            )
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        assert (status, complaint.partition(":")[0]) == (130, "interrupted")
        assert (root / "tiny" / "m.bin").read_bytes() == BODY
        assert [path.name for path in (root / "tiny").glob("*.incoming")] == []
        with opened.client() as client:
            names = [found.object_name for found in await asyncio.to_thread(lambda: list(client.list_objects(BUCKET)))]
            begun = await asyncio.to_thread(client._list_multipart_uploads, BUCKET)
        assert not [name for name in names if name.startswith(PREFIX)]
        assert begun.uploads == []

    with_site(tmp_path, scenario)


def test_a_bucket_that_once_forgot_everything_does_not_forget_model_files(tmp_path: Path) -> None:
    from minio.commonconfig import ENABLED, Filter
    from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

    async def scenario(opened: Site) -> None:
        old = LifecycleConfig(
            [Rule(ENABLED, rule_filter=Filter(prefix=""), rule_id="x", expiration=Expiration(days=1))]
        )
        with opened.client() as client:
            await asyncio.to_thread(client.set_bucket_lifecycle, BUCKET, old)
            async with tier_of(opened) as tier:
                await tier.put("answer:k", b"v", 60)
            config = await asyncio.to_thread(client.get_bucket_lifecycle, BUCKET)
        assert {rule.rule_filter.prefix for rule in config.rules} == {f"{kind}/" for kind in Kind}

    with_site(tmp_path, scenario)
