from __future__ import annotations

import json

import pytest

from coordinator.settings import MASK, effective, load
from edge.settings import EdgeSettings
from models.errors import ConfigError


def test_nothing_set_gives_a_node_on_loopback_with_real_engines_that_asks_for_tokens() -> None:
    settings = load(EdgeSettings, {})
    assert (settings.node_id, settings.engines, settings.auth) == ("edge-1", "real", "token")
    assert settings.gateway_host == settings.http_host == "127.0.0.1"
    assert settings.max_devices == 150


def test_unknown_variable_is_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"EDGE_GATEWAY_PROT: no such setting; did you mean EDGE_GATEWAY_PORT\?"):
        load(EdgeSettings, {"EDGE_GATEWAY_PROT": "1"})


def test_every_problem_is_told_at_once_and_no_value_repeated() -> None:
    wrong = {"EDGE_GATEWAY_PORT": "s3cret", "EDGE_NOSUCH": "s3cret", "EDGE_LANGUAGE": "s3cret"}
    with pytest.raises(ConfigError) as caught:
        load(EdgeSettings, wrong)
    assert all(name in str(caught.value) for name in wrong)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["PATH", "COORDINATOR_HTTP_PORT", "EDGE_NODES_DISCOVERY", "CLOUD_POOL", "edge_pool"])
def test_variable_of_somebody_else_is_left_alone(name: str) -> None:
    assert load(EdgeSettings, {name: "x"}).pool == "qwen-14b"


@pytest.mark.parametrize(
    ("environ", "node_id"),
    [
        ({"NODE_ID": "edge-7"}, "edge-7"),
        ({"NODE_ID": "edge-7.site.example"}, "edge-7-site-example"),
        ({"EDGE_NODE_ID": "a_b"}, "a_b"),
        ({"EDGE_NODE_ID": "x" * 64}, "x" * 64),
    ],
)
def test_node_id_comes_from_either_name_and_a_host_name_becomes_a_subject_token(
    environ: dict[str, str], node_id: str
) -> None:
    assert load(EdgeSettings, environ).node_id == node_id


@pytest.mark.parametrize("node_id", ["", "a b", "a*", "a>b", "边缘", "x" * 65])
def test_node_id_that_is_no_subject_token_is_refused(node_id: str) -> None:
    with pytest.raises(ConfigError):
        load(EdgeSettings, {"NODE_ID": node_id})


@pytest.mark.parametrize(
    ("variable", "lowest", "highest", "beyond"),
    [
        ("EDGE_GATEWAY_PORT", "0", "65535", ("-1", "65536")),
        ("EDGE_HTTP_PORT", "0", "65535", ("-1", "65536")),
        ("EDGE_MAX_DEVICES", "1", "100000", ("0", "100001")),
        ("EDGE_IDLE_S", "0.5", "119.9", ("0", "120")),
        ("EDGE_ASR_THREADS", "1", "64", ("0", "65")),
        ("EDGE_LLM_THREADS", "1", "64", ("0", "65")),
        ("EDGE_TTS_THREADS", "1", "64", ("0", "65")),
        ("EDGE_END_SILENCE_MS", "100", "5000", ("99", "5001")),
        ("EDGE_BUDGET_S", "0.1", "600", ("0", "601")),
        ("EDGE_THRESHOLD", "0", "2", ("-0.1", "2.1")),
        ("EDGE_FIRST_TOKEN_S", "0.1", "60", ("0", "61")),
        ("EDGE_DRAIN_S", "0", "600", ("-1", "601")),
    ],
)
def test_number_at_its_bounds_is_taken_and_one_beyond_or_no_number_is_refused(
    variable: str, lowest: str, highest: str, beyond: tuple[str, str]
) -> None:
    for good in (lowest, highest):
        load(EdgeSettings, {variable: good})
    for bad in (*beyond, "many", "nan", ""):
        with pytest.raises(ConfigError, match=variable):
            load(EdgeSettings, {variable: bad})


@pytest.mark.parametrize(
    "variable", ["EDGE_AUTH", "EDGE_ENGINES", "EDGE_LANGUAGE", "EDGE_LOG_LEVEL", "EDGE_LOG_FORMAT"]
)
def test_word_that_is_none_of_the_choices_is_refused(variable: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        load(EdgeSettings, {variable: "perhaps"})


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "ws://127.0.0.1:8000/xiaozhi/v1/"),
        ({"EDGE_GATEWAY_HOST": "10.0.0.7", "EDGE_GATEWAY_PORT": "9000"}, "ws://10.0.0.7:9000/xiaozhi/v1/"),
        (
            {"EDGE_GATEWAY_PORT": "9000", "EDGE_PUBLIC_WEBSOCKET_URL": "wss://voice.example/x/"},
            "wss://voice.example/x/",
        ),
    ],
)
def test_devices_are_told_the_public_address_or_where_the_gateway_listens(environ: dict[str, str], url: str) -> None:
    assert load(EdgeSettings, environ).websocket_url == url


@pytest.mark.parametrize("text", ["{}", "[{}]", '[{"devices": "a", "endpointing": {"end_by": "silenc"}}]', "nonsense"])
def test_groups_that_cannot_be_read_are_refused_before_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="endpointing of device groups"):
        load(EdgeSettings, {"EDGE_ENDPOINTING": text})


def test_settings_in_force_show_no_secret() -> None:
    secrets = {"EDGE_DEVICE_TOKEN_SECRET": "correct horse battery", "EDGE_S3_SECRET_KEY": "staple"}
    settings = load(EdgeSettings, secrets)
    shown = json.dumps(effective(settings)) + repr(settings)
    assert not [secret for secret in secrets.values() if secret in shown]
    assert effective(settings)["device_token_secret"] == effective(settings)["s3_secret_key"] == MASK
    assert effective(load(EdgeSettings, {}))["s3_secret_key"] == "", "an empty one is seen to be empty"


def test_settings_do_not_change_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(EdgeSettings, {}).pool = "other"  # type: ignore[misc]  # that is the test
