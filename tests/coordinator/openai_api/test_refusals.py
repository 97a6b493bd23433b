from __future__ import annotations

import pytest

from coordinator.openai_api.refusals import Refusal, refusal_of
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (OverloadedError("full"), 429, {"Retry-After": "1"}),
        (DeadlineError("late"), 504, {}),
        (CloudUnreachableError("away"), 503, {"Retry-After": "1"}),
        (CompletionError("broken"), 502, {}),
    ],
)
def test_errors_of_models_have_a_status_each(error: CompletionError, status: int, headers: dict[str, str]) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.code, refusal.message) == (status, error.code, str(error))
    assert refusal.headers == headers


def test_form_is_openais() -> None:
    assert Refusal(status=400, message="m", param="n", code="unsupported_value").body == {
        "error": {"message": "m", "type": "invalid_request_error", "param": "n", "code": "unsupported_value"}
    }
