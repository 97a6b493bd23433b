from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from edge.gateway.vision import MAX_BODY_BYTES, MAX_PICTURE_BYTES, Vision, VisionLimits
from edge.gateway.vision_tokens import VisionTokens
from models.engines import Completer
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Prompt
from models.scripted import ScriptedCompleter
from tests.edge.gateway.jpegs import jpeg
from tests.virtual_time import run

DEVICE, CLIENT = "aa:bb:cc:dd:ee:ff", "c1"
TOKENS = VisionTokens("a secret of the fleet", now=lambda: 1e9)
HEADERS = {
    "Device-Id": DEVICE,
    "Client-Id": CLIENT,
    "Authorization": f"Bearer {TOKENS.mint(DEVICE, CLIENT, 's1')}",
    "Content-Type": "multipart/form-data; boundary=----ESP32_CAMERA_BOUNDARY",
}
PATH = "/xiaozhi/vision/"
QUESTION = "这只猫叫什么名字？"


def scripted(text: str = "一只橘猫。", **plan: Any) -> ScriptedCompleter:
    return ScriptedCompleter(lambda _: text, **plan)


def form(question: str = QUESTION, picture: bytes | None = None) -> bytes:
    edge = b"------ESP32_CAMERA_BOUNDARY\r\nContent-Disposition: form-data; name="
    file = edge + b'"file"; filename="camera.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    shown = jpeg() if picture is None else picture
    return (
        edge
        + b'"question"\r\n\r\n'
        + question.encode()
        + b"\r\n"
        + file
        + shown
        + b"\r\n------ESP32_CAMERA_BOUNDARY--\r\n"
    )


class Door:
    def __init__(self, completer: Completer, **options: Any) -> None:
        self.results: list[str] = []
        clock = asyncio.get_running_loop().time
        self.vision = Vision(completer, TOKENS, observe=self.results.append, now=clock, **options)
        self.app = Starlette(routes=self.vision.routes)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://edge")

    async def show(self, content: Any = None, **headers: str) -> httpx.Response:
        content = form() if content is None else content
        return await self.http.post(PATH, content=content, headers=HEADERS | headers)


def shown(completer: Completer, content: Any = None, **options: Any) -> tuple[httpx.Response, list[str]]:
    async def work() -> tuple[httpx.Response, list[str]]:
        door = Door(completer, **options)
        answer = await door.show(content)
        assert door.vision.uploads == 0
        return answer, door.results

    return run(work())


def test_picture_is_answered_in_the_firmwares_json() -> None:
    completer = scripted()
    answer, results = shown(completer)
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "result": "一只橘猫。"}
    assert answer.headers["content-length"] == str(len(answer.content))
    assert results == ["answered"]
    prompt = completer.prompts[0]
    assert prompt.images[0].data == jpeg()
    assert (prompt.question, prompt.device_id, prompt.language, prompt.is_private) == (QUESTION, DEVICE, "zh", False)
    assert prompt.messages[0].role == "system"


def test_english_question_gets_an_english_persona() -> None:
    completer = scripted()
    shown(completer, form("What is this?"))
    assert completer.prompts[0].language == "en"
    assert completer.prompts[0].messages[0].text.isascii()


def test_picture_in_small_pieces_is_answered() -> None:
    async def work() -> httpx.Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            for byte in form():
                yield bytes([byte])

        return await Door(scripted()).show(pieces())

    assert run(work()).json()["success"] is True


def test_picture_of_a_private_device_is_not_looked_at() -> None:
    completer = scripted()
    answer, results = shown(completer, is_private=lambda device: device == DEVICE)
    assert answer.status_code == 200
    assert answer.json()["success"] is False
    assert "隐私" in answer.json()["message"]
    assert (results, list(completer.prompts)) == (["private"], [])


@pytest.mark.parametrize("error", [CompletionError, OverloadedError, DeadlineError, CloudUnreachableError])
@pytest.mark.parametrize("at_token", [0, 2])
def test_picture_nobody_answers_is_turned_down_politely(error: type[CompletionError], at_token: int) -> None:
    answer, results = shown(scripted(fail_at_token=at_token, error=error))
    assert answer.status_code == 200
    assert answer.json().keys() == {"success", "message"}
    assert answer.json()["success"] is False
    assert "planned" not in answer.text
    assert results == [error.code]


def test_empty_answer_is_turned_down_politely() -> None:
    answer, results = shown(scripted("  "))
    assert (answer.json()["success"], results) == (False, ["llm-failed"])


