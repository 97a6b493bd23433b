from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.vllm_metrics import MAX_REQUESTS, Figures, parse, queue_ms

NEW = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="qwen-72b"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="qwen-72b"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="qwen-72b",reason="capacity"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="qwen-72b"} 0.35
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="qwen-72b"} 9.0
vllm:request_queue_time_seconds_count{engine="0",model_name="qwen-72b"} 10.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="qwen-72b"} 1.5
vllm:num_requests_running_created{engine="0",model_name="qwen-72b"} 1.7e+09
"""
OLD = """vllm:num_requests_running{model_name="qwen"} 5.0
vllm:num_requests_swapped{model_name="qwen"} 0.0
vllm:num_requests_waiting{model_name="qwen"} 2.0
vllm:gpu_cache_usage_perc{model_name="qwen"} 0.35
vllm:cpu_cache_usage_perc{model_name="qwen"} 0.9
"""


def test_both_ages_of_names_are_read() -> None:
    assert parse(NEW) == Figures(running=5, waiting=2, kv_usage=0.35, queued_s=1.5, queued_count=10)
    assert parse(OLD) == Figures(running=5, waiting=2, kv_usage=0.35)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NEW.replace("vllm:", "vllm_"), parse(NEW)),
        (NEW.replace("\n", "\r\n"), parse(NEW)),
        ("vllm:num_requests_running 3", Figures(running=3, waiting=0)),
        ("vllm:num_requests_running 3 1700000000000", Figures(running=3, waiting=0)),
        ("vllm:num_requests_running\t3", Figures(running=3, waiting=0)),
        ("vllm:num_requests_waiting 3", Figures(running=0, waiting=3)),
        ("vllm:num_requests_running 3e0\nvllm:num_requests_waiting +1", Figures(running=3, waiting=1)),
        (r'vllm:num_requests_running{model_name="a\"} 9 {b"} 3', Figures(running=3, waiting=0)),
        ('vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} 2', Figures(running=3, waiting=0)),
        ("vllm:num_requests_running 1\nvllm:kv_cache_usage_perc{e=\"0\"} 0.2\nvllm:kv_cache_usage_perc{e=\"1\"} 0.7", Figures(running=1, waiting=0, kv_usage=0.7)),
        ("vllm:num_requests_running 1\nvllm:kv_cache_usage_perc 35", Figures(running=1, waiting=0, kv_usage=1.0)),
        ("vllm:num_requests_running 1\nvllm:kv_cache_usage_perc NaN", Figures(running=1, waiting=0)),
        ("vllm:num_requests_running 1e300", Figures(running=MAX_REQUESTS, waiting=0)),
        ("vllm:num_requests_running NaN", None),
        ("vllm:num_requests_running -1", None),
        ("vllm:num_requests_running +Inf", None),
        ("vllm:num_requests_running many", None),
        ("# vllm:num_requests_running 3", None),
        ("x vllm:num_requests_running 3", None),
        ("vllm:kv_cache_usage_perc 0.5", None),
        ("", None),
        ("<html>404</html>", None),
    ],
)  # fmt: skip
def test_a_page_is_read_for_what_it_tells(text: str, expected: Figures | None) -> None:
    assert parse(text) == expected


@given(st.lists(st.sampled_from([*NEW.split("\n"), "{", '"', "\\", "}", " ", "\n", "NaN", "1e999"])), st.text())
def test_no_page_breaks_the_reading(pieces: list[str], rest: str) -> None:
    figures = parse("".join(pieces) + rest)
    if figures is not None:
        assert 0 <= figures.kv_usage <= 1
        assert 0 <= figures.running <= MAX_REQUESTS
        assert 0 <= figures.waiting <= MAX_REQUESTS


def test_a_page_made_to_be_slow_is_not() -> None:
    assert parse('vllm:num_requests_running{a="' * 50_000) is None
    assert parse("vllm:num_requests_running{" + "a" * 500_000) is None


def figures(queued_s: float, queued_count: int) -> Figures:
    return Figures(running=0, waiting=0, queued_s=queued_s, queued_count=queued_count)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (figures(1.0, 10), figures(2.0, 14), 250.0),
        (figures(1.0, 10), figures(1.0, 14), 0.0),
        (figures(1.0, 10), figures(1.0, 10), None),
        (figures(9.0, 90), figures(0.1, 1), None),
        (figures(9.0, 1), figures(0.1, 2), None),
        (None, figures(9.0, 90), None),
    ],
)
def test_the_time_in_the_queue_is_that_of_the_requests_between(
    before: Figures | None, after: Figures, expected: float | None
) -> None:
    assert queue_ms(before, after) == expected
