from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cloud.cluster_config import MAX_FILE_BYTES, ClusterConfig, parse_cluster_config, read_cluster_config
from models.errors import ConfigError

BARE = """
cloud_cluster:
  llm_service:
    models:
      - name: "qwen-72b"
        replicas: 8
        gpu_per_replica: 4
        max_batch_size: 32
      - name: "qwen-14b"
        replicas: 12
        gpu_per_replica: 2
        max_batch_size: 64

    load_balancing:
      strategy: "complexity_aware"
      fallback_enabled: true
      timeout: 30

  management:
    monitoring:
      prometheus: true
      grafana: true
      alertmanager: true

    logging:
      elasticsearch: true
      kibana: true
      log_retention: "30d"

    backup:
      schedule: "0 2 * * *"
      retention: "7d"
      storage: "s3://xiaozhi-backups"
"""
WRAPPED = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cloud-cluster-config\ndata:\n  cluster.yaml: |\n"
    + "".join(f"    {line}\n" if line else "\n" for line in BARE.splitlines())
)
WITH_MORE = (
    WRAPPED
    + """
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cloud-orchestrator
spec:
  replicas: 3
"""
)
NOT_OURS = [
    "cloud_cluster.management.monitoring.grafana",
    "cloud_cluster.management.monitoring.alertmanager",
    "cloud_cluster.management.logging.elasticsearch",
    "cloud_cluster.management.logging.kibana",
    "cloud_cluster.management.logging.log_retention",
    "cloud_cluster.management.backup.schedule",
    "cloud_cluster.management.backup.retention",
    "cloud_cluster.management.backup.storage",
]


def described(*models: dict[str, Any], **more: Any) -> str:
    service = {"models": list(models) or [{"name": "qwen-14b"}], **more}
    return yaml.safe_dump({"cloud_cluster": {"llm_service": service}})


@pytest.mark.parametrize(("text", "before"), [(BARE, []), (WRAPPED, []), (WITH_MORE, ["Deployment"])])
def test_the_file_works_as_it_stands_bare_and_in_its_config_map(text: str, before: list[str]) -> None:
    config = parse_cluster_config(text)
    big, small = config.pools
    assert (big.name, big.replicas, big.gpu_per_replica, big.max_batch_size) == ("qwen-72b", 8, 4, 32)
    assert (small.name, small.replicas, small.gpu_per_replica, small.max_batch_size) == ("qwen-14b", 12, 2, 64)
    assert (config.load_balancing.strategy, config.load_balancing.fallback_enabled) == ("complexity_aware", True)
    assert config.load_balancing.timeout == 30
    assert [note.field for note in config.notes] == before + NOT_OURS
    assert all(note.reason for note in config.notes)


def test_our_own_fields_are_read_and_may_be_absent() -> None:
    pool = {"name": "qwen-vl", "model": "Qwen/Qwen2-VL-7B", "urls": ["http://a:8000", "https://b/v1"], "vision": True}
    (own,) = parse_cluster_config(described(pool)).pools
    assert (own.asked_as, own.urls, own.vision) == ("Qwen/Qwen2-VL-7B", ("http://a:8000", "https://b/v1"), True)
    (plain,) = parse_cluster_config(described({"name": "qwen-72b"})).pools
    assert (plain.asked_as, plain.urls, plain.vision, plain.replicas) == ("qwen-72b", (), False, 1)


def test_what_is_switched_off_needs_no_note() -> None:
    text = BARE.replace("grafana: true", "grafana: false").replace('log_retention: "30d"', "log_retention: null")
    fields = [note.field for note in parse_cluster_config(text).notes]
    assert fields == [field for field in NOT_OURS if not field.endswith(("grafana", "log_retention"))]


