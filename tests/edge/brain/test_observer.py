from __future__ import annotations

import inspect

from coordinator.turns import TurnRecord
from edge.brain.observer import BrainObserver, DeafObserver


def test_deaf_observer_takes_everything_and_does_nothing() -> None:
    observer: BrainObserver = DeafObserver()
    observer.turn_ended(TurnRecord(turn_id="t", session_id="s", device_id="d", edge_id="e", outcome="silent"))
    observer.stage_seconds("vad", 0.1)
    observer.error("turn", "asr-failed")
    observer.sessions(3)


def test_deaf_observer_has_every_method_of_the_protocol() -> None:
    wanted = {name for name, _ in inspect.getmembers(BrainObserver, inspect.isfunction) if not name.startswith("_")}
    assert wanted == {name for name in vars(DeafObserver) if not name.startswith("_")}
