from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.brain.backchannel import BACKCHANNELS, STOPS, UnlessStop, bare, said
from models.scripted import ScriptedRecognizer
from models.speech import Utterance
from tests.virtual_time import run


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *((text, "nothing") for text in ("", " ", "。", "…！", "🙂")),
        *((text, "backchannel") for text in ("嗯", "嗯。", "嗯，嗯。", "嗯嗯嗯嗯嗯", "哦！", "好的，好的。", "对对对对", "Uh-huh.", "Mm-hm", "OK", "Yeah!")),
        *((text, "backchannel") for text in ("okay", "Right.", "I see.", "好", "啊？", "是的", "行")),
        *((text, "stop") for text in ("停", "停！", "停停停停", "别说了。", "等一下", "等等", "Stop!", "stop it", "Hold on.", "Wait, wait")),
        *((text, "words") for text in ("嗯不对", "好听吗", "停车场在哪", "等一下我要换一首", "stop the music", "okay what about Paris", "二", "1")),
    ],
)  # fmt: skip
def test_what_is_said_over_an_answer_is_told_apart(text: str, meant: str) -> None:
    assert said(text) == meant


def test_tables_are_bare_and_apart() -> None:
    assert all(bare(word) == word for word in BACKCHANNELS | STOPS)
    assert not BACKCHANNELS & STOPS


@given(st.text())
def test_any_text_means_something(text: str) -> None:
    assert said(text) in {"nothing", "backchannel", "stop", "words"}


@pytest.mark.parametrize(("text", "heard"), [("停！", ""), ("停，换一首", "停，换一首"), ("嗯", "嗯")])
def test_stop_word_that_did_its_work_is_heard_as_nothing(text: str, heard: str) -> None:
    async def scene() -> None:
        recognizer = UnlessStop(ScriptedRecognizer([text]))
        said_now = Utterance(turn_id="t", device_id="d", pcm=b"", start_ms=0, end_ms=0)
        assert (await asyncio.wait_for(recognizer.transcribe(said_now), 1)).text == heard

    run(scene())