SERVICE = "cloud_cluster.llm_service"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BARE.replace("complexity_aware", "round_robin"), f"{SERVICE}.load_balancing.strategy: .*complexity_aware"),
        (BARE.replace("prometheus: true", "prometheus: false"), r"monitoring\.prometheus: .*always served"),
        (BARE.replace("replicas: 8", "replica: 8"), rf"{SERVICE}\.models\.0\.replica: no such field; did you mean replicas\?"),
        (BARE.replace("timeout: 30", "timeot: 30"), r"load_balancing\.timeot: no such field; did you mean timeout\?"),
        (BARE.replace("backup:", "backups:"), r"management\.backups: no such field; did you mean backup\?"),
        (BARE.replace("replicas: 8", "replicas: eight"), rf"{SERVICE}\.models\.0\.replicas: .*integer"),
        (BARE.replace("replicas: 8", "replicas: true"), rf"{SERVICE}\.models\.0\.replicas: .*integer"),
        (BARE.replace("replicas: 8", "replicas: -1"), rf"{SERVICE}\.models\.0\.replicas: "),
        (BARE.replace("gpu_per_replica: 4", "gpu_per_replica: 0.5"), rf"{SERVICE}\.models\.0\.gpu_per_replica: "),
        (BARE.replace("max_batch_size: 32", "max_batch_size: 0"), rf"{SERVICE}\.models\.0\.max_batch_size: "),
        (BARE.replace("timeout: 30", "timeout: 0"), r"load_balancing\.timeout: "),
        (BARE.replace("timeout: 30", "timeout: .nan"), r"load_balancing\.timeout: "),
        (BARE.replace("timeout: 30", "timeout: .inf"), r"load_balancing\.timeout: "),
        (BARE.replace("fallback_enabled: true", "fallback_enabled: 1"), r"load_balancing\.fallback_enabled: "),
        (BARE.replace("qwen-14b", "qwen-72b"), "two models have the name qwen-72b"),
        (BARE.replace('"qwen-72b"', '"qwen.72b"'), r"models\.0\.name: use 1 to 64 letters"),
        (described({"name": "a", "urls": ["h:8000"]}), r"models\.0\.urls\.0: 'h:8000' is no address; write http://host:port"),
        (described({"name": "a", "urls": "http://h"}), r"models\.0\.urls: "),
        ("cloud_cluster: {llm_service: {models: []}}", "models is empty"),
        ("cloud_cluster: {}", rf"{SERVICE}: Field required"),
        ("cloud_cluster: 3", "cloud_cluster: "),
        ("cloud_clutser: {}", r"cloud_clutser: no such field; did you mean cloud_cluster\?"),
        ("", "0 documents"),
        (BARE + "---" + BARE, "2 documents"),
        ("kind: ConfigMap\napiVersion: v1\ndata: {other: text}", "0 documents"),
        ("kind: ConfigMap\napiVersion: v1\ndata: 3", "0 documents"),
        ("- 1", "no mapping"),
        ("[[[", "no YAML in line 1"),
        ("a: 2024-13-45", "no YAML"),
        ("[" * 5000, "no YAML"),
        (BARE.replace("replicas: 8", "replicas: 8\n        replicas: 9"), "'replicas' is given twice"),
        ("x: &x [1]\ncloud_cluster: *x", r"anchor"),
        ("cloud_cluster: !!python/object/apply:os.system [x]", r"tag \(!name\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_its_name(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_cluster_config(text)


def test_every_problem_is_named_at_once_and_none_repeats_a_password() -> None:
    text = BARE.replace("replicas: 8", "replica: 8").replace("round_robin", "x").replace("timeout: 30", "timeout: 0")
    with pytest.raises(ConfigError, match=r"replica: .*; .*timeout: "):
        parse_cluster_config(text)
    with pytest.raises(ConfigError, match="no address") as caught:
        parse_cluster_config(described({"name": "a", "urls": ["http://u:pa55@h:port"]}))
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [("", ["qwen-72b", "qwen-14b"]), ("qwen-14b", ["qwen-14b"]), (" qwen-14b , qwen-72b,qwen-14b", ["qwen-14b", "qwen-72b"])],
)  # fmt: skip
def test_pools_are_chosen_by_name(names: str, expected: list[str]) -> None:
    assert [pool.name for pool in parse_cluster_config(BARE).chosen(names)] == expected


def test_a_chosen_pool_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pool 'qwen-vl'; it has qwen-14b, qwen-72b"):
        parse_cluster_config(BARE).chosen("qwen-72b,qwen-vl")


def test_a_file_is_read_and_named_in_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(BARE, encoding="utf-8")
    assert len(read_cluster_config(path).pools) == 2
    for content, words in [
        (b"\xff", "UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), "longer than"),
        (b"a: 1", "no such field"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=words) as caught:
            read_cluster_config(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        read_cluster_config(tmp_path / "none.yaml")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def spoiled(text: str, steps: list[int], value: Any) -> Any:
    """Put ``value`` somewhere into the document."""
    document = yaml.safe_load(text)
    place = document
    for step in steps:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[step % len(keys)]
        if not isinstance(place[key], dict | list) or step == steps[-1]:
            place[key] = value
            break
        place = place[key]
    return document


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), ANYTHING)
def test_no_value_anywhere_gives_anything_but_pools_or_our_error(steps: list[int], value: Any) -> None:
    try:
        config = parse_cluster_config(yaml.safe_dump(spoiled(BARE, steps, value)))
    except ConfigError:
        return
    assert isinstance(config, ClusterConfig)
    assert all(pool.max_batch_size >= 1 for pool in config.pools)


@given(st.text(max_size=200) | st.integers(0, len(BARE)).map(lambda cut: BARE[:cut]))
@example("!!int x")
@example("!!timestamp x")
@example("? {a: 1}\n: 2")
@example("\x00")
@example("a: !!binary 3")
@example("0x: 1\n1_: .inf")
def test_no_text_gives_anything_but_pools_or_our_error(text: str) -> None:
    try:
        parse_cluster_config(text)
    except ConfigError as error:
        assert str(error)  # noqa: PT017  # either way out is right
