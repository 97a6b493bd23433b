"""What the commands that ask the hub have in common: where it is, how their arguments are read, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
import typer

from coordinator.jetstream import JetStream
from coordinator.nats_bus import NatsBus
from coordinator.settings import ProcessSettings, load
from models.errors import ConfigError, VoiceError

T = TypeVar("T")

CONNECT_S = 3.0
"""How long a command waits for NATS: somebody watches."""
DOMAIN = "hub"
"""JetStream domain of the hub in ``manifests/base/nats-hub``."""
_INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

NatsUrl = Annotated[
    str,
    typer.Option("--nats-url", envvar="COORDINATOR_NATS_URL", help="The hub, or an edge's leaf of it."),
]
Domain = Annotated[
    str,
    typer.Option(
        "--domain",
        envvar="COORDINATOR_JETSTREAM_DOMAIN",
        help='JetStream domain of the hub, as its configuration names it; "" for a NATS server without.',
    ),
]
SeedFile = Annotated[
    Path | None,
    typer.Option(
        "--nkey-seed-file",
        envvar="COORDINATOR_NATS_NKEY_SEED_FILE",
        help="File holding your NKey user seed, for a NATS with accounts.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]
LOCAL = "nats://127.0.0.1:4222"


class Hub(msgspec.Struct, frozen=True):
    """Where a command finds what the hub keeps."""

    nats_url: str
    domain: str
    seed_file: Path | None

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[JetStream, None]:
        """Connect while the body runs; raise ConfigError when NATS is away or the seed cannot be used."""
        settings = load(ProcessSettings, {"NATS_NKEY_SEED_FILE": str(self.seed_file)} if self.seed_file else {})
        connecting = NatsBus.connect(
            self.nats_url, name="xiaozhi-fleet", nkey_seed=settings.nkey_seed, connect_s=CONNECT_S
        )
        async with connecting as bus:
            yield JetStream(bus, domain=self.domain)


def ask(hub: Hub, work: Callable[[JetStream], Coroutine[Any, Any, T]]) -> T:
    """Return what ``work`` returns, run on the hub's streams."""

    async def connected() -> T:
        async with hub.streams() as streams:
            return await work(streams)

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )  # a command speaks for itself
    return asyncio.run(connected())


@contextlib.contextmanager
def told() -> Iterator[None]:
    """End the process with one line and the right status on failures of ours and on Ctrl-C."""
    try:
        yield
    except VoiceError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(_INTERRUPTED) from error


def seconds_of(span: str) -> float:
    """Return the seconds in "90s", "15m", "24h" or "7d"; raise ConfigError for anything else."""
    found = _SPAN.fullmatch(span.strip())
    if found is None:
        raise ConfigError(f'{span[:40]!r} is no span of time: write "90s", "15m", "24h" or "7d"')
    return float(found[1]) * _SECONDS[found[2]]


def read_document(path: Path) -> bytes:
    """Return the bytes of a file; raise ConfigError naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def print_json(document: Any) -> None:
    """Print anything msgspec can write, with line breaks for people."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
