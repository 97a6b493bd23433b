"""The ``preload`` command: what the edges of a group are told to have ready, what they make of it, and why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from coordinator.buckets import JetStreamBucket
from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder
from coordinator.command_line import DOMAIN, LOCAL, AsJson, Domain, Hub, NatsUrl, SeedFile, ask, print_json, told
from coordinator.jetstream import JetStream
from coordinator.preloading.foreseen import Foreseen, decode_foreseen
from coordinator.preloading.plan import Choice
from coordinator.preloading.proposal import to_load, to_make
from coordinator.preloading.reports import group_of
from coordinator.settings import load
from coordinator.wire import FORECAST_BUCKET
from edge.brain.quality import LEVELS
from edge.engines import voice_name
from edge.preloading.preparing import HOUR_S, SIZE_BYTES
from edge.preloading.reporting import words_from
from edge.remembering import far_tiers
from edge.settings import EdgeSettings
from models.errors import ConfigError

EXAMPLES = """\b
Examples:
  xiaozhi-fleet preload --dry-run
  xiaozhi-fleet preload --dry-run --region north --all --json | jq '.refused[].why'
  EDGE_REDIS_URL=redis://redis:6379/0 EDGE_S3_URL=http://s3:8333 xiaozhi-fleet preload
"""
WRITE_S = 5.0
"""How long Redis may take for one answer."""
SHOWN = 20
"""Lines of each table for people."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge of the group is to do in the hour, if it holds nothing yet."""

    group: str
    hour: int
    """Hours since 1970, UTC."""
    foreseen: int
    """Contents the coordinator told of."""
    stored: int
    """Those of them a far tier has."""
    load: tuple[Choice, ...]
    make: tuple[Choice, ...]
    refused: tuple[Choice, ...]


def preload(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what and why.")] = False,
    region: Annotated[str, typer.Option(help="Whose edges; EDGE_REGION when left out.", show_default=False)] = "",
    show_all: Annotated[bool, typer.Option("--all", help=f"Show all contents, not {SHOWN} of each kind.")] = False,
    nats_url: NatsUrl = LOCAL,
    domain: Domain = DOMAIN,
    nkey_seed_file: SeedFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what the edges of a region have ready for this hour, as the coordinator foretold it, and copy it from S3 to Redis.

    Edges do all of it by themselves each hour: they load into their memory what pays there, and make in idle time what nobody has and is
    asked for with a probability over EDGE_PRELOAD_CONFIDENCE. This only hastens the way to Redis, where both EDGE_REDIS_URL and EDGE_S3_URL
    are set. Without --dry-run nothing else is done: an engine is needed to make what nobody has.
    """
    with told():
        settings = load(EdgeSettings)
        group = group_of(region or settings.region)
        foreseen = ask(Hub(nats_url, domain, nkey_seed_file), lambda streams: _foreseen(streams, group))
        if not dry_run and not (settings.redis_url and settings.s3_url):
            raise ConfigError("nothing to copy: set EDGE_REDIS_URL and EDGE_S3_URL, or only look with --dry-run")
        proposal, in_redis = asyncio.run(_proposed(settings, foreseen, copies=not dry_run, is_quiet=as_json))
        if as_json:
            texts = {content.key: content.text for content in foreseen.contents}
            print_json({**msgspec.to_builtins(proposal), "in_redis": in_redis, "texts": texts})
        else:
            _show(proposal, foreseen, in_redis, None if show_all else SHOWN)


async def _foreseen(streams: JetStream, group: str) -> Foreseen:
    """Return the newest forecast; raise ConfigError when there is none, or none of this hour."""
    entry = await JetStreamBucket(streams, FORECAST_BUCKET).get(group)
    if entry is None:
        raise ConfigError(
            f"nothing is foretold to the edges of {group!r}: their first reports come an hour after they start, and the coordinator "
            "forecasts where COORDINATOR_KEEP_USAGE_DAYS is above 0"
        )
    try:
        foreseen = decode_foreseen(entry.value)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"the forecast of {group!r} cannot be read: {error}") from error
    if foreseen.hour != int(time.time() // HOUR_S):
        raise ConfigError(f"the newest forecast of {group!r} is of {_clock(foreseen.hour)}: is the coordinator up?")
    return foreseen


async def _proposed(
    settings: EdgeSettings, foreseen: Foreseen, *, copies: bool, is_quiet: bool
) -> tuple[Proposal, int]:
    """Return what is to be done, and how many contents are in Redis now, 0 when nothing was to be copied."""
    stored: set[str] = set()
    async with far_tiers(settings) as tiers, Ladder(None, tiers).open() as ladder:
        contents = foreseen.contents if tiers else ()
        for content in track(
            contents, "asking the tiers", console=Console(stderr=True), disable=is_quiet, transient=True
        ):
            if await ladder.fetch(_spoken(settings, content.key), keep=copies):
                await ladder.fetch(content.key, keep=copies)
                stored.add(content.key)
            if copies and not await ladder.written(WRITE_S):
                raise ConfigError("Redis takes no writes: is it full, or away? What was copied before is in it")
        has_far = bool(tiers)
    known = [content for content in foreseen.contents if content.key in stored]
    loads = to_load(known, (), shelf_bytes=settings.preload_mib << 20, size_bytes=SIZE_BYTES)
    makes = to_make(
        [content for content in foreseen.contents if content.text],
        stored,
        budget_s=settings.preload_budget_s,
        shares=has_far,
        min_confidence=settings.preload_confidence,
    )
    proposal = Proposal(
        group=foreseen.group,
        hour=foreseen.hour,
        foreseen=len(foreseen.contents),
        stored=len(stored),
        load=loads.chosen,
        make=makes.chosen,
        refused=(*makes.refused, *loads.refused),
    )
    return proposal, len(stored) if copies else 0


def _spoken(settings: EdgeSettings, answer_key: str) -> str:
    """Return the key of an answer as an edge that is not overloaded speaks it."""
    return key_of(Kind.AUDIO, answer_key, voice_name(settings), LEVELS[0].name)


def _show(proposal: Proposal, foreseen: Foreseen, in_redis: int, at_most: int | None) -> None:
    typer.echo(
        f"edges of {proposal.group}, {_clock(proposal.hour)}: {proposal.foreseen:,} contents foretold, {proposal.stored:,} in Redis or S3"
    )
    words = {content.key: words_from(content.text)[1] for content in foreseen.contents}
    console = Console()
    for title, choices in (("load", proposal.load), ("make", proposal.make), ("leave", proposal.refused)):
        if choices:
            console.print(_table(f"{title} {len(choices):,}", choices[:at_most], words))
    if in_redis:
        typer.echo(f"{in_redis:,} contents are in Redis now")


def _table(title: str, choices: Sequence[Choice], words: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("asked for with", "question", "why"):
        table.add_column(column)
    for choice in choices:
        question = words.get(choice.content) or f"{choice.content[:20]}…"
        table.add_row(f"{choice.probability:.0%}", question, choice.why)
    return table


def _clock(hour: int) -> str:
    return time.strftime("%Y-%m-%d %H:00 UTC", time.gmtime(hour * HOUR_S))
