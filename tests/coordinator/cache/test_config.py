from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.config import cache_config, read_cache_config, size_bytes
from coordinator.cache.kinds import Kind, TierName
from models.errors import ConfigError

SEEDS: dict[str, Any] = {
    "L1_memory": {"size": "2GB", "ttl": 300, "types": ["vad_results", "frequent_tts"]},
    "L2_redis": {"size": "20GB", "ttl": 3600, "types": ["asr_results", "llm_responses", "tts_audio"]},
    "L3_storage": {"size": "500GB", "ttl": 86400, "types": ["large_audio", "model_cache"]},
}


def test_the_seeds_file_works_as_it_stands(tmp_path: Path) -> None:
    for number, text in enumerate((json.dumps(SEEDS), json.dumps({"CACHE_CONFIG": SEEDS}))):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        config = read_cache_config(path)
        assert config.terms.ttl_s == {
            TierName.MEMORY: {Kind.SPEECH: 300.0},
            TierName.REDIS: {Kind.TRANSCRIPT: 3600.0, Kind.ANSWER: 3600.0, Kind.SPEECH: 3600.0},
            TierName.OBJECT_STORE: {Kind.AUDIO: 86_400.0},
        }
        assert config.terms.max_bytes[TierName.MEMORY] == 2 * 10**9
        assert [note.partition(":")[0] for note in config.notes] == [
            str(path),
            "L2_redis.size",
            str(path),
            "L3_storage.size",
        ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"L4": {"ttl": 1}}, "'L4'"),
        ({"L1_memory": 5}, "'L1_memory'"),
        ({"L1_memory": {"ttl": 1, "tpyes": []}}, "'tpyes'"),
        ({"L1_memory": {"ttl": 0}}, "L1_memory.ttl"),
        ({"L1_memory": {"ttl": True}}, "L1_memory.ttl"),
        ({"L1_memory": {"ttl": float("nan")}}, "L1_memory.ttl"),
        ({"L1_memory": {}}, "L1_memory.ttl"),
        ({"L1_memory": {"ttl": 1, "size": "2 gigs"}}, "L1_memory.size"),
        ({"L1_memory": {"ttl": 1, "types": "llm"}}, "L1_memory.types"),
        ({"L1_memory": {"ttl": 1, "types": ["pictures"]}}, "'pictures'"),
        ({"L1_memory": {"ttl": 1, "types": [[]]}}, "types"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        cache_config(change)


@pytest.mark.parametrize("text", ["", "[]", "a: b: c", "\x00", "5", "CACHE_CONFIG: 5", "{}"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cache.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cache\.yaml"):
        read_cache_config(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_cache_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("size", "expected"), [("2GB", 2 * 10**9), ("64MiB", 64 << 20), (1000, 1000), ("0", 0), ("1.5 kb", 1500)]
)
def test_sizes(size: object, expected: int) -> None:
    assert size_bytes("L1", size) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(
    st.dictionaries(
        st.sampled_from(["L1_memory", "L2_redis", "size", "x"]),
        st.dictionaries(st.sampled_from(["size", "ttl", "types"]), JSON),
    )
)
def test_anything_is_read_or_refused(document: dict[str, Any]) -> None:
    with suppress(ConfigError):
        cache_config(document)
