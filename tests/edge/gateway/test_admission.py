from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gateway.admission import Admission, Allowance, Caller, caller
from models.errors import DeviceProtocolError

MAC = "aa:bb:cc:00:11:22"
UUID = "7f2c1d7e-3a55-4a0e-9b3b-0a2f8a3f1c11"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (([MAC], [UUID], ["Bearer t"], ["3"]), Caller(MAC, UUID, "t", 3)),
        ((["AA:BB:CC:00:11:22"], [], [], []), Caller(MAC, "", "", None)),
        (([MAC], [""], ["bearer  t "], ["1"]), Caller(MAC, "", "t", 1)),
        (([MAC], [UUID], ["Basic abc"], ["2"]), Caller(MAC, UUID, "", 2)),
        (([MAC], [UUID], ["Bearer"], [""]), Caller(MAC, UUID, "", None)),
    ],
)
def test_headers_say_who_calls(headers: tuple[list[str], ...], expected: Caller) -> None:
    assert caller(*headers) == expected


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ([], ""),
        ([""], ""),
        (["zh-CN"], "zh"),
        (["en"], "en"),
        ([" EN-us,zh;q=0.5"], "en"),
        (["de;q=1"], "de"),
        (["*"], ""),
        (["chinese"], ""),
        (["en", "zh"], "en"),
        (["小智"], ""),
    ],
)
def test_first_language_of_the_header_is_the_caller_s(header: list[str], language: str) -> None:
    assert caller([MAC], [], [], [], header).language == language


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        (([], [UUID], [], []), "Device-Id"),
        (([""], [UUID], [], []), "Device-Id"),
        ((["x" * 65], [UUID], [], []), "Device-Id"),
        ((["../../etc"], [UUID], [], []), "Device-Id"),
        ((["a b"], [UUID], [], []), "Device-Id"),
        ((["aa\n"], [UUID], [], []), "Device-Id"),
        ((["小智"], [UUID], [], []), "Device-Id"),
        (([MAC, MAC], [UUID], [], []), "Device-Id"),
        (([MAC], ["x" * 65], [], []), "Client-Id"),
        (([MAC], ["a>b"], [], []), "Client-Id"),
        (([MAC], [UUID], ["Bearer " + "x" * 1024], []), "Authorization"),
        (([MAC], [UUID], ["Bearer a", "Bearer b"], []), "Authorization"),
        (([MAC], [UUID], [], ["4"]), "Protocol-Version"),
        (([MAC], [UUID], [], ["0"]), "Protocol-Version"),
        (([MAC], [UUID], [], ["³"]), "Protocol-Version"),
        (([MAC], [UUID], [], ["one"]), "Protocol-Version"),
    ],
)
def test_wrong_header_is_refused_by_name(headers: tuple[list[str], ...], named: str) -> None:
    with pytest.raises(DeviceProtocolError, match=named):
        caller(*headers)


@given(st.lists(st.lists(st.text(max_size=80), max_size=2), min_size=5, max_size=5))
def test_random_headers_are_understood_or_refused(headers: list[list[str]]) -> None:
    try:
        who = caller(*headers)
    except DeviceProtocolError:
        return
    assert who.device_id.isascii()
    assert who.version in {None, 1, 2, 3}


@pytest.mark.parametrize(
    ("devices", "greeting", "is_known", "is_draining", "expected"),
    [
        (0, 0, False, False, ""),
        (9, 4, False, False, ""),
        (10, 0, False, False, "full"),
        (10, 0, True, False, ""),
        (5, 5, False, False, "busy"),
        (5, 5, True, False, "busy"),
        (0, 0, True, True, "draining"),
    ],
)
def test_room_decides_who_comes_in(
    devices: int, greeting: int, is_known: bool, is_draining: bool, expected: str
) -> None:
    admission = Admission(max_devices=10, max_greeting=5, is_draining=is_draining)
    assert admission.refusal(devices=devices, greeting=greeting, is_known=is_known) == expected


def test_device_in_real_time_and_its_bursts_never_wait() -> None:
    allowance = Allowance(rate_hz=100, burst=100)
    assert not any(allowance.delay_s(index * 0.02) for index in range(1_000))
    assert not any(allowance.delay_s(20.0) for _ in range(90))


def test_flood_is_slowed_to_the_rate() -> None:
    allowance, now_s = Allowance(rate_hz=100, burst=100), 0.0
    for _ in range(1_000):
        now_s += allowance.delay_s(now_s)
    assert now_s == pytest.approx(9.0)


@pytest.mark.parametrize("frame_ms", [5, 10, 20, 40, 60, 120])
def test_device_that_talks_fits_its_allowance_after_a_stall_too(frame_ms: int) -> None:
    allowance, frame_s = Allowance.of_frames(frame_ms), frame_ms / 1000
    assert not any(allowance.delay_s(0.0) for _ in range(round(4.4 / frame_s) + 5))
    for index in range(round(20 / frame_s)):
        assert not allowance.delay_s(index * frame_s)
    assert not any(allowance.delay_s(20.0) for _ in range(round(4.4 / frame_s) + 5))


@pytest.mark.parametrize("frame_ms", [5, 20, 60])
def test_device_ten_times_as_fast_as_it_can_speak_is_read_little_faster_than_twice(frame_ms: int) -> None:
    allowance, now_s, read = Allowance.of_frames(frame_ms), 0.0, 0
    while now_s < 60:
        now_s += frame_ms / 1000 / 10
        now_s += allowance.delay_s(now_s)
        read += 1
    assert read * frame_ms / 1000 / now_s < 2.8
