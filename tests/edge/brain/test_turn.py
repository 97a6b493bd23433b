from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edge.brain.packets import SpeechPackets
from edge.brain.sentences import Sentence
from edge.brain.turn import Turn, TurnNames
from edge.seam import SPEECH_WINDOW_MS, DownMessage, SpeechDown, TurnEnded
from models.errors import SynthesisError
from models.prompts import CompletionDelta
from models.speech import Transcript
from tests.edge.brain.talking import story
from tests.virtual_time import run

SECOND = SpeechPackets(packets=(b"opus",) * 17)
"""1,020 ms."""


def new_turn(down: list[DownMessage], failed: Callable[[str, str], None] = lambda _stage, _code: None) -> Turn:
    async def send(message: DownMessage) -> None:
        down.append(message)

    names = TurnNames(turn_id="t", session_id="s", device_id="d", edge_id="e", fence=3)
    return Turn(names, send, now=asyncio.get_running_loop().time, endpoint_wait_ms=600.0, failed=failed)


def sent_ms(down: list[DownMessage]) -> int:
    return sum(60 * len(message.packets) for message in down if isinstance(message, SpeechDown))


def test_events_become_messages_with_the_turns_fence() -> None:
    down: list[DownMessage] = []

    async def scene() -> None:
        turn = new_turn(down)
        await turn.emit(Transcript(turn_id="t", text="你好", language="zh"))
        await turn.emit(Sentence(text="甲", emotion="happy"))
        await turn.emit(SECOND)
        await turn.emit(Sentence(text="乙"))
        await turn.emit(SECOND)
        await turn.finish()

    run(scene())
    assert story(down) == ["heard 你好", "felt happy", "sentence 甲", "speech", "sentence 乙", "speech", "answered"]
    assert {(message.session_id, message.fence) for message in down} == {("s", 3)}
    assert sent_ms(down) == 2040


def test_sentence_without_emotion_begins_with_a_neutral_face() -> None:
    down: list[DownMessage] = []

    async def scene() -> None:
        turn = new_turn(down)
        await turn.emit(Sentence(text="甲"))
        await turn.emit(Sentence(text="乙"))

    run(scene())
    assert story(down) == ["felt neutral", "sentence 甲", "sentence 乙"]


def test_speech_never_runs_further_ahead_than_the_window() -> None:
    down: list[DownMessage] = []

    async def scene() -> None:
        turn = new_turn(down)
        await turn.emit(Sentence(text="长"))

        async def talk() -> None:
            for _ in range(50):
                await turn.emit(SECOND)

        talking = asyncio.create_task(talk())
        for played_ms in (0, 100, 5000, 5000, 4000, 20_000):
            await asyncio.sleep(1)
            turn.played(played_ms)
            await asyncio.sleep(1)
            assert sent_ms(down) - turn._played_ms <= SPEECH_WINDOW_MS
            assert turn.is_waiting_for_room is (played_ms < 20_000 or sent_ms(down) < 50 * 1020 - 600)
        turn.played(40_000)
        await talking
        assert not turn.is_waiting_for_room

    run(scene())


def test_marks_hold_the_first_of_each_kind() -> None:
    async def scene() -> None:
        turn = new_turn([])
        for event in (
            Transcript(turn_id="t", text="你好"),
            CompletionDelta(text=""),
            CompletionDelta(text="a", model="m"),
            Sentence(text="a"),
            CompletionDelta(text="b"),
        ):
            await asyncio.sleep(0.1)
            turn.observe(event)
        await turn.emit(Transcript(turn_id="t", text="你好", language="zh"))
        await turn.emit(Sentence(text="a"))
        await turn.emit(SECOND)
        await asyncio.sleep(1)
        await turn.finish()
        record = turn.record("answered")
        marks = record.marks
        assert (record.heard, record.answer, record.model, record.language) == ("你好", "a", "m", "zh")
        assert marks.endpoint_wait_ms == 600.0
        found = (
            marks.transcript_ms,
            marks.first_token_ms,
            marks.first_sentence_ms,
            marks.first_audio_ms,
            marks.ended_ms,
        )
        assert found == pytest.approx((100, 300, 400, 500, 1500))

    run(scene())


def test_until_played_ends_with_the_last_report_or_when_it_is_overdue() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        for reports, took_s in (((500, 1020), 2.0), ((), 3.02)):
            turn = new_turn([])
            await turn.emit(Sentence(text="a"))
            await turn.emit(SECOND)
            await turn.finish()
            began_s = loop.time()
            waiting = asyncio.create_task(turn.until_played())
            for played_ms in reports:
                await asyncio.sleep(1)
                turn.played(played_ms)
            await waiting
            assert loop.time() - began_s == pytest.approx(took_s)

    run(scene())


def test_end_names_outcome_code_and_the_fence_it_is_given() -> None:
    down: list[DownMessage] = []

    async def scene() -> None:
        await new_turn(down).end("failed", 7, "asr-failed")

    run(scene())
    assert down == [TurnEnded(session_id="s", fence=7, turn_id="t", outcome="failed", code="asr-failed")]


def test_sentence_left_out_is_reported_and_not_part_of_the_answer() -> None:
    failures: list[tuple[str, str]] = []
    down: list[DownMessage] = []

    async def scene() -> str:
        turn = new_turn(down, lambda stage, code: failures.append((stage, code)))
        await turn.emit(Sentence(text="甲。"))
        turn.observe(SynthesisError("mute"))
        for text in ("乙。", "丙。"):
            await turn.emit(Sentence(text=text))
            await turn.emit(SECOND)
        turn.observe(SynthesisError("half of it"))
        await turn.finish()
        return turn.answer("answered")

    assert run(scene()) == "乙。丙。"
    assert failures == [("tts", "tts-failed")] * 2
    assert story(down)[:3] == ["felt neutral", "sentence 甲。", "sentence 乙。"]


def test_whole_sentence_from_the_cache_goes_out_in_messages_of_bounded_size() -> None:
    down: list[DownMessage] = []

    async def scene() -> None:
        turn = new_turn(down)
        await turn.emit(Sentence(text="长"))
        await turn.emit(SpeechPackets(packets=tuple(bytes([number]) for number in range(25))))

    run(scene())
    sizes = [len(message.packets) for message in down if isinstance(message, SpeechDown)]
    assert sizes == [10, 10, 5]
    sent = b"".join(b"".join(message.packets) for message in down if isinstance(message, SpeechDown))
    assert sent == bytes(range(25))
