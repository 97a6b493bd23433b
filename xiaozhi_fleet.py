"""The front door: the ``xiaozhi-fleet`` command. It imports what a command needs when the command runs."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from coordinator.commands import EXPLAIN_EXAMPLES, REPLAY_EXAMPLES, explain, replay
from coordinator.key_commands import app as keys_app
from coordinator.policy_commands import app as policy_app
from edge.cache_commands import app as cache_app
from edge.preloading.command import EXAMPLES as PRELOAD_EXAMPLES
from edge.preloading.command import preload
from edge.speaking import say
from models.commands import app as models_app
from models.errors import ConfigError, VoiceError

INTERRUPTED_STATUS = 130
"""What shells report for Ctrl-C: 128 + SIGINT."""

TERMINATED_STATUS = 143
"""What shells report for SIGTERM: 128 + SIGTERM."""

T = TypeVar("T")

app = typer.Typer(
    name="xiaozhi-fleet",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Answer fleets of Xiaozhi ESP32 voice devices from edge nodes near them, with a cloud for the hard prompts.\n\n"
    "Begin with `xiaozhi-fleet models pull --set starter`, then `xiaozhi-fleet demo`. The processes of a site are started with "
    "`python -m edge`, `python -m coordinator` and `python -m cloud`; each explains itself with --help and --check-config.",
)


def _with_mirror(context: typer.Context) -> None:
    from edge.model_mirror import site_mirror

    context.obj = site_mirror


app.add_typer(models_app, name="models", short_help="List, pull and verify models.", callback=_with_mirror)
app.add_typer(policy_app, name="policy", short_help="Show and change which prompts deserve the cloud.")
app.add_typer(keys_app, name="keys", short_help="Make and revoke keys for the hub.")
app.add_typer(cache_app, name="cache", short_help="Look into what a site remembers, and make it forget.")
app.command("preload", short_help="Show what edges prepare, and why.", epilog=PRELOAD_EXAMPLES)(preload)
app.command("explain", short_help="Print a turn whole, with every decision.", epilog=EXPLAIN_EXAMPLES)(explain)
app.command("replay", short_help="Try a policy on turns that were.", epilog=REPLAY_EXAMPLES)(replay)

_SAY_EXAMPLES = """\b
Examples:
  xiaozhi-fleet say "法国的首都是哪个城市？"
  xiaozhi-fleet say question.wav --out answer.wav --play
  xiaozhi-fleet say "Tell me about the sea." --interrupt-after-ms 1500
  xiaozhi-fleet say "你好" --url ws://127.0.0.1:8000/xiaozhi/v1/ --version 3 --repeat 3 --json
"""
app.command("say", short_help="Talk to an edge as a device would.", epilog=_SAY_EXAMPLES)(say)


class Engines(StrEnum):
    """What the edge answers with."""

    REAL = "real"
    SCRIPTED = "scripted"


_DEMO_EXAMPLES = """\b
Examples:
  xiaozhi-fleet demo
  xiaozhi-fleet demo --out /tmp/speech
  xiaozhi-fleet demo --stay          (then talk to it yourself: xiaozhi-fleet say ...)
"""


@app.command(short_help="Hold real conversations, checked.", epilog=_DEMO_EXAMPLES)
def demo(
    out: Annotated[Path, typer.Option(help="Where the speech that came back is saved.")] = Path("out/demo"),
    stay: Annotated[bool, typer.Option("--stay", help="Stay up afterwards and print the addresses.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Start a whole site on this machine and hold spoken conversations with it; status 0 only if every turn went as said."""
    from rich.console import Console

    from manifests.demo import demo as hold

    async def hold_in(directory: Path) -> bool:
        _make(directory)
        return await hold(Console(), directory, stay=stay)

    good = _run(hold_in(out))
    raise typer.Exit(0 if good else 1)


_UP_EXAMPLES = """\b
Examples:
  xiaozhi-fleet up
  xiaozhi-fleet up --engines scripted          (no edge models needed, for load tests)
"""


@app.command(short_help="Start a whole site and stay up.", epilog=_UP_EXAMPLES)
def up(
    engines: Annotated[
        Engines, typer.Option(help="`scripted` engines answer nothing real: for load tests only.")
    ] = Engines.REAL,
) -> None:
    """Start a whole site on this machine, print its addresses and stay until Ctrl-C."""
    from rich.console import Console

    from manifests.demo import up as stay_up

    _run(stay_up(Console(), engines.value))


_VERSION_EXAMPLES = """\b
Example:
  xiaozhi-fleet version
"""


@app.command(epilog=_VERSION_EXAMPLES)
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("xiaozhi-fleet"))


def main() -> None:
    """Run the command line; every expected error is one line on standard error and status 1."""
    app()


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be made: {error.strerror}; name another with --out") from error


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; after Ctrl-C and SIGTERM alike it cleans up before the command ends."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )  # a command speaks for itself
    try:
        return asyncio.run(_until_told_to_end(work))
    except VoiceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED_STATUS) from None
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED_STATUS) from None


async def _until_told_to_end(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work