def test_model_that_hangs_is_given_up_before_the_device_does() -> None:
    async def work() -> tuple[float, dict[str, Any], int]:
        completer = scripted(first_token_s=1e6)
        answer = await Door(completer).show()
        return asyncio.get_running_loop().time(), answer.json(), completer.calls.running

    at_s, said, running = run(work())
    assert at_s == VisionLimits().answer_s < 30
    assert (said["success"], running) == (False, 0)


def test_picture_the_road_cannot_carry_is_turned_down_politely() -> None:
    answer, results = shown(scripted(), form(picture=jpeg(data=bytes(MAX_PICTURE_BYTES))))
    assert (answer.status_code, answer.json()["success"], results) == (200, False, ["too-large"])


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"hello", 400),
        (form(""), 400),
        (form("x" * 1001), 400),
        (form(picture=b"GIF89a"), 400),
        (form(picture=jpeg()[:-2]), 400),
        (form(picture=jpeg(9000, 9000)), 400),
        (form()[:-4], 400),
        (bytes(MAX_BODY_BYTES + 1), 413),
    ],
)
def test_broken_upload_is_refused(content: bytes, status: int) -> None:
    completer = scripted()
    answer, results = shown(completer, content)
    assert (answer.status_code, answer.json()["success"], results) == (status, False, [str(status)])
    assert not completer.prompts


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Device-Id": "aa:bb:cc:dd:ee:00"}, 401),
        ({"Client-Id": "other"}, 401),
        ({"Device-Id": ""}, 400),
        ({"Device-Id": "a b"}, 400),
        ({"Content-Type": "image/jpeg"}, 400),
    ],
)
def test_stranger_is_refused(headers: dict[str, str], status: int) -> None:
    async def work() -> int:
        return (await Door(scripted()).show(**headers)).status_code

    assert run(work()) == status


def test_slow_upload_is_not_waited_for() -> None:
    async def work() -> tuple[float, int, int]:
        async def drip() -> AsyncGenerator[bytes, None]:
            while True:
                yield b"-"
                await asyncio.sleep(2)

        door = Door(scripted())
        answer = await door.show(drip())
        return asyncio.get_running_loop().time(), answer.status_code, door.vision.uploads

    assert run(work()) == (VisionLimits().upload_s, 408, 0)


def test_uploads_are_bounded_and_one_of_each_device() -> None:
    async def work() -> tuple[list[int], list[int]]:
        door = Door(scripted(first_token_s=1.0), limits=VisionLimits(uploads=2))
        ids = [f"aa:bb:cc:dd:ee:0{number}" for number in range(3)]
        tokens = [TOKENS.mint(device, CLIENT, "s1") for device in ids]

        async def show(number: int) -> int:
            headers = {"Device-Id": ids[number], "Authorization": f"Bearer {tokens[number]}"}
            return (await door.show(**headers)).status_code

        crowd = await asyncio.gather(*(show(number) for number in range(3)))
        twice = await asyncio.gather(show(0), show(0))
        assert await show(2) == 200
        return list(crowd), list(twice)

    assert run(work()) == ([200, 200, 503], [200, 503])


def test_device_that_hangs_up_stops_the_model_at_once() -> None:
    async def work() -> tuple[int, list[str], float]:
        completer = scripted(first_token_s=10.0)
        door = Door(completer)
        gone, body = asyncio.Event(), [form()]

        async def receive() -> dict[str, Any]:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(_message: Any) -> None:
            pass

        raw = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": raw, "query_string": b""}
        asyncio.get_running_loop().call_later(3.0, gone.set)
        await door.app(scope, receive, send)  # type: ignore[arg-type]  # a scope by hand
        return completer.calls.running, door.results, asyncio.get_running_loop().time()

    assert run(work()) == (0, ["gone"], 3.0)


def test_nothing_that_was_shown_asked_or_answered_is_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        shown(scripted())
    assert [log["event"] for log in logs] == ["photo-answered"]
    assert (logs[0]["size_bytes"], logs[0]["width"], logs[0]["code"]) == (len(jpeg()), 320, "answered")
    assert not any(word in str(logs) for word in ("猫", "JFIF", "橘"))


class Endless:
    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        for _ in range(10_000):
            yield CompletionDelta(text="喵喵喵喵")
            await asyncio.sleep(0)


def test_endless_answer_is_cut_to_what_a_device_takes() -> None:
    answer, _ = shown(Endless())
    assert len(answer.json()["result"]) == 4_000


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(form())
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(body) - 1))
        body[place : place + draw(st.integers(0, 9))] = draw(st.binary(max_size=5))
    return bytes(body)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=damaged() | st.binary(max_size=200))
def test_no_upload_is_a_servers_error(content: bytes) -> None:
    answer, _ = shown(scripted(), content)
    assert answer.status_code in {200, 400}
    assert answer.json().keys() in ({"success", "result"}, {"success", "message"})
