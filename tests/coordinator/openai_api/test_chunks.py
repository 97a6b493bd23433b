from __future__ import annotations

import msgspec
import pytest

from coordinator.openai_api.chunks import DONE, Form, event, finish_reason
from models.prompts import Usage

FORM = Form(answer_id="chatcmpl-1", created_s=5, model="qwen-14b")


@pytest.mark.parametrize(
    ("usage", "reason"),
    [
        (None, "stop"),
        (Usage(completion_tokens=9), "stop"),
        (Usage(completion_tokens=10), "length"),
        (Usage(completion_tokens=11), "length"),
    ],
)
def test_answer_that_used_all_its_tokens_was_cut(usage: Usage | None, reason: str) -> None:
    assert finish_reason(usage, 10) == reason


def test_event_is_one_line_whatever_the_text() -> None:
    chunk = FORM.said("一\n\ndata: [DONE]\r\n\u2028")
    assert chunk.startswith(b"data: {")
    assert chunk.count(b"\n") == 2
    assert b"\r" not in chunk
    assert msgspec.json.decode(chunk.removeprefix(b"data: "))["choices"][0]["delta"]["content"].startswith("一\n\n")


def test_usage_that_nobody_counted_is_null() -> None:
    form = msgspec.structs.replace(FORM, counts=True)
    assert msgspec.json.decode(form.counted(None).removeprefix(b"data: "))["usage"] is None
    assert msgspec.json.decode(FORM.whole("好", "stop", None))["usage"] is None


def test_stream_ends_as_clients_expect() -> None:
    assert DONE == b"data: [DONE]\n\n"
    assert event({}) == b"data: {}\n\n"
