"""The scripted engines are measured against the protocols here; mypy compares the signatures of the real ones."""

from __future__ import annotations

import inspect

import pytest

from models import engines
from models.engines import Completer, Recognizer, Synthesizer, TurnDetector, VoiceDetector, VoiceStream
from models.scripted import (
    ScriptedCompleter,
    ScriptedDetector,
    ScriptedRecognizer,
    ScriptedStream,
    ScriptedSynthesizer,
)
from models.silero import SileroDetector, SileroStream
from models.smart_turn import SmartTurnDetector
from models.whisper import WhisperRecognizer

PAIRS = [
    (VoiceStream, ScriptedStream),
    (VoiceStream, SileroStream),
    (VoiceDetector, ScriptedDetector),
    (VoiceDetector, SileroDetector),
    (TurnDetector, SmartTurnDetector),
    (Recognizer, ScriptedRecognizer),
    (Recognizer, WhisperRecognizer),
    (Completer, ScriptedCompleter),
    (Synthesizer, ScriptedSynthesizer),
]


def verbs(protocol: type) -> dict[str, object]:
    return {name: member for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}


@pytest.mark.parametrize(("protocol", "engine"), PAIRS)
def test_an_engine_has_the_verbs_of_its_protocol(protocol: type, engine: type):
    for name, verb in verbs(protocol).items():
        own = getattr(engine, name)
        assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(verb)
        wanted, given = inspect.signature(verb).parameters, inspect.signature(own).parameters
        assert [(p.name, p.default) for p in wanted.values()] == [(p.name, p.default) for p in given.values()]


@pytest.mark.parametrize("protocol", [VoiceDetector, TurnDetector, Recognizer, Completer, Synthesizer])
def test_a_stage_has_one_verb(protocol: type):
    assert len(verbs(protocol)) == 1
    assert protocol.__module__ == engines.__name__


@pytest.mark.parametrize("verb", [ScriptedCompleter.complete, ScriptedSynthesizer.speak])
def test_streams_are_async_generators(verb: object):
    assert inspect.isasyncgenfunction(verb)
