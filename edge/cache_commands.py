"""The ``cache`` command: what a site remembers, what it would answer, and how to make it forget."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from coordinator.buckets import JetStreamBucket
from coordinator.cache.answers import Remembered
from coordinator.cache.kinds import Kind, kind_of
from coordinator.cache.ladder import Ladder
from coordinator.cache.purges import Purges, decode_purges
from coordinator.cache.sealed import unseal
from coordinator.cache.tiers import FarTier
from coordinator.command_line import DOMAIN, LOCAL, AsJson, Domain, Hub, NatsUrl, SeedFile, ask, print_json, told
from coordinator.jetstream import JetStream
from coordinator.policy_store import POLICY_KEEPING
from coordinator.settings import load
from coordinator.wire import POLICY_BUCKET, PURGE_KEY
from edge.brain.conversation import Conversation
from edge.remembering import answers, far_tiers
from edge.settings import EdgeSettings
from models.errors import CacheError, ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="What a site remembers: answers and speech, in memory, Redis and S3.\n\n"
    "Redis and S3 are those of the edge's own settings (EDGE_REDIS_URL, EDGE_S3_URL, EDGE_S3_BUCKET, EDGE_S3_ACCESS_KEY, EDGE_S3_SECRET_KEY); "
    "so are the models and the language that belong to the key of an answer.",
)

_AGED = 256
"""Values of a tier of which the age is looked up: those named first."""
_AT_ONCE = 16
"""Deletions under way at the same time."""


class Scope(StrEnum):
    """What is to be forgotten."""

    ALL = "all"
    ANSWERS = "answers"
    SPEECH = "speech"
    """Sentences, and whole answers as sound."""
    TRANSCRIPTS = "transcripts"


_PREFIXES = {
    Scope.ALL: ("",),
    Scope.ANSWERS: (f"{Kind.ANSWER}:", f"{Kind.AUDIO}:"),
    Scope.SPEECH: (f"{Kind.SPEECH}:", f"{Kind.AUDIO}:"),
    Scope.TRANSCRIPTS: (f"{Kind.TRANSCRIPT}:",),
}

_STATS_EXAMPLES = """\b
Examples:
  EDGE_REDIS_URL=redis://redis:6379/0 xiaozhi-fleet cache stats
  xiaozhi-fleet cache stats --json | jq '.tiers.redis'
"""


@app.command("stats", short_help="Count what Redis and S3 hold.", epilog=_STATS_EXAMPLES)
def stats_command(*, as_json: AsJson = False) -> None:
    """Count what each tier beyond the edges' memories holds, by kind, and tell how old it is. It reads every key: seconds for 100,000 values.

    What an edge's own memory holds, and how often each tier hits, stands in its /metrics (voice_cache_*, cache_hit_rate).
    """
    with told():
        counted = asyncio.run(_stats(_settings(), is_quiet=as_json))
        if as_json:
            print_json({"tiers": counted})
            return
        for tier, figures in counted.items():
            if "error" in figures:
                typer.echo(f"{tier}: {figures['error']}")
                continue
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in figures["kinds"].items()) or "nothing"
            typer.echo(f"{tier}: {kinds}; {figures['bytes']:,} bytes{_aged(figures['age_s'])}")


_GET_EXAMPLES = """\b
Examples:
  xiaozhi-fleet cache get "水的沸点是多少度"
  xiaozhi-fleet cache get "what is the capital of France" --language en --json
"""


@app.command("get", short_help="Show what a question would be answered from memory.", epilog=_GET_EXAMPLES)
def get_command(
    question: Annotated[str, typer.Argument(help="The question, in a device's words.", show_default=False)],
    *,
    language: Annotated[str, typer.Option(help="Language heard, zh or en; the edge's own when left out.")] = "",
    device_id: Annotated[str, typer.Option(help="The device that asks, where EDGE_CACHE_SCOPE is device.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show which tier would answer a question, with what, and how old that is; exits with 1 when none would."""
    with told():
        settings = _settings()
        found = asyncio.run(_find(settings, _key(settings, question, language, device_id)))
        if as_json:
            print_json(found)
        for each in [] if as_json else found:
            typer.echo(f"{each['tier']}: {each['text']}")
            typer.echo(
                f"  by {each['model'] or 'an unknown model'}, {each['age_s']:.0f} s ago, for {each['left_s']:.0f} s more"
            )
        if not found:
            raise ConfigError("no tier knows it: it was never asked, is too old, or was asked of other models")


