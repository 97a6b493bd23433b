"""Hours of the day in a time zone, such as those in which a pool is closed; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from models.errors import ConfigError

_FORM = re.compile(r"(\d{2}:\d{2})-(\d{2}:\d{2}) ([A-Za-z0-9_+/-]+)")


@dataclass(frozen=True, slots=True)
class Hours:
    """From ``begin`` to before ``end`` by the wall clock of ``zone``, past midnight when ``end`` is the earlier one."""

    begin: time
    end: time
    zone: ZoneInfo

    def hold(self, moment: datetime) -> bool:
        """Return whether ``moment``, which knows its own zone, lies in them."""
        local = moment.astimezone(self.zone).time()
        if self.begin < self.end:
            return self.begin <= local < self.end
        return local >= self.begin or local < self.end

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M} {self.zone.key}"


def hours(text: str) -> Hours | None:
    """Return what ``23:00-06:30 Asia/Shanghai`` means, None for ""; raise ConfigError when it is neither."""
    if not text.strip():
        return None
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} are no hours: write HH:MM-HH:MM and a time zone, as in 23:00-06:30 Asia/Shanghai")
    try:
        begin, end = time.fromisoformat(match[1]), time.fromisoformat(match[2])
    except ValueError as error:
        raise ConfigError(f"{text!r} are no hours: write times from 00:00 to 23:59") from error
    try:
        zone = ZoneInfo(match[3])
    except (ZoneInfoNotFoundError, OSError, ValueError) as error:
        raise ConfigError(
            f"{match[3]!r} is no time zone known here: write one as in Asia/Shanghai, or install tzdata"
        ) from error
    if begin == end:
        raise ConfigError(f"{text!r} begin when they end: leave them out for never")
    return Hours(begin, end, zone)
