"""``xiaozhi-fleet say``: a sentence or a WAV file into one spoken turn with a running edge, as a device would hold it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from edge.simulator.bootstrap import DEFAULT_DEVICE_ID, Identity
from edge.simulator.sound import read_speech, write_wav
from edge.simulator.turn import TurnResult
from edge.simulator.voice import speaker, spoken
from models.errors import VoiceError
from models.voices import main_language

DEFAULT_OTA_URL = "http://127.0.0.1:8002/xiaozhi/ota/"
INTERRUPTED_STATUS = 130
"""What shells report for Ctrl-C: 128 + SIGINT."""
PLAYERS = (("aplay", "-q"), ("paplay",), ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"))
_REGIONS = {"zh": "zh-CN", "en": "en-US"}


class Mode(StrEnum):
    """How a device listens."""

    AUTO = "auto"
    MANUAL = "manual"
    REALTIME = "realtime"


class Language(StrEnum):
    """Languages the starter voices speak."""

    MANDARIN = "zh"
    ENGLISH = "en"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    what: str
    ota_url: str = DEFAULT_OTA_URL
    url: str = ""
    token: str = ""
    version: int = 1
    device_id: str = DEFAULT_DEVICE_ID
    language: str = ""
    mode: Mode = Mode.AUTO
    repeat: int = 1
    interrupt_after_ms: float | None = None

    @property
    def spoken_language(self) -> str:
        """Return "zh" or "en": as asked, else by the script of the sentence."""
        return self.language or main_language(self.what, "zh") or "zh"

    @property
    def identity(self) -> Identity:
        """Who the device says it is."""
        return Identity(device_id=self.device_id, language=_REGIONS[self.spoken_language])


def say(
    what: Annotated[str, typer.Argument(help="A sentence, or a WAV file to send as it is.")],
    *,
    ota: Annotated[str, typer.Option(help="Where the device boots.")] = DEFAULT_OTA_URL,
    url: Annotated[str, typer.Option(help="WebSocket address; skips the boot.")] = "",
    token: Annotated[str, typer.Option(help="Token to show, with --url.")] = "",
    version: Annotated[int, typer.Option(min=1, max=3, help="Binary framing, with --url.")] = 1,
    device_id: Annotated[str, typer.Option(help="The device's MAC address.")] = DEFAULT_DEVICE_ID,
    language: Annotated[Language | None, typer.Option(help="Language spoken; else told from the sentence.")] = None,
    mode: Annotated[Mode, typer.Option(help="How the device listens.")] = Mode.AUTO,
    out: Annotated[Path, typer.Option(help="Where the answer is saved.")] = Path("answer.wav"),
    repeat: Annotated[int, typer.Option("--repeat", "--turns", min=1, help="Say it so many times.")] = 1,
    interrupt_after_ms: Annotated[float | None, typer.Option(min=0, help="Interrupt so long into the answer.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    play: Annotated[
        bool, typer.Option("--play", help="Play the answer, where aplay, paplay or ffplay is installed.")
    ] = False,
) -> None:
    """Talk to a running edge as a device would, and save the answer."""
    request = Request(
        what=what,
        ota_url=ota,
        url=url,
        token=token,
        version=version,
        device_id=device_id,
        language=language or "",
        mode=mode,
        repeat=repeat,
        interrupt_after_ms=interrupt_after_ms,
    )
    try:
        turns = asyncio.run(converse(request))
        paths = saved(turns, out)
    except VoiceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED_STATUS) from None
    _print_turns(request, turns, paths, as_json=as_json)
    if play:
        _play(paths)
    if not all(is_as_wanted(turn, request) for turn in turns):
        raise typer.Exit(1)


async def converse(request: Request) -> list[TurnResult]:
    """Hold the turns on one connection and return them; raise VoiceError in one line."""
    from edge.simulator.client import connect

    pcm = await _speech(request)
    async with connect(
        request.ota_url, url=request.url, token=request.token, version=request.version, identity=request.identity
    ) as device:
        return [
            await device.ask(pcm, mode=request.mode.value, interrupt_after_ms=request.interrupt_after_ms)
            for _ in range(request.repeat)
        ]


def saved(turns: list[TurnResult], out: Path) -> list[Path]:
    """Write each answer, ``answer.wav``, ``answer-2.wav``, ..., and return where those with sound are; raise ConfigError."""
    paths: list[Path] = []
    for number, turn in enumerate(turns, start=1):
        if turn.pcm:
            path = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
            write_wav(path, turn.pcm, turn.rate_hz)
            paths.append(path)
    return paths


def is_as_wanted(turn: TurnResult, request: Request) -> bool:
    """Say whether the turn went as asked: answered, or interrupted when that was the wish."""
    wanted = {"answered"} if request.interrupt_after_ms is None else {"answered", "interrupted"}
    return turn.outcome in wanted


def lines_of(turn: TurnResult) -> list[str]:
    """Return the turn in words."""
    marks = (
        ("transcript", turn.transcript_ms),
        ("first audio", turn.first_audio_ms),
        ("end", turn.stopped_ms),
    )
    times = ", ".join(f"{name} {at_ms:.0f} ms" for name, at_ms in marks if at_ms is not None)
    said = [
        ("heard", turn.heard),
        ("answer", turn.answer),
        ("emotion", turn.emotion),
        ("outcome", turn.outcome),
        ("times", f"{times} after the end of speech" if times else ""),
        ("alert", "; ".join(turn.alerts)),
    ]
    if turn.interruption is not None and turn.interruption.stop_ms is not None:
        said.append(("stopped", f"{turn.interruption.stop_ms:.0f} ms after the interruption"))
    said += [("problem", problem) for problem in turn.problems]
    return [f"{name:<8} {value}" for name, value in said if value]


def player() -> tuple[str, ...] | None:
    """Return the first player on the PATH with its options, None when there is none."""
    return next((command for command in PLAYERS if shutil.which(command[0])), None)


async def _speech(request: Request) -> bytes:
    path = Path(request.what)
    if path.suffix.lower() == ".wav":
        return await asyncio.to_thread(read_speech, path)
    language = request.spoken_language
    async with speaker(language) as voice:
        return await spoken(request.what, voice, language)


def _print_turns(request: Request, turns: list[TurnResult], paths: list[Path], *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode([_plain(turn) for turn in turns]).decode())  # noqa: T201 - a command's output
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for turn in turns:
        console.print(f"{'said':<8} {request.what}")
        for line in lines_of(turn):
            console.print(line)
    for path in paths:
        console.print(f"{'saved':<8} {path}")


def _plain(turn: TurnResult) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(turn, pcm=b""))
    del fields["pcm"]
    return fields


def _play(paths: list[Path]) -> None:
    command = player()
    if command is None:
        names = ", ".join(known[0] for known in PLAYERS)
        print(f"nothing here plays sound: install one of {names}", file=sys.stderr)  # noqa: T201 - a command's output
        return
    for path in paths:
        subprocess.run([*command, str(path)], check=False)  # noqa: S603 - a player from the list above
