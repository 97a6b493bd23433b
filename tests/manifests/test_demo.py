from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from coordinator.memory_bus import MemoryBus
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord
from coordinator.wire import encode, turn_subject
from edge.simulator.turn import Interruption, TurnResult
from manifests import demo
from manifests.demo import MAX_MISHEARD, MAX_STOP_MS, SCENES, Scene, Turn, failures, misheard
from manifests.local import Site
from manifests.processes import Children
from tests.virtual_time import run

SCENE = Scene("easy", "1", "zh", "法国的首都是哪个城市？", Tier.EDGE)
CUT = msgspec.structs.replace  # records and results are changed field by field


def decision(tier: Tier = Tier.EDGE, reason: str = "below-threshold") -> RoutingDecision:
    return RoutingDecision(turn_id="t", tier=tier, reason=reason, score=0.123, threshold=0.7)


RECORD = TurnRecord(
    turn_id="t",
    session_id="s",
    device_id="02:00:00:00:00:01",
    edge_id="e",
    outcome="answered",
    heard=SCENE.says,
    answer="巴黎。",
    model="qwen",
    decisions=(decision(),),
    marks=Marks(endpoint_wait_ms=600, transcript_ms=300, first_token_ms=500, first_audio_ms=900),
)
RESULT = TurnResult(
    mode="auto", outcome="answered", heard=SCENE.says, pcm=b"\1\0", transcript_ms=950.4, first_audio_ms=1600.0
)
STOPPED = Interruption(stop_ms=12.0, packets_before_stop=0, packets_after_stop=0)
INTERRUPTED_SCENE = Scene("cut", "1", "zh", SCENE.says, Tier.EDGE, interrupt_after_ms=1000)
INTERRUPTED = CUT(RESULT, outcome="interrupted", interruption=STOPPED)


def late(stop_ms: float | None) -> TurnResult:
    return CUT(INTERRUPTED, interruption=Interruption(stop_ms=stop_ms, packets_before_stop=0, packets_after_stop=0))


# What went as said


@pytest.mark.parametrize(
    ("scene", "result"),
    [(SCENE, RESULT), (INTERRUPTED_SCENE, INTERRUPTED), (INTERRUPTED_SCENE, late(MAX_STOP_MS))],
)
def test_a_turn_that_went_as_said_has_no_failures(scene: Scene, result: TurnResult) -> None:
    assert failures(scene, result, RECORD) == ()


@pytest.mark.parametrize(
    ("scene", "result", "record", "words"),
    [
        (SCENE, CUT(RESULT, outcome="failed"), RECORD, "the turn was failed, not answered"),
        (SCENE, CUT(RESULT, outcome="closed"), RECORD, "the turn was closed, not answered"),
        (SCENE, CUT(RESULT, pcm=b""), RECORD, "no speech came back"),
        (SCENE, CUT(RESULT, heard="完全不同的一句话"), RECORD, "it was misheard"),
        (SCENE, CUT(RESULT, heard=""), RECORD, "it was misheard"),
        (SCENE, RESULT, CUT(RECORD, decisions=(decision(Tier.CLOUD),)), "it was answered by cloud, not edge"),
        (SCENE, RESULT, CUT(RECORD, decisions=(decision(), decision(Tier.CLOUD))), "answered by cloud, not edge"),
        (SCENE, RESULT, CUT(RECORD, decisions=()), "it was answered by None, not edge"),
        (INTERRUPTED_SCENE, RESULT, RECORD, "the turn was answered, not interrupted"),
        (INTERRUPTED_SCENE, late(None), RECORD, "tts/stop took None ms"),
        (INTERRUPTED_SCENE, late(MAX_STOP_MS + 0.1), RECORD, "tts/stop took 100.1 ms"),
        (INTERRUPTED_SCENE, CUT(INTERRUPTED, interruption=None), RECORD, "tts/stop took None ms"),
    ],
)
def test_each_check_can_fail_a_turn(scene: Scene, result: TurnResult, record: TurnRecord, words: str) -> None:
    told = failures(scene, result, record)
    assert any(words in line for line in told)


def test_a_missing_record_is_told() -> None:
    assert "the edge published no record of the turn" in failures(SCENE, RESULT, None)


def test_the_scenes_show_what_the_platform_promises() -> None:
    assert {scene.tier for scene in SCENES} == set(Tier)
    assert {scene.language for scene in SCENES} == {"zh", "en"}
    assert sum(scene.interrupt_after_ms is not None for scene in SCENES) == 1
    repeated = next(scene for scene in SCENES if scene.tier is Tier.CACHE)
    assert any(scene.says == repeated.says and scene.device != repeated.device for scene in SCENES)


# What was misheard


@pytest.mark.parametrize(
    ("said", "heard", "share"),
    [
        ("", "", 0),
        ("好", "好", 0),
        ("你好，世界！", "你好世界", 0),
        ("Hello, World", "hello world.", 0),
        ("ＡＢＣ１", "abc1", 0),
        ("你好", "", 1),
        ("", "你好", 2),
        ("你好吗", "你好", 1 / 3),
        ("你好", "你不好", 1 / 2),
        ("Tokyo", "Kyoto", 4 / 5),
        ("what is it", "what was it", 2 / 8),
    ],
)
def test_misheard_is_the_share_of_letters_to_mend(said: str, heard: str, share: float) -> None:
    assert misheard(said, heard) == pytest.approx(share)


