"""The cluster's file among the manifests says what the Deployments beside it do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud.cluster_config import PoolConfig, read_cluster_config

FOLDER = Path(__file__).parents[2] / "manifests" / "base" / "cloud"
POOLS = read_cluster_config(FOLDER / "cluster-config.yaml").pools


def objects(pool: PoolConfig) -> dict[str, Any]:
    """Return a pool's Deployment and Service by kind."""
    files = (path.read_text(encoding="utf-8") for path in FOLDER.glob("vllm*.yaml"))
    documents = (document for text in files for document in yaml.safe_load_all(text))
    return {document["kind"]: document for document in documents if document["metadata"]["name"] == f"vllm-{pool.name}"}


def test_the_three_pools_are_there() -> None:
    assert [pool.name for pool in POOLS] == ["qwen-72b", "qwen-14b", "qwen-vl"]
    assert [pool.name for pool in POOLS if pool.vision] == ["qwen-vl"]


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_a_pool_s_numbers_are_its_deployment_s(pool: PoolConfig) -> None:
    found = objects(pool)
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    arguments = dict(argument.removeprefix("--").partition("=")[::2] for argument in container["args"])
    assert found["Deployment"]["spec"].get("replicas", pool.replicas) == pool.replicas, (
        "none is written where they are scaled"
    )
    assert arguments["served-model-name"] == pool.asked_as
    assert int(arguments["max-num-seqs"]) == pool.max_batch_size
    assert int(arguments["tensor-parallel-size"]) == pool.gpu_per_replica
    assert container["resources"]["limits"]["nvidia.com/gpu"] == str(pool.gpu_per_replica)
    port = found["Service"]["spec"]["ports"][0]["port"]
    assert pool.urls == (f"http://{found['Service']['metadata']['name']}:{port}",)
