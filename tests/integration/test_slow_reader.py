"""A device that does not read costs itself its session, and nobody else anything."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest

from edge import seam
from edge.gateway import server
from edge.gateway.session import SessionOptions as DeviceOptions
from models.prompts import Prompt
from models.scripted import ScriptedCompleter, ScriptedRecognizer, ScriptedSynthesizer
from models.speech import SpeechChunk, Utterance
from tests import virtual_time
from tests.integration.node import ANSWER, NODE, SPEECH, Plan, RealNode, node, quiet_node
from tests.integration.test_bad_devices import deaf, spoken
from tests.real_time import run

DEAF = "deaf"
NEIGHBOURS = 6
TURNS = 3
MAX_BYTES = 256 * 1024
"""Of speech that may be kept for one device that does not read."""
STORY = "".join(f"第{number}句话说的是很久很久以前的一个故事。" for number in range(60))
"""Sixty different sentences, minutes of speech: more than anybody may keep waiting."""


def heard(utterance: Utterance) -> str:
    return "讲个故事" if utterance.device_id == DEAF else "你好"


def answered(prompt: Prompt) -> str:
    return STORY if prompt.question == "讲个故事" else ANSWER


class Storyteller:
    """Takes its time over the story and none over anything else."""

    def __init__(self) -> None:
        self._slow = ScriptedSynthesizer(delay_s=0.05, ms_per_character=2_000)
        self._quick = ScriptedSynthesizer(delay_s=0.05, ms_per_character=100)

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        voice = self._slow if "故事" in text else self._quick
        async with aclosing(voice.speak(text, language)) as chunks:
            async for chunk in chunks:
                yield chunk


def plan(*, slots: int = 100, send_s: float = 1.0) -> Plan:
    return Plan(
        recognizer=ScriptedRecognizer(heard, delay_s=0.05),
        edge=ScriptedCompleter(answered, first_token_s=0.05),
        synthesizer=Storyteller(),
        slots=slots,
        device_options=DeviceOptions(send_s=send_s),
    )


async def speech_bytes(here: RealNode, session_id: str, total: list[int]) -> None:
    """Add up what the brain sends for one session."""
    async with here.bus.subscribe(seam.down_subject(NODE), max_pending=100_000) as messages:
        async for packed in messages:
            message = seam.decode_down(packed.payload)
            if isinstance(message, seam.SpeechDown) and message.session_id == session_id:
                total[0] += sum(map(len, message.packets))


def test_neighbours_of_a_device_that_never_reads_hear_every_answer_without_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        server, "_SEND_BUFFER_BYTES", 1
    )  # what the kernel takes as its least: full in seconds at real pace

    async def talks(here: RealNode, number: int) -> None:
        async with here.device(number) as device:
            for _ in range(TURNS):
                turn = await device.ask(SPEECH)
                assert here.is_well(turn), turn

    async def work() -> None:
        total = [0]
        async with node(plan()) as here, deaf(here, DEAF) as writer:
            await here.until(lambda: here.brain.sessions == 1)
            (session_id,) = here.gateway._sessions
            counting = asyncio.create_task(speech_bytes(here, session_id, total))
            for packet in spoken():
                writer.write(bytes([0x82, 0xFE]) + struct.pack(">H", len(packet)) + bytes(4) + packet)
            async with asyncio.TaskGroup() as tasks:
                for number in range(NEIGHBOURS):
                    tasks.create_task(talks(here, number))
            await here.until(lambda: here.seen.ends.count("device-too-slow"), 40)
            counting.cancel()
            with suppress(asyncio.CancelledError):
                await counting
        assert here.seen.ends.count("device-too-slow") == 1
        assert here.seen.ends.count("device-gone") == NEIGHBOURS
        assert 0 < total[0] <= MAX_BYTES
        assert len(here.records("answered")) == NEIGHBOURS * TURNS

    run(work(), timeout_s=90)


def test_no_engine_is_kept_by_a_device_that_pauses_in_the_middle_of_a_long_answer() -> None:
    async def work() -> None:
        one_each = plan(slots=1, send_s=1000)
        one_each.recognizer = ScriptedRecognizer(["讲个故事", "你好"], delay_s=0.05)
        async with (
            quiet_node(one_each) as here,
            here.device(1) as (reader, wire),
            here.device(2) as (neighbour, _),
        ):
            await reader.listen()
            reader.microphone.say(SPEECH)
            assert await reader.until(lambda: reader.firmware.playback.sound.frames > 5, 30)
            wire.is_read.clear()
            await asyncio.sleep(20)
            assert here.brain.turns == 1
            assert not any(slot.busy or slot.waiting for slot in here.engines.slots)
            began_s = asyncio.get_running_loop().time()
            turn = await neighbour.ask(SPEECH)
            assert (turn.outcome, turn.gaps_ms) == ("answered", ())
            alone_s = asyncio.get_running_loop().time() - began_s
            wire.is_read.set()
            again = await neighbour.ask(SPEECH)
            assert again.outcome == "answered"
            assert asyncio.get_running_loop().time() - began_s == pytest.approx(2 * alone_s, rel=0.1)

    virtual_time.run(work())


def test_what_is_sent_ahead_of_a_device_that_pauses_is_the_window_and_no_more() -> None:
    async def work() -> None:
        async with quiet_node(plan(send_s=1000)) as here, here.device(1) as (reader, wire):
            here.plan.recognizer._texts = ["讲个故事"]
            sent_ms = [0]

            async def count() -> None:
                async with here.bus.subscribe(seam.down_subject(NODE), max_pending=100_000) as messages:
                    async for packed in messages:
                        message = seam.decode_down(packed.payload)
                        if isinstance(message, seam.SpeechDown):
                            sent_ms[0] += len(message.packets) * seam.DOWNLINK_FRAME_MS

            counting = asyncio.create_task(count())
            await reader.listen()
            reader.microphone.say(SPEECH)
            assert await reader.until(lambda: reader.firmware.playback.sound.frames > 5, 30)
            wire.is_read.clear()
            await asyncio.sleep(10)
            ahead_ms = sent_ms[0]
            await asyncio.sleep(10)
            assert ahead_ms == sent_ms[0] <= seam.SPEECH_WINDOW_MS + 2_000
            assert ahead_ms >= seam.SPEECH_WINDOW_MS - 1_000
            wire.is_read.set()
            assert await reader.until(lambda: sent_ms[0] > ahead_ms + 5_000, 30)
            counting.cancel()
            await asyncio.wait([counting])

    virtual_time.run(work())
