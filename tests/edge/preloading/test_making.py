from __future__ import annotations

from functools import partial

import pytest

from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.hierarchy import Hierarchy
from coordinator.routing.policy import Policy, PoolTerms
from coordinator.routing.router import Router
from edge.brain.conversation import Limits
from edge.brain.packets import SpeechMemory
from edge.brain.pipeline import Pipeline
from edge.brain.speaker import Speaker
from edge.brain.spoken_answers import SpokenAnswers
from edge.preloading.making import Maker
from models.engines import Completer
from models.errors import CompletionError, SynthesisError
from models.scripted import ScriptedCompleter, ScriptedRecognizer, ScriptedSynthesizer
from tests.virtual_time import run


def parts(
    completer: Completer, synthesizer: ScriptedSynthesizer | None = None
) -> tuple[Maker, SpokenAnswers, list[str]]:
    """A maker, what a device of the same node would hear, and the keys people were heard to ask for."""
    ladder = Ladder(MemoryTier())
    answers = AnswerCache(ladder)
    speaker = Speaker(synthesizer or ScriptedSynthesizer(ms_per_character=10), memory=SpeechMemory(ladder))
    asked: list[str] = []
    sound = partial(SpokenAnswers, ladder, answers, voice="v", qualities=speaker.qualities)
    spoken = sound(asked=lambda key, _prompt: asked.append(key))
    policy = Policy(router="complexity", threshold=2.0, pools=(PoolTerms(name="p"),))
    hierarchy = Hierarchy(completer, {}, answers, Router(policy, None))
    turns = Pipeline(ScriptedRecognizer([""]), ScriptedCompleter(unknown="nobody asks this one"), speaker, spoken)
    maker = Maker(turns, hierarchy, answers, sound, language="zh", limits=Limits())
    return maker, spoken, asked


def test_what_was_made_is_what_a_device_hears_and_nobody_is_counted_as_asking() -> None:
    async def scenario() -> None:
        completer = ScriptedCompleter(unknown="一百度。在海边。")
        maker, spoken, asked = parts(completer)
        prompt = maker.prompt("zh", "水的沸点是多少度")
        assert await maker.make(prompt)
        assert asked == []
        heard = await spoken.get(maker.prompt("zh", "水的沸点是多少度？"))
        assert heard is not None
        assert [piece.text for piece in heard.pieces] == ["一百度。", "在海边。"]
        assert all(piece.packets for piece in heard.pieces)
        key = maker.key(prompt)
        assert asked == [key]
        assert key is not None
        assert maker.spoken_key(key) == spoken.key(key)

    run(scenario())


def test_what_is_never_remembered_is_made_in_vain_and_says_so() -> None:
    async def scenario() -> None:
        maker, _, _ = parts(ScriptedCompleter(unknown="三点。"))
        prompt = maker.prompt("zh", "现在几点了")
        assert maker.key(prompt) is None
        assert not await maker.make(prompt)

    run(scenario())


@pytest.mark.parametrize(
    ("completer", "synthesizer", "error"),
    [
        (ScriptedCompleter(fail_at_token=0), ScriptedSynthesizer(), CompletionError),
        (ScriptedCompleter(unknown="好的。"), ScriptedSynthesizer(failures=[0]), SynthesisError),
    ],
)
def test_what_fails_is_raised_and_not_remembered(
    completer: Completer, synthesizer: ScriptedSynthesizer, error: type[Exception]
) -> None:
    async def scenario() -> None:
        maker, spoken, _ = parts(completer, synthesizer)
        prompt = maker.prompt("zh", "水的沸点是多少度")
        with pytest.raises(error):
            await maker.make(prompt)
        assert await spoken.get(prompt) is None

    run(scenario())


def test_the_question_is_what_a_device_asks_first() -> None:
    maker, _, _ = parts(ScriptedCompleter(unknown="x"))
    prompt = maker.prompt("en", "what do cats eat")
    assert (prompt.language, prompt.question, prompt.is_private) == ("en", "what do cats eat", False)
    assert [message.role for message in prompt.messages] == ["system", "user"]
