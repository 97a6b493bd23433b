from __future__ import annotations

import pytest

from edge.brain.groups import DeviceGroup, endpointing_of, groups_from_json, is_one_of
from edge.brain.segmenter import Endpointing
from models.errors import ConfigError

OTHERWISE = Endpointing(end_silence_ms=700)


def test_groups_are_read_with_the_defaults_of_what_they_leave_out() -> None:
    text = """[{"devices": "aa:bb:*", "endpointing": {"end_by": "silence", "end_silence_ms": 900}}, {"devices": "*"}]"""
    assert groups_from_json(text) == (
        DeviceGroup(devices="aa:bb:*", endpointing=Endpointing(end_by="silence", end_silence_ms=900)),
        DeviceGroup(devices="*"),
    )
    assert groups_from_json(" ") == ()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        "[{}]",
        "nonsense",
        """[{"devices": "*", "endpointing": {"end_silence": 900}}]""",
        """[{"devices": "*", "endpointing": {"end_silence_ms": 100}}]""",
        """[{"devices": "*", "endpointing": {"turn_threshold": 2}}]""",
        """[{"devices": "*", "endpointing": {"end_by": "magic"}}]""",
        """[{"devices": "*", "endpointing": {"max_utterance_ms": 90000}}]""",
    ],
)
def test_groups_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="endpointing of device groups"):
        groups_from_json(text)


@pytest.mark.parametrize(
    ("device_id", "end_silence_ms"),
    [("aa:bb:01", 900), ("AA:BB:02", 900), ("aa:cc:01", 1200), ("bb:aa:01", 700), ("", 700)],
)
def test_first_group_that_knows_the_device_counts(device_id: str, end_silence_ms: int) -> None:
    groups = (
        DeviceGroup(devices="AA:bb:*", endpointing=Endpointing(end_silence_ms=900)),
        DeviceGroup(devices="aa:*", endpointing=Endpointing(end_silence_ms=1200)),
    )
    assert endpointing_of(device_id, groups, OTHERWISE).end_silence_ms == end_silence_ms


@pytest.mark.parametrize(
    ("patterns", "fits"), [((), False), (("aa:*",), True), (("AA:BB:*", "cc:*"), True), (("bb:*", ""), False)]
)
def test_a_device_is_one_of_those_a_pattern_fits(patterns: tuple[str, ...], fits: bool) -> None:
    assert is_one_of("aa:BB:cc:dd:ee:ff", patterns) is fits
