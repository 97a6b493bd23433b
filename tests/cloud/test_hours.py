from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloud.hours import hours
from models.errors import ConfigError


def at(hour: int, minute: int = 0, day: int = 23) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment", "inside"),
    [
        ("23:00-06:30 Asia/Shanghai", at(14, 59), False),  # 22:59 there
        ("23:00-06:30 Asia/Shanghai", at(15), True),
        ("23:00-06:30 Asia/Shanghai", at(22, 29), True),  # 06:29 there
        ("23:00-06:30 Asia/Shanghai", at(22, 30), False),
        ("01:00-05:00 UTC", at(0, 59), False),
        ("01:00-05:00 UTC", at(1), True),
        ("01:00-05:00 UTC", at(5), False),
        ("01:00-05:00 Etc/GMT+3", at(4), True),
    ],
)
def test_hours_are_those_of_their_zone(text: str, moment: datetime, inside: bool) -> None:
    found = hours(text)
    assert found is not None
    assert found.hold(moment) is inside
    assert hours(str(found)) == found


def test_hours_follow_the_wall_clock_when_summer_time_begins() -> None:
    found = hours("01:00-05:00 Europe/Berlin")
    assert found is not None
    assert found.hold(datetime(2026, 3, 28, 4, 0, tzinfo=UTC)) is False  # 05:00 in winter
    assert found.hold(datetime(2026, 3, 29, 2, 59, tzinfo=UTC)) is True  # 04:59 in summer
    assert found.hold(datetime(2026, 3, 29, 3, 0, tzinfo=UTC)) is False


def test_no_hours_are_none() -> None:
    assert hours(" ") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("23:00-06:30", "are no hours: write HH:MM-HH:MM"),
        ("23-6 UTC", "are no hours"),
        ("24:30-06:00 UTC", "from 00:00 to 23:59"),
        ("06:00-06:00 UTC", "begin when they end"),
        ("23:00-06:30 Asia/Atlantis", "'Asia/Atlantis' is no time zone"),
        ("23:00-06:30 /etc", "is no time zone"),
        ("23:00-06:30 Asia", "is no time zone"),
    ],
)
def test_what_are_no_hours_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        hours(text)
