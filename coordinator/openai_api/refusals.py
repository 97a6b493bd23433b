"""What cannot be answered, in OpenAI's error form: status, type, the parameter at fault, a code that stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError

RETRY_AFTER_S = 1
"""What a client that was refused for want of room should wait; official clients do."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer; ``message`` names the thing and the mend and never repeats what was sent."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object official clients read."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that go with the status."""
        if self.status == 401:  # noqa: PLR2004 - read beside its meaning
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(RETRY_AFTER_S)} if self.status in {429, 503} else {}


_MEANT: tuple[tuple[type[CompletionError], int, str], ...] = (
    (OverloadedError, 429, "rate_limit_error"),
    (DeadlineError, 504, "timeout_error"),
    (CloudUnreachableError, 503, "unavailable_error"),
    (CompletionError, 502, "upstream_error"),
)
"""Status and type by error, the narrower first."""


def refusal_of(error: CompletionError) -> Refusal:
    """Return the error of a model that did not answer; its ``code`` is that of ``models.errors``."""
    status, kind = next((status, kind) for cause, status, kind in _MEANT if isinstance(error, cause))
    return Refusal(status=status, message=str(error), type=kind, code=error.code)
