"""What a device heard around an interruption, judged: when it was obeyed, and what of the interrupted turn came after.

The moment from which on nothing of that turn may be heard is the first ``tts/stop`` after the interruption, or the transcript of what
was said or typed instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from benchmarks.soak_engines import number_in, number_of
from edge.brain.opus import OpusDecoder

NoteKind = Literal["transcript", "start", "sentence", "packet", "stop", "alert"]
Moment = Literal["listening", "thinking", "first audio", "mid audio", "end"]
FIRST_PACKETS = 5
"""Up to the lead of four and one more it is the first audio."""


class Note(msgspec.Struct, frozen=True):
    """Something the device was sent."""

    at_ms: float
    kind: NoteKind
    number: int | None = None
    """Whose question or answer it is, None when it does not say."""


class _Text(msgspec.Struct):
    type: str = ""
    state: str = ""
    text: str = ""


_read = msgspec.json.Decoder(_Text).decode
_STATES: dict[str, NoteKind] = {"start": "start", "stop": "stop", "sentence_start": "sentence"}


class NoteTaker:
    """One device's messages to notes; decodes the sound to tell whose it is."""

    def __init__(self, rate_hz: int = 24_000) -> None:
        self.notes: list[Note] = []
        self._rate_hz = rate_hz
        self._decoder = OpusDecoder(rate_hz)

    def text(self, text: str, now_ms: float) -> None:
        """Note a JSON message, if it belongs to a turn."""
        message = _read(text)
        if message.type == "stt":
            self.notes.append(Note(now_ms, "transcript", number_in(message.text)))
        elif message.type == "alert":
            self.notes.append(Note(now_ms, "alert"))
        elif message.type == "tts" and message.state in _STATES:
            if message.state == "start":
                self._decoder = OpusDecoder(self._rate_hz)
            self.notes.append(Note(now_ms, _STATES[message.state], number_in(message.text)))

    def packet(self, packet: bytes, now_ms: float) -> None:
        """Note a packet and whose tone it is."""
        self.notes.append(Note(now_ms, "packet", number_of(self._decoder.decode(packet), self._rate_hz)))


def moment_of(notes: Sequence[Note]) -> Moment:
    """Return where in a turn the device is, by what it was sent since the question began."""
    kinds = [note.kind for note in notes]
    if "stop" in kinds:
        return "end"
    packets = kinds.count("packet")
    if packets:
        return "first audio" if packets <= FIRST_PACKETS else "mid audio"
    return "thinking" if "transcript" in kinds else "listening"


def is_answered(notes: Sequence[Note], number: int) -> bool:
    """Return whether the question ``number`` was shown, answered with sound of its own, and ended, in this order."""
    wanted: list[tuple[NoteKind, int | None]] = [
        ("transcript", number), ("start", None), ("packet", number), ("stop", None)
    ]  # fmt: skip
    for note in notes:
        kind, of = wanted[0]
        if note.kind == kind and of in {None, note.number}:
            wanted.pop(0)
            if not wanted:
                return True
    return False


def stop_ms(notes: Sequence[Note], since_ms: float) -> float | None:
    """Return how long after ``since_ms`` the first ``tts/stop`` came."""
    return next((note.at_ms - since_ms for note in notes if note.kind == "stop" and note.at_ms >= since_ms), None)


def stale(notes: Sequence[Note], since_ms: float, interrupted: int) -> int:
    """Return how many packets and sentences of the interrupted question came after its end, and packets outside of any speech."""
    found = 0
    is_cut, is_open = False, True
    for note in notes:
        if note.at_ms < since_ms:
            is_open = note.kind != "stop" and (is_open or note.kind == "start")
            continue
        if note.kind == "start":
            is_open = True
        elif note.kind == "stop":
            is_cut, is_open = True, False
        elif note.kind == "transcript":
            is_cut = is_cut or note.number not in {None, interrupted}
        found += is_cut and _is_out_of_place(note, interrupted, is_open=is_open)
    return found


def _is_out_of_place(note: Note, interrupted: int, *, is_open: bool) -> bool:
    if note.kind == "packet" and not is_open:
        return True
    return note.kind in {"packet", "sentence"} and note.number == interrupted
