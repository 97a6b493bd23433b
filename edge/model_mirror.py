"""The mirror of model files that an edge node's settings name, for ``xiaozhi-fleet models pull``; decides nothing itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.cache.model_mirror import ModelMirror
from coordinator.settings import load
from edge.settings import EdgeSettings
from models.mirror import Mirror


@contextmanager
def site_mirror() -> Iterator[Mirror | None]:
    """Yield the site's bucket as a mirror, None when EDGE_S3_URL is not set; raise ConfigError."""
    if not os.environ.get("EDGE_S3_URL"):
        yield None  # without reading the other settings: a machine that only pulls models has none
        return
    settings = load(EdgeSettings)
    secret_key = settings.s3_secret_key.get_secret_value()
    with ModelMirror.connect(
        settings.s3_url, settings.s3_bucket, access_key=settings.s3_access_key, secret_key=secret_key
    ) as mirror:
        yield mirror
