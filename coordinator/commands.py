"""The commands that look at what was decided: ``explain`` prints a turn whole, ``replay`` tries a policy on turns that were."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

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
from coordinator.explanation import explained, listed
from coordinator.jetstream import JetStream
from coordinator.replay_report import replay_lines
from coordinator.routing.policy import Policy, parse_policy
from coordinator.routing.replay import Replayed
from coordinator.routing.replay import replay as replay_turns
from coordinator.routing.router import Router
from coordinator.turn_log import KeptTurn, TurnLog, read_turns, turn_line
from coordinator.turns import TurnRecord
from models.errors import ConfigError

_EVERY_TURN = 10_000_000
"""More than a stream of a few GB keeps, and as many as a command should hold in memory."""

EXPLAIN_EXAMPLES = """\b
Examples:
  xiaozhi-fleet explain                                     (the last 20 turns, with their ids)
  xiaozhi-fleet explain 3f2a9c0e41d84b7f9a6c                (this turn, whole)
  xiaozhi-fleet explain --since 24h --last 1000000 --json > turns.jsonl
  xiaozhi-fleet explain 3f2a9c0e41d84b7f9a6c --from turns.jsonl
"""


def explain(
    *,
    turn: Annotated[
        str | None,
        typer.Argument(help="Id of a turn; the last turns are listed when left out.", show_default=False),
    ] = None,
    since: Annotated[str, typer.Option(help="How far back to list: 90s, 15m, 24h or 7d.")] = "1h",
    last: Annotated[int, typer.Option(min=1, help="How many turns to list, the newest.")] = 20,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Turns as JSON lines instead of the hub's.", show_default=False)
    ] = None,
    nats_url: NatsUrl = LOCAL,
    domain: Domain = DOMAIN,
    nkey_seed_file: SeedFile = None,
    as_json: AsJson = False,
) -> None:
    """Print a turn whole: what was heard, each decision with its reason and figures, the answer, and where the time went.

    The hub keeps turns, which hold what people said, only where the coordinator runs with COORDINATOR_KEEP_TURNS_HOURS above 0.
    """
    with told():
        hub = Hub(nats_url, domain, nkey_seed_file)
        found = _listing(hub, since, last, from_file) if turn is None else [_one(hub, turn, from_file)]
        if as_json:
            for kept in found:
                typer.echo(turn_line(kept))
            return
        if not found:
            raise ConfigError(
                f"{from_file} holds no turn"
                if from_file
                else f"no turn ended in the last {since}; look back with --since"
            )
        for line in listed(found) if turn is None else explained(found[0]):
            typer.echo(line)


def _one(hub: Hub, turn_id: str, from_file: Path | None) -> KeptTurn:
    """Return the turn of this id; raise CloudUnreachableError, ConfigError."""
    found = _in_file(from_file, turn_id) if from_file else ask(hub, lambda streams: TurnLog(streams).find(turn_id))
    if found is None:
        where = f"in {from_file}" if from_file else "kept: it is unknown or too old"
        raise ConfigError(f"turn {turn_id} is not {where}; list the last ones with: xiaozhi-fleet explain")
    return found


def _in_file(path: Path, turn_id: str) -> KeptTurn | None:
    return next((kept for kept in reversed(read_turns(path)) if kept.turn.turn_id == turn_id), None)


def _listing(hub: Hub, since: str, last: int, from_file: Path | None) -> list[KeptTurn]:
    """Return the newest turns, oldest first; of a file whatever their age. Raises CloudUnreachableError, ConfigError."""
    if from_file:
        return read_turns(from_file)[-last:]
    seconds = seconds_of(since)

    async def read(streams: JetStream) -> list[KeptTurn]:
        newest: deque[KeptTurn] = deque(maxlen=last)
        async with aclosing(TurnLog(streams).since(seconds)) as turns:
            async for kept in turns:
                newest.append(kept)
        return list(newest)

    return ask(hub, read)


REPLAY_EXAMPLES = """\b
Examples:
  xiaozhi-fleet replay policy.json --since 24h
  xiaozhi-fleet replay policy.json --from turns.jsonl --examples 50
  xiaozhi-fleet replay policy.json --since 7d --json | jq '{cloud_share_before, cloud_share_after}'
"""


def replay(
    *,
    file: Annotated[Path, typer.Argument(help="The policy to try, a JSON object.", show_default=False)],
    since: Annotated[str, typer.Option(help="How far back: 90s, 15m, 24h or 7d.")] = "24h",
    examples: Annotated[int, typer.Option(min=0, help="How many of the turns that would go elsewhere to show.")] = 10,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Turns as JSON lines instead of the hub's.", show_default=False)
    ] = None,
    nats_url: NatsUrl = LOCAL,
    domain: Domain = DOMAIN,
    nkey_seed_file: SeedFile = None,
    as_json: AsJson = False,
) -> None:
    """Try a policy on turns that were, before it goes live: which would go elsewhere, and what the cloud would have cost.

    Prices are the new policy's. Each turn is decided under the conditions it met; what could not be asked then cannot be asked now.
    About a minute for 100,000 turns.
    """
    with told():
        policy = parse_policy(read_document(file))
        turns = _listing(Hub(nats_url, domain, nkey_seed_file), since, _EVERY_TURN, from_file)
        result = replayed(policy, turns)
        if as_json:
            print_json(result)
            return
        heard = {kept.turn.turn_id: kept.turn.heard for kept in turns}
        for line in replay_lines(result, heard, examples=examples):
            typer.echo(line)


def replayed(policy: Policy, turns: Sequence[KeptTurn]) -> Replayed:
    """Return what the policy would have made of the turns, by the clock they were kept by; raise ConfigError."""
    from coordinator.routing.gain import GainModel
    from coordinator.routing.promise import PACKAGED, read_promises

    clock_s = [0.0]
    router = Router(policy, GainModel.load(), promises=read_promises(PACKAGED), now=lambda: clock_s[0])

    def in_their_time() -> Iterator[TurnRecord]:
        for kept in turns:
            clock_s[0] = max(clock_s[0], kept.at_s)
            yield kept.turn

    return replay_turns(in_their_time(), router)
