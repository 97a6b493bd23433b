"""The door for pictures put together by settings: who may post to it, what answers, where it listens."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from starlette.applications import Starlette

from coordinator.metrics import Metrics
from coordinator.probes import serve_http
from edge.brain.groups import is_one_of
from edge.gateway.vision import Vision
from edge.gateway.vision_tokens import VisionOffer, VisionOffers, VisionTokens
from edge.settings import EdgeSettings
from models.engines import Completer

_log = structlog.get_logger()


def vision_tokens(settings: EdgeSettings, role: str) -> VisionTokens | None:
    """Return what makes and checks the tokens for pictures, None where none are taken.

    Gateway and brain share the secret of the devices' tokens; in one process without one a secret of its own does.
    """
    if not settings.vision_pool:
        return None
    secret = settings.device_token_secret.get_secret_value()
    if role and not (secret and settings.vision_port):
        _log.warning("vision_off", mend="set EDGE_VISION_PORT and EDGE_DEVICE_TOKEN_SECRET for both roles")
        return None
    return VisionTokens(secret or secrets.token_hex(16))


def offers(url: str, tokens: VisionTokens | None) -> VisionOffers | _Nowhere:
    """Return what sessions tell their devices of pictures, which are taken at ``url``."""
    return VisionOffers(url, tokens) if tokens else _Nowhere()


class _Nowhere:
    """Offers no address."""

    def __call__(self, _device_id: str, _client_id: str, _session_id: str) -> VisionOffer | None:
        return None


@asynccontextmanager
async def looking(
    settings: EdgeSettings, completer: Completer, tokens: VisionTokens | None, metrics: Metrics
) -> AsyncGenerator[str, None]:
    """Take pictures while the body runs and yield the address, "" when none are taken; raise ConfigError when the port cannot be had."""
    if tokens is None:
        yield ""
        return
    patterns = settings.private_patterns
    vision = Vision(
        completer,
        tokens,
        is_private=lambda device_id: is_one_of(device_id, patterns),
        language=settings.language,
        observe=lambda result: metrics.photos.labels(result).inc(),
    )
    app = Starlette(routes=vision.routes)
    async with serve_http(app, settings.vision_host, settings.vision_port, variable="EDGE_VISION_PORT") as port:
        yield settings.vision_url(port)
