"""The seeds' ``CACHE_CONFIG``, a file with L1_memory, L2_redis and L3_storage, each with ``size``, ``ttl`` and ``types``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordinator.cache.kinds import Kind, Terms, TierName
from models.errors import ConfigError

_TIERS = {"L1_memory": TierName.MEMORY, "L2_redis": TierName.REDIS, "L3_storage": TierName.OBJECT_STORE}
_TYPES: Mapping[str, Kind] = {
    "asr_results": Kind.TRANSCRIPT,
    "llm_responses": Kind.ANSWER,
    "frequent_tts": Kind.SPEECH,
    "tts_audio": Kind.SPEECH,
    "large_audio": Kind.AUDIO,
}
_NOT_KEPT = {
    "vad_results": "what the detector says of 32 ms of sound is never asked for twice",
    "model_cache": "xiaozhi-fleet models pull keeps model files on disk and shares them through the same bucket, without an end",
}
_UNITS = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|)", re.IGNORECASE)
MAX_TTL_S = 366 * 86_400.0


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the file asks for."""

    terms: Terms
    notes: tuple[str, ...] = ()
    """Fields that are not ours to keep, each with the reason."""


def read_cache_config(path: Path) -> CacheConfig:
    """Return what the file says, YAML or JSON, with or without ``CACHE_CONFIG`` around it; raise ConfigError naming the field."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as YAML or JSON: {type(error).__name__}") from error
    if isinstance(document, dict) and set(document) == {"CACHE_CONFIG"}:
        document = document["CACHE_CONFIG"]
    if not isinstance(document, dict) or not document:
        raise ConfigError(f"{path}: expected L1_memory, L2_redis and L3_storage, each with size, ttl and types")
    return cache_config(document, str(path))


def cache_config(document: Mapping[Any, Any], where: str = "CACHE_CONFIG") -> CacheConfig:
    """Return what a document says; raise ConfigError naming the field."""
    ttl_s: dict[str, dict[str, float]] = {}
    max_bytes: dict[str, int] = {}
    notes: list[str] = []
    for name, terms in document.items():
        tier = _TIERS.get(name)
        if tier is None or not isinstance(terms, dict):
            raise ConfigError(f"{where}: {str(name)[:80]!r} is not one of {', '.join(_TIERS)} with size, ttl and types")
        place = f"{where}: {name}"
        unknown = sorted(str(field) for field in set(terms) - {"size", "ttl", "types"})
        if unknown:
            raise ConfigError(f"{place}: {unknown[0][:80]!r} is not one of size, ttl, types")
        ttl_s[tier] = dict.fromkeys(_kinds(place, terms.get("types", []), notes), _ttl_s(place, terms.get("ttl")))
        if "size" in terms:
            max_bytes[tier] = size_bytes(place, terms["size"])
            if tier is not TierName.MEMORY:
                notes.append(f"{name}.size: the server bounds itself; set its maxmemory, or the bucket's quota")
    return CacheConfig(terms=Terms(ttl_s=ttl_s, max_bytes=max_bytes), notes=tuple(notes))


def size_bytes(place: str, size: object) -> int:
    """Return the bytes of "2GB", "64MiB" or a number; raise ConfigError."""
    match = _SIZE.fullmatch(str(size).strip()) if not isinstance(size, bool) else None
    if match is None:
        raise ConfigError(f"{place}.size: {str(size)[:80]!r} is not a size: write 2GB, 512MiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _ttl_s(place: str, ttl: object) -> float:
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= MAX_TTL_S:
        raise ConfigError(f"{place}.ttl: {str(ttl)[:80]!r} is not a number of seconds from 1 to {MAX_TTL_S:.0f}")
    return float(ttl)


def _kinds(place: str, types: object, notes: list[str]) -> list[Kind]:
    if not isinstance(types, list):
        raise ConfigError(f"{place}.types: expected a list")
    kinds = []
    for name in types:
        if not isinstance(name, str):
            raise ConfigError(f"{place}.types: expected names")
        if name in _NOT_KEPT:
            notes.append(f"{place}.types: {name}: {_NOT_KEPT[name]}")
        elif name in _TYPES:
            kinds.append(_TYPES[name])
        else:
            known = ", ".join([*_TYPES, *_NOT_KEPT])
            raise ConfigError(f"{place}.types: {str(name)[:80]!r} is not one of {known}")
    return kinds
