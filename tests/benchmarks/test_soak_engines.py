from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from benchmarks.soak_engines import (
    NUMBERS,
    PLAIN,
    NumberCompleter,
    PitchRecognizer,
    PitchSynthesizer,
    number_in,
    number_of,
    sung,
)
from edge.brain.opus import OpusDecoder, OpusEncoder, SpeechEncoder
from models.prompts import Message, Prompt
from models.speech import SpeechChunk, Utterance
from tests.virtual_time import run


@pytest.mark.parametrize("number", [PLAIN, *NUMBERS])
def test_a_question_keeps_its_number_through_the_microphones_opus(number: int) -> None:
    encoder, decoder = OpusEncoder(16_000, 60, complexity=0, dtx=True), OpusDecoder()
    pcm = sung(number, 300, 16_000)
    size = encoder.frame_bytes
    heard = b"".join(decoder.decode(encoder.encode(pcm[start : start + size])) for start in range(0, len(pcm), size))
    assert number_of(heard, 16_000) == number


@pytest.mark.parametrize("number", NUMBERS)
def test_every_packet_of_an_answer_tells_its_number(number: int) -> None:
    encoder, decoder = SpeechEncoder(), OpusDecoder(24_000)
    encoder.begin(16_000, 5)
    packets = list(encoder.encode(SpeechChunk(pcm=sung(number, 600, 24_000), sample_rate_hz=24_000)))
    assert [number_of(decoder.decode(packet), 24_000) for packet in packets] == [number] * 10


def test_silence_and_other_sounds_are_nobodys() -> None:
    assert number_of(bytes(960), 16_000) is None
    assert number_of(b"", 16_000) is None
    assert number_of(sung(40, 300, 16_000), 16_000) is None


def test_a_question_becomes_the_answer_with_its_number_and_no_two_are_the_same() -> None:
    async def work() -> None:
        utterance = Utterance(turn_id="abcdef0123", device_id="d", pcm=sung(3, 300, 16_000), start_ms=0, end_ms=300)
        question = (await PitchRecognizer().transcribe(utterance)).text
        assert number_in(question) == 3
        completer = NumberCompleter()
        first, second = [await answer(completer, question), await answer(completer, question)]
        assert number_in(first) == number_in(second) == 3
        assert first != second

    run(work())


def test_a_question_behind_an_unheard_one_is_the_one_that_is_answered() -> None:
    async def work() -> None:
        assert number_in(await answer(NumberCompleter(), "3号的问题\n5号的问题")) == 5

    run(work())


def test_silence_is_no_question() -> None:
    async def work() -> None:
        utterance = Utterance(turn_id="a", device_id="d", pcm=bytes(9600), start_ms=0, end_ms=300)
        assert (await PitchRecognizer().transcribe(utterance)).text == ""

    run(work())


def test_the_voice_sings_what_the_sentence_names() -> None:
    async def work() -> None:
        for text, number, length_ms in (("给4号的回答。", 4, 600), ("给0号的回答。", PLAIN, 180)):
            async with aclosing(PitchSynthesizer().speak(text)) as chunks:
                pcm = b"".join([chunk.pcm async for chunk in chunks])
            assert number_of(pcm, 24_000) == number
            assert len(pcm) == 48 * length_ms

    run(work())


async def answer(completer: NumberCompleter, question: str) -> str:
    prompt = Prompt(turn_id="t", messages=(Message(role="user", text=question),))
    await asyncio.sleep(0)
    async with aclosing(completer.complete(prompt)) as deltas:
        return "".join([delta.text async for delta in deltas])
