from __future__ import annotations

import pytest

from cloud.scaler_settings import ScalerSettings
from cloud.scaling import Rules
from coordinator.settings import load
from models.errors import ConfigError


def test_without_variables_the_rules_are_the_documented_ones() -> None:
    assert load(ScalerSettings, {}).rules == Rules()


def test_every_rule_can_be_set() -> None:
    environ = {
        "SCALER_MIN_REPLICAS": "2", "SCALER_MAX_REPLICAS": "5", "SCALER_MAX_RUNNING": "64", "SCALER_SERVICE_S": "3",
        "SCALER_WAIT_S": "0.5", "SCALER_UP_USE": "0.9", "SCALER_DOWN_USE": "0.4", "SCALER_UP_WINDOW_S": "10",
        "SCALER_DOWN_WINDOW_S": "300", "SCALER_UP_COOL_S": "60", "SCALER_DOWN_COOL_S": "120", "SCALER_UP_STEP": "3",
        "SCALER_DOWN_STEP": "2", "SCALER_START_S": "900", "SCALER_CLOSED_HOURS": "23:30-06:30 Asia/Shanghai", "SCALER_OPEN_AHEAD_S": "600",
    }  # fmt: skip
    rules, usual = load(ScalerSettings, environ).rules, Rules()
    same = [name for name in Rules.__dataclass_fields__ if getattr(rules, name) == getattr(usual, name)]
    assert same == ["kv_full", "stale_s"], "these are no settings"
    assert str(rules.closed) == "23:30-06:30 Asia/Shanghai"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"SCALER_MIN_REPLICAS": "9"}, "min_replicas 9 must lie between 1 and max_replicas 8"),
        ({"SCALER_UP_USE": "0.3"}, "down_use 0.5 must lie between 0 and up_use 0.3"),
        ({"SCALER_CLOSED_HOURS": "at night"}, "are no hours: write HH:MM-HH:MM"),
        ({"SCALER_CLOSED_HOURS": "23:00-06:00 Moon/Crater"}, "is no time zone"),
        ({"SCALER_DEPLOYMENT": "a/b"}, "SCALER_DEPLOYMENT"),
        ({"SCALER_NAMESPACE": "A"}, "SCALER_NAMESPACE"),
        ({"SCALER_DEPLOYMNT": "a"}, "did you mean SCALER_DEPLOYMENT"),
    ],
)
def test_what_cannot_work_is_refused_with_the_mend(environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(ScalerSettings, environ)
