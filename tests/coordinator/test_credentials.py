from __future__ import annotations

import sys

import pytest

from coordinator.credentials import check_seed, mend_for
from models.errors import ConfigError


@pytest.mark.parametrize(
    ("reason", "is_refusal"),
    [
        ("nats: 'Authorization Violation'", True),
        ("nats: authorization failed", True),
        ("nats: 'User Authentication Expired'", True),
        ("nats: 'User Authentication Revoked'", True),
        ("nats: 'Maximum Connections Exceeded'", False),
        ("[Errno 111] Connect call failed", False),
        ("", False),
    ],
)
def test_a_refusal_has_a_mend_and_other_errors_have_none(reason: str, is_refusal: bool) -> None:
    assert ("NKey seed" in mend_for(reason)) is is_refusal


@pytest.mark.parametrize("seed", ["", "SU", "correct horse battery staple", "é"])
def test_a_seed_that_is_none_is_refused_without_showing_it(seed: str) -> None:
    pytest.importorskip("nkeys", reason="seeds need the library's optional part")
    with pytest.raises(ConfigError, match='begins with "SU"') as caught:
        check_seed(seed)
    assert seed in {"", "SU"} or seed not in str(caught.value)


def test_a_seed_without_the_library_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(ConfigError, match="pip install"):
        check_seed("SU")
