"""The ``policy`` command: shows, checks and changes the routing policy of the fleet, takes it back, compares its arms."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from coordinator.arms import ArmFigures, Share, arm_figures
from coordinator.buckets import JetStreamBucket
from coordinator.command_line import (
    DOMAIN,
    LOCAL,
    AsJson,
    Domain,
    Hub,
    NatsUrl,
    SeedFile,
    ask,
    print_json,
    read_document,
    seconds_of,
    told,
)
from coordinator.jetstream import JetStream
from coordinator.policy_store import POLICY_KEEPING, Change, PolicyStore, Version, numbered
from coordinator.turn_log import TurnLog, read_turns
from coordinator.turns import TurnRecord
from coordinator.wire import POLICY_BUCKET
from models.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The routing policy of the fleet: which prompts deserve the cloud, at what price, and who compares what.\n\n"
    "It is a JSON document in a bucket of the hub. Every edge takes a new one up at once, without dropping a turn, and keeps the last "
    "good one through restarts and while its link is cut. Without one the edges go by their own settings.",
)

_NONE_YET = "no policy is set: the edges go by their own settings; set one with: xiaozhi-fleet policy set FILE"
_File = Annotated[Path, typer.Argument(help="The policy, a JSON object.", show_default=False)]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


_SHOW_EXAMPLES = """\b
Examples:
  xiaozhi-fleet policy show
  xiaozhi-fleet policy show > policy.json     (then edit it, `policy check` it, `replay` it, and `policy set` it)
"""


@app.command("show", short_help="Print the policy in force.", epilog=_SHOW_EXAMPLES)
def show_command(
    *, nats_url: NatsUrl = LOCAL, domain: Domain = DOMAIN, nkey_seed_file: SeedFile = None, as_json: AsJson = False
) -> None:
    """Print the policy in force on standard output; its revision and date go to standard error."""
    with told():
        history = ask(Hub(nats_url, domain, nkey_seed_file), lambda streams: _store(streams).history())
        if not history:
            raise ConfigError(_NONE_YET)
        entry = history[-1].entry
        if as_json:
            print_json(_version(history[-1]))
            return
        typer.echo(f"revision {entry.revision}, set {_when(entry.at_s)}", err=True)
        if history[-1].policy is None:
            typer.echo(
                "this is no policy: every edge keeps the one before it; see: xiaozhi-fleet policy history", err=True
            )
        typer.echo(entry.value.decode(errors="replace"))


_CHECK_EXAMPLES = """\b
Examples:
  xiaozhi-fleet policy check policy.json
  xiaozhi-fleet policy check policy.json --json
"""


@app.command("check", short_help="Read a policy as an edge would.", epilog=_CHECK_EXAMPLES)
def check_command(*, file: _File, as_json: AsJson = False) -> None:
    """Read a policy as an edge would, without asking anybody; status 1 and each bad field if it would be refused."""
    with told():
        document = read_document(file)
        policy, _ = numbered(document, 1)
        if as_json:
            print_json(policy)
            return
        typer.echo(f"{file} is a policy. With what it leaves out, and without its version, it says:")
        fields = msgspec.to_builtins(policy)
        fields.pop("version", None)
        print_json(fields)


_SET_EXAMPLES = """\b
Examples:
  xiaozhi-fleet policy set policy.json
  xiaozhi-fleet policy set policy.json --yes --revision 7     (from a script: only if nobody changed revision 7)
"""


@app.command("set", short_help="Put a policy in force, after a look at what it changes.", epilog=_SET_EXAMPLES)
def set_command(
    *,
    file: _File,
    revision: Annotated[
        int | None,
        typer.Option(help="Revision the file was made from; refused when another is in force.", show_default=False),
    ] = None,
    yes: _Yes = False,
    nats_url: NatsUrl = LOCAL,
    domain: Domain = DOMAIN,
    nkey_seed_file: SeedFile = None,
) -> None:
    """Check a policy, show what it changes, and put it in force on every edge.

    It becomes the next version, whatever version the file names. Refused when somebody else changes the policy meanwhile.
    """
    with told():
        hub, document = Hub(nats_url, domain, nkey_seed_file), read_document(file)
        numbered(document, 1)  # before anybody is asked
        change = ask(hub, lambda streams: _store(streams).proposed(document, revision=revision))
        _put_in_force(hub, change, is_sure=yes)


_HISTORY_EXAMPLES = """\b
Examples:
  xiaozhi-fleet policy history
  xiaozhi-fleet policy history --json
"""


@app.command("history", short_help="List the policies there were.", epilog=_HISTORY_EXAMPLES)
def history_command(
    *, nats_url: NatsUrl = LOCAL, domain: Domain = DOMAIN, nkey_seed_file: SeedFile = None, as_json: AsJson = False
) -> None:
    """List the policies there were, the newest last; the hub keeps 64."""
    with told():
        history = ask(Hub(nats_url, domain, nkey_seed_file), lambda streams: _store(streams).history())
        if as_json:
            print_json([_version(known) for known in history])
            return
        if not history:
            raise ConfigError(_NONE_YET)
        typer.echo("REVISION  VERSION  SET                      POLICY")
        for known in history:
            typer.echo(_history_line(known))


_ROLLBACK_EXAMPLES = """\b
Examples:
  xiaozhi-fleet policy rollback
  xiaozhi-fleet policy rollback --to 5 --yes