WORDS = st.text(alphabet="ab 你好，1", max_size=12)


@given(WORDS, WORDS)
def test_misheard_is_nothing_for_the_same_and_never_more_than_all_letters(said: str, heard: str) -> None:
    letters, heard_letters = len(demo._letters(said)), len(demo._letters(heard))
    edits = misheard(said, heard) * max(letters, 1)
    assert edits == pytest.approx(misheard(heard, said) * max(heard_letters, 1)), "as many edits there as back"
    assert abs(letters - heard_letters) - 1e-9 <= edits <= max(letters, heard_letters) + 1e-9
    assert (edits == 0) == (demo._letters(said) == demo._letters(heard))
    assert misheard(said, said) == 0


def test_the_tolerance_lets_through_a_slip_but_no_other_sentence() -> None:
    assert misheard("法国的首都是哪个城市", "法国的首都是那个城市") <= MAX_MISHEARD
    assert misheard("法国的首都是哪个城市", "今天天气怎么样") > MAX_MISHEARD


# Records, gauges and lines


def test_the_record_of_a_device_is_found_among_those_of_others() -> None:
    async def work() -> None:
        bus = MemoryBus()
        silent, other = CUT(RECORD, outcome="silent"), CUT(RECORD, device_id="02:00:00:00:00:02")
        async with demo._records(bus) as records:
            for record in (other, silent, RECORD):
                await bus.publish(turn_subject("e"), encode(record))
            assert await demo._record_of(records, RECORD.device_id) == RECORD
            assert await demo._record_of(records, RECORD.device_id) is None
            assert asyncio.get_running_loop().time() == pytest.approx(demo.RECORD_S)

    run(work())


def site(urls: dict[str, str]) -> Site:
    return Site(urls, "", "", "", Path(), Path(), Children(Path()))


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        (["voice_brain_turns_running 0.0\n", "up 1\n"], []),
        (["voice_brain_turns_running 1.0\nactive_devices 3.0\n", ""], ["voice_brain_turns_running 1.0"]),
        ([None, ""], ["http://a does not answer (ConnectError)"]),
    ],
)
def test_what_still_runs_is_told_after_a_while(
    texts: list[str | None], left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = dict(zip(("http://a", "http://b"), texts, strict=True))

    def serve(request: httpx.Request) -> httpx.Response:
        text = answers[f"{request.url.scheme}://{request.url.host}"]
        if text is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, text=text)

    real_client = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: real_client(transport=httpx.MockTransport(serve), **options)
    )

    async def work() -> list[str]:
        monkeypatch.setattr(demo.time, "monotonic", asyncio.get_running_loop().time)
        return await demo._left_running(site({"a metrics": "http://a", "b metrics": "http://b", "Redis": "redis://c"}))

    assert run(work()) == left


@pytest.mark.parametrize(
    ("result", "marks", "words"),
    [
        (RESULT, RECORD.marks, "transcript 950 ms, first token 1100 ms, first audio 1600 ms after the end of speech"),
        (RESULT, Marks(), "transcript 950 ms, first audio 1600 ms after"),
        (CUT(RESULT, transcript_ms=None, first_audio_ms=None), Marks(), " after the end of speech"),
    ],
)
def test_times_are_told_from_the_end_of_speech_with_the_wait_in_them(
    result: TurnResult, marks: Marks, words: str
) -> None:
    told = demo._times(result, CUT(RECORD, marks=marks))
    assert told.startswith(words)
    assert f"(wait for silence of {marks.endpoint_wait_ms:.0f} ms included)" in told


def told(turn: Turn) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    demo._print(console, turn)
    output: Any = console.file
    return output.getvalue().splitlines()


def test_a_turn_is_told_line_by_line() -> None:
    two = CUT(RECORD, decisions=(decision(Tier.CLOUD, "complex"), decision(Tier.EDGE, "cloud-unreachable")))
    lines = told(Turn(SCENE, CUT(RESULT, problems=("1 gap",)), two, Path("1.wav"), ()))
    assert lines[:6] == [
        f"  said        {SCENE.says}",
        f"  heard       {SCENE.says}",
        "  route       cloud: complex (score 0.12, threshold 0.70)",
        "  route       edge: cloud-unreachable (score 0.12, threshold 0.70)",
        "  answered by edge qwen",
        "  answer      巴黎。",
    ]
    assert lines[-2:] == ["  noticed     1 gap", "  saved       1.wav"]


@pytest.mark.parametrize(
    ("stop_ms", "words"), [(0.0, "tts/stop after 0 ms"), (12.4, "tts/stop after 12 ms"), (None, "no tts/stop came")]
)
def test_an_interruption_is_told_as_it_was(stop_ms: float | None, words: str) -> None:
    lines = told(Turn(INTERRUPTED_SCENE, late(stop_ms), None, None, ("[bold]it failed",)))
    assert f"  interrupted {words}" in lines
    assert lines[-2:] == ["  saved       nothing", "  FAILED      [bold]it failed"], (
        "no markup is read out of what was said"
    )