_PURGE_EXAMPLES = """\b
Examples:
  xiaozhi-fleet cache purge --scope speech --dry-run
  xiaozhi-fleet cache purge --question "水的沸点是多少度"
  xiaozhi-fleet cache purge --scope all --yes --nkey-seed-file operator.seed
"""


@app.command("purge", short_help="Make every edge, Redis and S3 forget.", epilog=_PURGE_EXAMPLES)
def purge_command(
    *,
    scope: Annotated[Scope | None, typer.Option(help="Which kind of value.", show_default=False)] = None,
    question: Annotated[str, typer.Option(help="One question's answer instead, with its sound.")] = "",
    language: Annotated[str, typer.Option(help="Language of the question; the edge's own when left out.")] = "",
    device_id: Annotated[str, typer.Option(help="The device that asked, where EDGE_CACHE_SCOPE is device.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    nats_url: NatsUrl = LOCAL,
    domain: Domain = DOMAIN,
    nkey_seed_file: SeedFile = None,
    as_json: AsJson = False,
) -> None:
    """Make every edge forget at once, then delete from Redis and S3.

    A mark in the hub's policy bucket makes everything older a miss on every edge, those that are away as soon as they are back; deleting
    afterwards only frees room, and may be interrupted. The sound of one question's answer goes with all sound of whole answers.
    """
    with told():
        settings = _settings()
        if (scope is None) == (not question):
            raise ConfigError("say what: --scope all, answers, speech or transcripts, or --question TEXT")
        prefixes = _PREFIXES[scope] if scope else (_key(settings, question, language, device_id), f"{Kind.AUDIO}:")
        held = asyncio.run(_count(settings, prefixes, is_quiet=as_json))
        if dry_run or not as_json:
            _tell(held, as_json=as_json)
        if dry_run:
            return
        if as_json and not yes:
            raise ConfigError("--json asks nobody: add --yes")
        if not yes and not typer.confirm("Make every edge forget it?"):
            raise ConfigError("nothing was forgotten")
        revision = ask(Hub(nats_url, domain, nkey_seed_file), lambda streams: _mark(streams, prefixes))
        deleted = asyncio.run(_delete(settings, prefixes, is_quiet=as_json))
        if as_json:
            print_json({"revision": revision, "deleted": deleted})
        else:
            typer.echo(f"every edge forgets it as of revision {revision}; {sum(deleted.values()):,} values deleted")


def _settings() -> EdgeSettings:
    settings = load(EdgeSettings)
    if not settings.redis_url and not settings.s3_url:
        raise ConfigError("no tier to look into: set EDGE_REDIS_URL, EDGE_S3_URL or both, as the edges have them")
    return settings


def _key(settings: EdgeSettings, question: str, language: str, device_id: str) -> str:
    """Return the key of a question's answer; raise ConfigError when it is never remembered."""
    prompt = Conversation(device_id, language=settings.language).prompt("", question, language=language)
    key = answers(settings, Ladder(_Nowhere())).key(prompt)
    if key is None:
        raise ConfigError("such a question is never remembered: its answer depends on more than its words")
    return key


class _Nowhere:
    """A NearTier that keeps nothing: enough to have keys."""

    def get(self, _key: str) -> bytes | None:
        """Know nothing."""
        return None

    def put(self, _key: str, _value: bytes, _ttl_s: float) -> None:
        """Keep nothing."""

    def drop(self, _key: str) -> None:
        """Forget nothing."""

    def purge(self, _prefix: str) -> None:
        """Forget nothing."""


async def _stats(settings: EdgeSettings, *, is_quiet: bool) -> dict[str, dict[str, Any]]:
    counted: dict[str, dict[str, Any]] = {}
    async with far_tiers(settings) as tiers:
        for tier in tiers:
            try:
                kinds: Counter[str] = Counter()
                some: list[str] = []
                async with aclosing(_keys(tier, ("",), is_quiet=is_quiet)) as keys:
                    async for key in keys:
                        kinds[kind_of(key)] += 1
                        if len(some) < _AGED:
                            some.append(key)
                ages = sorted([age_s for key in some if (age_s := await _age_s(tier, key)) is not None])
                counted[tier.name] = {
                    "kinds": dict(kinds),
                    "bytes": (await tier.size()).bytes,
                    "age_s": {"values": len(ages), "p50": ages[len(ages) // 2], "oldest": ages[-1]} if ages else None,
                }
            except CacheError as error:
                counted[tier.name] = {"error": str(error)}
    return counted


async def _age_s(tier: FarTier, key: str) -> float | None:
    """Return how long ago a value was made, None when it is gone, too old or damaged; raise CacheError when the tier is."""
    stored = await tier.get(key)
    now_s = time.time()
    try:
        sealed = None if stored is None else unseal(key, stored, now_s)
    except CacheError:
        return None
    return None if sealed is None else now_s - sealed.made_at_s


def _aged(ages: dict[str, float] | None) -> str:
    if ages is None:
        return ""
    return f"; of {ages['values']:,} looked at, half are over {ages['p50'] / 3600:,.1f} h old, the oldest {ages['oldest'] / 3600:,.1f} h"


async def _find(settings: EdgeSettings, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    now_s = time.time()
    async with far_tiers(settings) as tiers:
        for tier in tiers:
            stored = await tier.get(key)
            sealed = None if stored is None else unseal(key, stored, now_s)
            if sealed is not None:
                remembered = msgspec.msgpack.decode(sealed.value, type=Remembered)
                times = {"age_s": now_s - sealed.made_at_s, "left_s": sealed.expires_at_s - now_s}
                found.append({"tier": tier.name, "text": remembered.text, "model": remembered.model, **times})
    return found


async def _count(settings: EdgeSettings, prefixes: Sequence[str], *, is_quiet: bool) -> dict[str, int]:
    """Return how many values each tier has under the prefixes."""
    held: dict[str, int] = {}
    async with far_tiers(settings) as tiers:
        for tier in tiers:
            async with aclosing(_keys(tier, prefixes, is_quiet=is_quiet)) as keys:
                held[tier.name] = sum([1 async for _ in keys])
    return held


async def _delete(settings: EdgeSettings, prefixes: Sequence[str], *, is_quiet: bool) -> dict[str, int]:
    """Delete what is under the prefixes from each tier and return how many that were."""
    deleted: Counter[str] = Counter()
    async with far_tiers(settings) as tiers:
        for tier in tiers:
            async with aclosing(_keys(tier, prefixes, is_quiet=is_quiet)) as keys:
                some: list[str] = []
                async for key in keys:
                    some.append(key)
                    if len(some) == _AT_ONCE:
                        deleted[tier.name] += await _drop(tier, some)
                        some.clear()
                deleted[tier.name] += await _drop(tier, some)
    return dict(deleted)


async def _drop(tier: FarTier, keys: Sequence[str]) -> int:
    await asyncio.gather(*(tier.drop(key) for key in keys))
    return len(keys)


async def _keys(tier: FarTier, prefixes: Sequence[str], *, is_quiet: bool) -> AsyncGenerator[str, None]:
    """Yield each of a tier's keys under the prefixes once, with a bar for whoever watches."""
    seen: set[str] = set()
    with Progress(console=Console(stderr=True), transient=True, disable=is_quiet) as progress:
        bar = progress.add_task(f"reading {tier.name}", total=None)
        for prefix in prefixes:
            async with aclosing(tier.keys(prefix)) as keys:
                async for key in keys:
                    if key not in seen:
                        seen.add(key)
                        progress.update(bar, advance=1)
                        yield key


async def _mark(streams: JetStream, prefixes: Sequence[str]) -> int:
    """Add the marks to what the fleet is to forget and return the revision; raise CloudUnreachableError, ConfigError."""
    bucket = JetStreamBucket(streams, POLICY_BUCKET)
    if not await bucket.is_made():
        await bucket.make(POLICY_KEEPING)
    while True:
        entry = await bucket.get(PURGE_KEY)
        purges = decode_purges(entry.value) if entry else Purges()
        for prefix in prefixes:
            purges = purges.marked(prefix, time.time())
        revision = await bucket.put(PURGE_KEY, msgspec.json.encode(purges), expected=entry.revision if entry else 0)
        if revision is not None:
            return revision


def _tell(held: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"held": held})
        return
    for tier, count in held.items():
        typer.echo(f"{tier}: {count:,} values")
