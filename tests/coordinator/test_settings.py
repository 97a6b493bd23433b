from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from cloud.settings import CloudSettings
from coordinator.settings import (
    MASK,
    CoordinatorSettings,
    ProcessSettings,
    configure_logging,
    effective,
    load,
    variables,
)
from coordinator.wire import token
from edge.settings import EdgeSettings
from models.errors import ConfigError

SECRET = "correct horse battery staple"
CLASSES: list[type[ProcessSettings]] = [CoordinatorSettings, CloudSettings, EdgeSettings]
PREFIXES = {CoordinatorSettings: "COORDINATOR_", CloudSettings: "CLOUD_", EdgeSettings: "EDGE_"}
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def refused(cls: type[ProcessSettings], environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(cls, environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


@each_class
def test_an_empty_environment_gives_the_defaults(cls: type[ProcessSettings]) -> None:
    settings = load(cls, {})
    assert settings.nats_url == "nats://127.0.0.1:4222"
    assert settings.nats_nkey_seed_file is None
    assert settings.http_host == "127.0.0.1"


@each_class
def test_every_setting_has_a_variable_of_its_prefix(cls: type[ProcessSettings]) -> None:
    by_field = {field for variable, field in variables(cls).items() if variable.startswith(PREFIXES[cls])}
    assert by_field == set(cls.model_fields)


@each_class
def test_every_setting_shown_can_be_given_back(cls: type[ProcessSettings]) -> None:
    settings = load(cls, {})
    names = {field: variable for variable, field in reversed(variables(cls).items())}
    environ = {names[field]: str(value) for field, value in effective(settings).items() if value is not None}
    assert effective(load(cls, environ)) == effective(settings)


@each_class
def test_values_get_the_type_of_their_field(cls: type[ProcessSettings]) -> None:
    prefix = PREFIXES[cls]
    settings = load(
        cls,
        {
            f"{prefix}HTTP_PORT": "9000",
            f"{prefix}DRAIN_S": "1.5",
            f"{prefix}LOG_LEVEL": "debug",
            f"{prefix}NATS_NKEY_SEED_FILE": "/run/seed",
        },
    )
    assert (settings.http_port, settings.drain_s, settings.log_level) == (9000, 1.5, "debug")
    assert settings.nats_nkey_seed_file == Path("/run/seed")


@each_class
def test_an_empty_path_is_no_path(cls: type[ProcessSettings]) -> None:
    assert load(cls, {f"{PREFIXES[cls]}NATS_NKEY_SEED_FILE": ""}).nats_nkey_seed_file is None


def test_an_empty_directory_of_models_is_the_default_one() -> None:
    assert load(EdgeSettings, {"EDGE_MODELS_ROOT": ""}).models_root is None


def test_an_empty_text_is_a_value_and_an_empty_number_is_none() -> None:
    assert load(CloudSettings, {"CLOUD_UPSTREAM_MODEL": ""}).upstream_model == ""
    assert "CLOUD_HTTP_PORT" in refused(CloudSettings, {"CLOUD_HTTP_PORT": ""})


@each_class
def test_other_processes_variables_are_left_alone(cls: type[ProcessSettings]) -> None:
    assert load(cls, {"PATH": "/bin", "HOME": "/", "NATS_URL": "nats://other:1", "nats_url": "x"}) == load(cls, {})


@each_class
def test_nothing_but_the_given_mapping_is_read(cls: type[ProcessSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"{PREFIXES[cls]}HTTP_PORT", "HTTP_PORT", "NATS_URL"):
        monkeypatch.setenv(name, "1234")
    assert load(cls, {}).http_port != 1234
    assert load(cls, {}).nats_url == "nats://127.0.0.1:4222"


def test_the_process_s_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CLOUD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUD_POOL", "qwen-72b")
    assert load(CloudSettings).pool == "qwen-72b"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(CloudSettings, {}).pool = "other"


# Names by which others know a setting

ALIASES: list[tuple[type[ProcessSettings], str, str, str]] = [
    (EdgeSettings, "NODE_ID", "node_id", "edge-7"),
    (EdgeSettings, "EDGE_NODE_ID", "node_id", "edge-7"),
    (CoordinatorSettings, "EDGE_NODES_DISCOVERY", "edge_nodes_discovery", "kubernetes"),
    (CoordinatorSettings, "COORDINATOR_EDGE_NODES_DISCOVERY", "edge_nodes_discovery", "kubernetes"),
    (CoordinatorSettings, "CLUSTER_MODE", "cluster_mode", "cloud"),
    (CoordinatorSettings, "COORDINATOR_CLUSTER_MODE", "cluster_mode", "cloud"),
    (CloudSettings, "CLUSTER_MODE", "cluster_mode", "cloud"),
    (CloudSettings, "CLOUD_CLUSTER_MODE", "cluster_mode", "cloud"),
]


@pytest.mark.parametrize(("cls", "variable", "field", "value"), ALIASES)
def test_an_alias_fills_its_field(cls: type[ProcessSettings], variable: str, field: str, value: str) -> None:
    assert getattr(load(cls, {variable: value}), field) == value


def test_the_prefixed_name_wins_over_the_bare_one() -> None:
    for environ in ({"EDGE_NODE_ID": "own", "NODE_ID": "other"}, {"NODE_ID": "other", "EDGE_NODE_ID": "own"}):
        assert load(EdgeSettings, environ).node_id == "own"


def test_a_variable_that_belongs_to_the_coordinator_does_not_disturb_an_edge() -> None:
    assert load(EdgeSettings, {"EDGE_NODES_DISCOVERY": "nats"}) == load(EdgeSettings, {})


@pytest.mark.parametrize(
    ("cls", "variable"),
    [
        (CoordinatorSettings, "CLUSTER_MODE"),
        (CloudSettings, "CLUSTER_MODE"),
        (CloudSettings, "CLOUD_CLUSTER_MODE"),
        (CoordinatorSettings, "EDGE_NODES_DISCOVERY"),
        (CoordinatorSettings, "COORDINATOR_EDGE_NODES_DISCOVERY"),
    ],
)
def test_a_bad_value_is_reported_under_the_name_it_came_by(cls: type[ProcessSettings], variable: str) -> None:
    assert refused(cls, {variable: "moon"}).startswith(f"{variable}: ")


# What is refused


@pytest.mark.parametrize(
    ("cls", "variable", "meant"),
    [
        (EdgeSettings, "EDGE_MAX_DEVICE", "EDGE_MAX_DEVICES"),
        (EdgeSettings, "EDGE_NAT_URL", "EDGE_NATS_URL"),
        (CloudSettings, "CLOUD_POOLS", "CLOUD_POOL"),
        (CoordinatorSettings, "COORDINATOR_DEVICE_SECRET", "COORDINATOR_DEVICE_TOKEN_SECRET"),
    ],
)
def test_an_unknown_variable_is_named_with_what_was_meant(
    cls: type[ProcessSettings], variable: str, meant: str
) -> None:
    assert refused(cls, {variable: SECRET}) == f"{variable}: no such setting; did you mean {meant}?"


def test_an_unknown_variable_like_no_other_points_to_the_list() -> None:
    assert refused(CloudSettings, {"CLOUD_": "x"}).startswith("CLOUD_: no such setting")
    assert "--check-config" in refused(CloudSettings, {"CLOUD_QQQQQQQQQQ": "x"})


@pytest.mark.parametrize(
    ("cls", "variable", "value"),
    [
        *((cls, f"{PREFIXES[cls]}{name}", value) for cls in CLASSES for name, value in [
            ("HTTP_PORT", "-1"),
            ("HTTP_PORT", "65536"),
            ("HTTP_PORT", "http"),
            ("HTTP_PORT", "80.5"),
            ("LOG_LEVEL", "loud"),
            ("LOG_FORMAT", "xml"),
            ("DRAIN_S", "-1"),
            ("DRAIN_S", "nan"),
            ("NATS_CONNECT_S", "0"),
        ]),
        (CloudSettings, "CLOUD_MAX_RUNNING", "0"),
        (CloudSettings, "CLOUD_FIRST_TOKEN_S", "0"),
        (CloudSettings, "CLOUD_POOL", "qwen.14b"),
        (CloudSettings, "CLOUD_POOL", "*"),
        (CloudSettings, "CLOUD_WORKER_ID", "a b"),
        (CoordinatorSettings, "COORDINATOR_PROTOCOL_VERSION", "4"),
        (CoordinatorSettings, "COORDINATOR_TIMEZONE_OFFSET_MIN", "900"),
        (CoordinatorSettings, "COORDINATOR_TOKEN_TTL_S", "59"),
        (CoordinatorSettings, "COORDINATOR_EDGE_STALE_S", "inf"),
        (EdgeSettings, "EDGE_AUTH", "maybe"),
        (EdgeSettings, "EDGE_MAX_DEVICES", "many"),
    ],
)  # fmt: skip
def test_a_bad_value_names_its_variable_and_is_not_repeated(
    cls: type[ProcessSettings], variable: str, value: str
) -> None:
    message = refused(cls, {variable: value})
    assert message.startswith(f"{variable}: ")
    assert f"'{value}'" not in message


def test_all_problems_come_at_once() -> None:
    message = refused(
        CloudSettings,
        {"CLOUD_HTTP_PORT": "x", "CLOUD_MAX_RUNNING": "0", "CLOUD_POLL": "y", "CLOUD_ZZZ": "z", "CLOUD_POOL": "a b"},
    )
    named = [problem.split(":")[0] for problem in message.split("; ") if ": " in problem]
    assert sorted(named) == ["CLOUD_HTTP_PORT", "CLOUD_MAX_RUNNING", "CLOUD_POLL", "CLOUD_POOL", "CLOUD_ZZZ"]


def test_an_error_of_ours_inside_a_check_is_one_of_the_problems() -> None:
    class Checked(ProcessSettings):
        model_config = SettingsConfigDict(env_prefix="X_", frozen=True, populate_by_name=True)
        name: str = "a"

        @field_validator("name")
        @classmethod
        def _fits(cls, name: str) -> str:
            return token(name)

    message = refused(Checked, {"X_NAME": "a.b", "X_NAMES": ""})
    assert "NATS subject" in message
    assert "X_NAMES: no such setting" in message


@given(st.dictionaries(st.sampled_from(sorted(variables(CoordinatorSettings))), st.text(max_size=8)))
def test_any_values_are_settings_or_one_config_error(environ: dict[str, str]) -> None:
    with contextlib.suppress(ConfigError):
        load(CoordinatorSettings, environ)


# Secrets

SECRETS = [
    (CoordinatorSettings, "COORDINATOR_DEVICE_TOKEN_SECRET"),
    (CoordinatorSettings, "COORDINATOR_API_KEYS"),
    (CloudSettings, "CLOUD_UPSTREAM_API_KEY"),
    (EdgeSettings, "EDGE_DEVICE_TOKEN_SECRET"),
    (EdgeSettings, "EDGE_S3_SECRET_KEY"),
]


def test_every_secret_is_in_the_table() -> None:
    fields = {
        (cls, variable)
        for cls in CLASSES
        for variable, field in variables(cls).items()
        if cls.model_fields[field].annotation is SecretStr
    }
    assert fields == set(SECRETS)


@pytest.mark.parametrize(("cls", "variable"), SECRETS)
def test_a_secret_is_shown_as_a_mask_and_appears_in_no_message(cls: type[ProcessSettings], variable: str) -> None:
    settings = load(cls, {variable: SECRET})
    field = variables(cls)[variable]
    assert getattr(settings, field).get_secret_value() == SECRET
    assert effective(settings)[field] == MASK
    assert SECRET not in repr(settings)
    assert SECRET not in json.dumps(effective(settings))
    assert SECRET not in refused(cls, {variable: SECRET, f"{PREFIXES[cls]}HTTP_PORT": SECRET})


@pytest.mark.parametrize(("cls", "variable"), SECRETS)
def test_a_secret_that_is_not_set_is_shown_as_such(cls: type[ProcessSettings], variable: str) -> None:
    assert effective(load(cls, {}))[variables(cls)[variable]] == ""


@pytest.mark.parametrize(
    ("cls", "variable"),
    [(cls, f"{PREFIXES[cls]}NATS_URL") for cls in CLASSES]
    + [(EdgeSettings, "EDGE_REDIS_URL"), (CloudSettings, "CLOUD_UPSTREAM_URL")],
)
def test_a_password_inside_an_address_is_masked(cls: type[ProcessSettings], variable: str) -> None:
    settings = load(cls, {variable: "nats://somebody:pa55word@h:4222"})
    assert getattr(settings, variables(cls)[variable]) == "nats://somebody:pa55word@h:4222"
    assert effective(settings)[variables(cls)[variable]] == "nats://***@h:4222"


@each_class
def test_what_is_shown_can_be_printed_as_json(cls: type[ProcessSettings]) -> None:
    shown = effective(load(cls, {f"{PREFIXES[cls]}NATS_NKEY_SEED_FILE": "/run/seed"}))
    assert json.loads(json.dumps(shown))["nats_nkey_seed_file"] == "/run/seed"


# The NKey seed


def seeded(path: Path) -> ProcessSettings:
    return load(CloudSettings, {"CLOUD_NATS_NKEY_SEED_FILE": str(path)})


def test_the_seed_is_the_file_s_text(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    path.write_text("SUAABC\n")
    assert seeded(path).nkey_seed == "SUAABC"


def test_no_file_is_no_seed() -> None:
    assert load(CloudSettings, {}).nkey_seed is None


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"", "empty"), (b" \n", "empty"), (b"\xff\xfe", "not text")]
)
def test_a_seed_file_that_is_no_good_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "seed"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}.*{words}"):
        _ = seeded(path).nkey_seed


