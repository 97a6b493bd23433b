from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cloud.settings import CloudSettings
from coordinator.settings import load
from coordinator.wire import token
from models.errors import ConfigError


def test_a_worker_names_itself_after_its_host_and_process() -> None:
    worker_id = load(CloudSettings, {}).worker_id
    assert worker_id.endswith(f"-{os.getpid()}")
    assert token(worker_id) == worker_id


def test_a_long_host_name_still_fits_a_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "a.very.long.name" * 10)
    worker_id = load(CloudSettings, {}).worker_id
    assert worker_id.startswith("a-very-long-name")
    assert token(worker_id) == worker_id


def test_the_worker_s_own_settings_are_read() -> None:
    settings = load(
        CloudSettings,
        {
            "CLOUD_POOL": "qwen-72b",
            "CLOUD_WORKER_ID": "w1",
            "CLOUD_UPSTREAM_URL": "http://vllm:8000",
            "CLOUD_UPSTREAM_MODEL": "Qwen/Qwen2.5-72B-Instruct",
            "CLOUD_UPSTREAM_API_KEY": "sk-x",
            "CLOUD_MAX_RUNNING": "64",
            "CLOUD_FIRST_TOKEN_S": "5",
            "CLOUD_STALL_S": "2.5",
        },
    )
    assert (settings.pool, settings.worker_id) == ("qwen-72b", "w1")
    assert (settings.upstream_url, settings.upstream_model) == ("http://vllm:8000", "Qwen/Qwen2.5-72B-Instruct")
    assert settings.upstream_api_key.get_secret_value() == "sk-x"
    assert (settings.max_running, settings.first_token_s, settings.stall_s) == (64, 5.0, 2.5)


def test_workers_of_one_machine_do_not_share_a_port_with_the_other_processes() -> None:
    assert load(CloudSettings, {}).http_port == 8003


@pytest.mark.parametrize("variable", ["CLOUD_POOL", "CLOUD_WORKER_ID"])
@pytest.mark.parametrize("name", ["a.b", "*", ">", "a b", "", "x" * 65])
def test_a_name_that_fits_no_subject_is_refused_under_its_variable(variable: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(variable)}: .*letters, digits"):
        load(CloudSettings, {variable: name})


def test_another_mode_than_the_cloud_s_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^CLUSTER_MODE: "):
        load(CloudSettings, {"CLUSTER_MODE": "edge"})


def test_a_variable_of_the_cloud_s_sdk_is_not_ours() -> None:
    assert load(CloudSettings, {"CLOUD_SDK_VERSION": "400.0"}).pool == "qwen-14b"


def test_a_cluster_s_file_and_the_pools_of_it_are_read() -> None:
    settings = load(
        CloudSettings, {"CLOUD_CLUSTER_CONFIG": "/etc/x.yaml", "CLOUD_SERVED_POOLS": "a,b", "CLOUD_TIMEOUT_S": "9"}
    )
    assert (settings.cluster_config, settings.served_pools, settings.timeout_s) == (Path("/etc/x.yaml"), "a,b", 9.0)
    assert load(CloudSettings, {}).cluster_config is None
    assert load(CloudSettings, {"CLOUD_CLUSTER_CONFIG": ""}).cluster_config is None