"""


@app.command("rollback", short_help="Put an earlier policy in force again.", epilog=_ROLLBACK_EXAMPLES)
def rollback_command(
    *,
    to: Annotated[
        int | None,
        typer.Option(
            help="Revision to go back to, see `policy history`; the one before the newest when left out.",
            show_default=False,
        ),
    ] = None,
    yes: _Yes = False,
    nats_url: NatsUrl = LOCAL,
    domain: Domain = DOMAIN,
    nkey_seed_file: SeedFile = None,
) -> None:
    """Put an earlier policy in force again, as a new version: nothing is forgotten by it."""
    with told():
        hub = Hub(nats_url, domain, nkey_seed_file)

        async def proposed(streams: JetStream) -> Change:
            store = _store(streams)
            return await store.proposed(await store.earlier(to))

        _put_in_force(hub, ask(hub, proposed), is_sure=yes)


_ARMS_EXAMPLES = """\b
Examples:
  xiaozhi-fleet policy arms --since 7d
  xiaozhi-fleet policy arms --from turns.jsonl --json
"""


@app.command("arms", short_help="Compare the arms of a policy.", epilog=_ARMS_EXAMPLES)
def arms_command(
    *,
    since: Annotated[str, typer.Option(help="How far back: 90s, 15m, 24h or 7d.")] = "24h",
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Turns as JSON lines instead of the hub's.", show_default=False)
    ] = None,
    nats_url: NatsUrl = LOCAL,
    domain: Domain = DOMAIN,
    nkey_seed_file: SeedFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare how the turns of each arm of a policy went, from what the hub kept of them."""
    with told():
        turns = recent_turns(Hub(nats_url, domain, nkey_seed_file), since, from_file)
        figures = arm_figures(turns)
        if as_json:
            print_json(figures)
            return
        if not figures:
            raise ConfigError(f"nothing was decided in any of {len(turns)} turns: there is nothing to compare")
        for line in _arms_table(figures):
            typer.echo(line)


def recent_turns(hub: Hub, since: str, from_file: Path | None) -> list[TurnRecord]:
    """Return the turns of a file, or those the hub kept of that span; raise CloudUnreachableError, ConfigError."""
    if from_file:
        return [kept.turn for kept in read_turns(from_file)]
    seconds = seconds_of(since)

    async def read(streams: JetStream) -> list[TurnRecord]:
        async with aclosing(TurnLog(streams).since(seconds)) as turns:
            return [kept.turn async for kept in turns]

    return ask(hub, read)


def _put_in_force(hub: Hub, change: Change, *, is_sure: bool) -> None:
    """Show the change, ask unless ``is_sure``, and make it."""
    if not change.diff:
        typer.echo(f"nothing to do: revision {change.revision} says the same")
        return
    for line in change.diff:
        typer.echo(line)
    if not is_sure and not typer.confirm("Put it in force on every edge?"):
        raise ConfigError("nothing was changed")

    async def apply(streams: JetStream) -> int:
        bucket = JetStreamBucket(streams, POLICY_BUCKET)
        if not await bucket.is_made():
            await bucket.make(POLICY_KEEPING)
        return await PolicyStore(bucket).apply(change)

    revision = ask(hub, apply)
    typer.echo(
        f"version {change.policy.version} is in force as revision {revision}; take it back with: xiaozhi-fleet policy rollback"
    )


def _store(streams: JetStream) -> PolicyStore:
    return PolicyStore(JetStreamBucket(streams, POLICY_BUCKET))


def _version(known: Version) -> dict[str, Any]:
    return {
        "revision": known.entry.revision,
        "at_s": known.entry.at_s,
        "version": known.policy.version if known.policy else None,
        "policy": msgspec.Raw(known.entry.value) if known.policy else None,
    }


def _history_line(known: Version) -> str:
    version = str(known.policy.version) if known.policy else "-"
    return f"{known.entry.revision:>8}  {version:>7}  {_when(known.entry.at_s)}  {_summary(known)}"


def _summary(known: Version) -> str:
    """Return the fields of a policy on one line."""
    if known.policy is None:
        return "(no policy: edges passed it over)"
    fields = msgspec.json.decode(known.entry.value, type=dict[str, Any])
    fields.pop("version", None)
    return msgspec.json.encode(fields).decode()


def _arms_table(figures: tuple[ArmFigures, ...]) -> list[str]:
    """Return the figures as lines: one row an arm, shares in % with their 95 % intervals."""
    rows: list[tuple[str, ...]] = [
        ("ARM", "TURNS", "DEVICES", "CLOUD %", "FELL BACK %", "INTERRUPTED %", "FAILED %", "FIRST SOUND p50, p95")
    ]
    rows += [
        (
            arm.arm or "(none)",
            str(arm.turns),
            str(arm.devices),
            *(_percent(share) for share in (arm.cloud, arm.fell_back, arm.interrupted, arm.failed)),
            f"{_ms(arm.first_audio_p50_ms)}, {_ms(arm.first_audio_p95_ms)}",
        )
        for arm in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _percent(share: Share) -> str:
    return f"{100 * share.share:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _ms(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.0f} ms"


def _when(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