def test_a_directory_is_no_seed_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        _ = seeded(tmp_path).nkey_seed


# Logs


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    before = structlog.get_config()
    yield lambda: capsys.readouterr().err
    structlog.configure(**before)


def test_logs_are_json_for_machines(logged: Callable[[], str]) -> None:
    configure_logging(load(CloudSettings, {"CLOUD_LOG_FORMAT": "json", "CLOUD_LOG_LEVEL": "warning"}))
    structlog.get_logger().info("below_the_level")
    structlog.get_logger().warning("an_event", size_bytes=3)
    (line,) = logged().splitlines()
    said = json.loads(line)
    assert (said["event"], said["size_bytes"], said["level"]) == ("an_event", 3, "warning")
    assert said["timestamp"].endswith("Z")


def test_logs_in_a_file_hold_no_colours(logged: Callable[[], str]) -> None:
    configure_logging(load(CloudSettings, {}))
    structlog.get_logger().info("an_event", pool="qwen-14b")
    text = logged()
    assert "an_event" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_error_is_logged_with_its_trace(logged: Callable[[], str], log_format: str) -> None:
    configure_logging(load(CloudSettings, {"CLOUD_LOG_FORMAT": log_format}))
    structlog.get_logger().error("broke", exc_info=ValueError("words"))
    assert "ValueError: words" in logged()


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_the_protocol_version_can_be_chosen(version: str) -> None:
    settings = load(CoordinatorSettings, {"COORDINATOR_PROTOCOL_VERSION": version})
    assert settings.protocol_version == int(version)


def test_a_class_without_a_prefix_reads_bare_names() -> None:
    class Bare(ProcessSettings):
        extra_s: float = Field(1.0, gt=0)

    assert load(Bare, {"EXTRA_S": "2", "ANYTHING": "x"}).extra_s == 2.0
    assert refused(Bare, {"EXTRA_S": "0"}).startswith("EXTRA_S: ")
