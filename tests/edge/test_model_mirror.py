from __future__ import annotations

import pytest

from edge.model_mirror import site_mirror
from models.errors import ConfigError


def test_without_an_address_there_is_no_mirror_whatever_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_S3_URL", raising=False)
    monkeypatch.setenv("EDGE_HTTP_PORT", "not a number")
    with site_mirror() as mirror:
        assert mirror is None


def test_the_mirror_is_the_bucket_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_S3_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("EDGE_S3_BUCKET", "our-bucket")
    with site_mirror() as mirror:
        assert mirror is not None
        assert mirror.name == "S3 bucket our-bucket"


def test_a_wrong_address_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_S3_URL", "object-store")
    with pytest.raises(ConfigError, match="object-store"), site_mirror():
        pass
