"""What an edge tells about its use of content, hour by hour; words travel only when two devices asked; pure."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping

import msgspec

from coordinator.wire import MAX_PAYLOAD_BYTES as MAX_REPORT_BYTES

MAX_REPORT_CONTENTS = 2048
"""Contents a report names at most; an edge of 150 devices asks fewer in an hour. A guess."""
MAX_TEXT_CHARS = 208
"""A question of 200 characters, which is the longest that is remembered, and its language before it."""
MAX_COUNT = 1_000_000
EVERYWHERE = "everywhere"
"""Group of the edges that name no region."""
MIN_DEVICES = 2
"""Devices of an edge that must have asked before the words of a question leave it."""

_MAX_MADE = 256
"""Contents made ahead that a report names; an edge makes a few in an hour."""
_CONTENT_BYTES = 96
"""What a content and a number, or a length, take in a message at most."""
_HEAD_BYTES = 512
_CONTENT = re.compile(r"[a-z]{1,16}:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """How often each content was asked for at one edge in one hour."""

    edge_id: str
    group: str
    hour: int
    """Hours since 1970, UTC."""
    counts: Mapping[str, int]
    """Asks by content: a cache key, ``<kind>:<64 hex digits>``."""
    texts: Mapping[str, str] = {}
    """Words of some of these contents, as an answer to them is made from; only of those that MIN_DEVICES devices asked."""
    made: tuple[str, ...] = ()
    """Contents this edge made in that hour before anybody asked."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UsageReport)


def encode_report(report: UsageReport) -> bytes:
    """Return the message; raise msgspec.ValidationError when no coordinator would take it."""
    _check(report)
    raw = _encoder.encode(report)
    if len(raw) > MAX_REPORT_BYTES:
        raise msgspec.ValidationError(f"a usage report of {len(raw)} bytes: at most {MAX_REPORT_BYTES} travel")
    return raw


def decode_report(raw: bytes) -> UsageReport:
    """Return the report; raise msgspec.MsgspecError for anything else, broken text and endless nesting included."""
    if len(raw) > MAX_REPORT_BYTES:
        raise msgspec.DecodeError(f"a usage report of {len(raw)} bytes: at most {MAX_REPORT_BYTES} travel")
    try:
        report = _decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(type(error).__name__) from error
    _check(report)
    return report


def _check(report: UsageReport) -> None:
    for name, value in (("edge_id", report.edge_id), ("group", report.group)):
        if _NAME.fullmatch(value) is None:
            raise msgspec.ValidationError(f"{name} is not 1 to 64 letters, digits, '-' or '_'")
    if not 0 <= report.hour <= 2**32:
        raise msgspec.ValidationError("hour is not a number of hours since 1970")
    if len(report.counts) > MAX_REPORT_CONTENTS:
        raise msgspec.ValidationError(f"{len(report.counts)} contents: at most {MAX_REPORT_CONTENTS} in a report")
    _check_contents(report)


def group_of(region: str) -> str:
    """Return the name under which edges of one region are counted together; it can stand in a report and in a subject."""
    if not region or _NAME.fullmatch(region):
        return region or EVERYWHERE
    return f"region-{hashlib.blake2b(region.encode(), digest_size=8).hexdigest()}"


def _check_contents(report: UsageReport) -> None:
    if len(report.made) > MAX_REPORT_CONTENTS or not all(_CONTENT.fullmatch(content) for content in report.made):
        raise msgspec.ValidationError("made is not a list of contents")
    for content, count in report.counts.items():
        if _CONTENT.fullmatch(content) is None:
            raise msgspec.ValidationError("a content is not <kind>:<64 hex digits>")
        if not 1 <= count <= MAX_COUNT:
            raise msgspec.ValidationError(f"a count is not 1 to {MAX_COUNT}")
    for content, text in report.texts.items():
        if content not in report.counts:
            raise msgspec.ValidationError("texts names a content that counts does not")
        if not 1 <= len(text) <= MAX_TEXT_CHARS:
            raise msgspec.ValidationError(f"a text is not 1 to {MAX_TEXT_CHARS} characters long")


class _Asked:
    """One content at this edge: asks in this hour, two of the devices that ever asked, and the words."""

    __slots__ = ("count", "devices", "text")

    def __init__(self, text: str) -> None:
        self.count = 0
        self.devices: set[bytes] = set()
        self.text = text


class EdgeUsage:
    """Counts what this edge's devices ask for; remembers so many contents, those not asked longest are forgotten first."""

    def __init__(self, edge_id: str, group: str, *, max_contents: int = MAX_REPORT_CONTENTS) -> None:
        """``max_contents`` is 1 to MAX_REPORT_CONTENTS."""
        self._edge_id = edge_id
        self._group = group
        self._max_contents = min(max_contents, MAX_REPORT_CONTENTS)
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._asked)

    def note(self, content: str, device_id: str, text: str = "") -> None:
        """Count one ask; ``text`` is what would be needed to make the content again, "" when it is never to leave this edge."""
        asked = self._asked.get(content)
        if asked is None:
            asked = self._asked[content] = _Asked(text)
        self._asked.move_to_end(content)
        asked.count = min(asked.count + 1, MAX_COUNT)
        asked.text = asked.text or text
        if len(asked.devices) < MIN_DEVICES:
            asked.devices.add(hashlib.blake2b(device_id.encode(), digest_size=8).digest())
        if len(self._asked) > self._max_contents:
            self._asked.popitem(last=False)

    def report(self, hour: int, made: Collection[str] = ()) -> UsageReport | None:
        """Return what was asked since the last report as that of ``hour``, None when nothing was; counts begin anew.

        What a message cannot carry is left out: words first, then what was asked least.
        """
        used = {content: asked for content, asked in self._asked.items() if asked.count}
        most = sorted(used, key=lambda content: -used[content].count)[:MAX_REPORT_CONTENTS]
        told = tuple(made)[:_MAX_MADE]
        room = MAX_REPORT_BYTES - _HEAD_BYTES - _CONTENT_BYTES * (len(most) + len(told))
        counts, texts = {}, {}
        for content in most:
            counts[content] = used[content].count
            text = used[content].text
            size = len(text.encode()) + _CONTENT_BYTES
            if len(used[content].devices) >= MIN_DEVICES and 0 < len(text) <= MAX_TEXT_CHARS and size <= room:
                texts[content] = text
                room -= size
        for asked in used.values():
            asked.count = 0
        if not counts and not told:
            return None
        return UsageReport(edge_id=self._edge_id, group=self._group, hour=hour, counts=counts, texts=texts, made=told)
