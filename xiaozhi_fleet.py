"""The front door: the ``xiaozhi-fleet`` command. It imports what a command needs when the command runs."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.speaking import say
from models.commands import app as models_app
from models.errors import VoiceError

INTERRUPTED_STATUS = 130
"""What shells report for Ctrl-C: 128 + SIGINT."""

app = typer.Typer(
    name="xiaozhi-fleet",
    no_args_is_help=True,
    add_completion=False,
    help="Answer fleets of Xiaozhi ESP32 voice devices from edge nodes near them, with a cloud for the hard prompts.\n\n"
    "Begin with `xiaozhi-fleet models pull --set starter`, then `xiaozhi-fleet demo`. The processes of a site are started with "
    "`python -m edge`, `python -m coordinator` and `python -m cloud`; each explains itself with --help and --check-config.",
)
app.add_typer(models_app, name="models")
app.command("say")(say)


class Engines(StrEnum):
    """What the edge answers with."""

    REAL = "real"
    SCRIPTED = "scripted"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the speech that came back is saved.")] = Path("out/demo"),
    stay: Annotated[bool, typer.Option("--stay", help="Stay up afterwards and print the addresses.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Start a whole site on this machine and hold spoken conversations with it; status 0 only if every turn went as said."""
    from rich.console import Console

    from manifests.demo import demo as hold

    out.mkdir(parents=True, exist_ok=True)
    good = _run(hold(Console(), out, stay=stay))
    raise typer.Exit(0 if good else 1)


@app.command()
def up(
    engines: Annotated[
        Engines, typer.Option(help="`scripted` engines answer nothing real: for load tests only.")
    ] = Engines.REAL,
) -> None:
    """Start a whole site on this machine, print its addresses and stay until Ctrl-C."""
    from rich.console import Console

    from manifests.demo import up as stay_up

    _run(stay_up(Console(), engines.value))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("xiaozhi-fleet"))


def main() -> None:
    """Run the command line; every expected error is one line on standard error and status 1."""
    app()


def _run(work: Any) -> Any:
    try:
        return asyncio.run(work)
    except VoiceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED_STATUS) from None
