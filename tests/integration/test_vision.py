"""A simulated device takes a photo: gateway's greeting, camera, the door for pictures, hierarchy, road in memory, a pool that sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from cloud.worker import PoolWorker
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.hierarchy import Hierarchy
from coordinator.memory_bus import MemoryBus
from coordinator.probes import serve_http
from coordinator.remote import RemoteCompleter
from coordinator.routing.policy import Policy, PoolTerms
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision
from edge.gateway.server import Gateway
from edge.gateway.session import SessionOptions
from edge.gateway.vision import Vision
from edge.gateway.vision_tokens import VisionOffer, VisionOffers, VisionTokens
from edge.simulator.bootstrap import Identity
from edge.simulator.camera import Camera
from edge.simulator.client import connect
from edge.simulator.device import Device
from models.errors import DeviceError
from models.scripted import ScriptedCompleter
from models.sightless import Sightless
from tests.edge.gateway.jpegs import jpeg
from tests.real_time import run

WITHIN_S = 10.0
QUESTION = "照片里有什么？"
PHOTO = jpeg(640, 480, data=bytes(range(256)) * 300)
"""77 kB, as a camera's of that size, with bytes of every kind in it."""
POLICY = Policy(
    router="complexity",
    pools=(PoolTerms(name="qwen-14b"), PoolTerms(name="qwen-vl", vision=True)),
)


@dataclass
class Scene:
    """A node whose gateway and door for pictures devices can reach."""

    url: str
    edge: ScriptedCompleter
    worker: PoolWorker | None
    decisions: list[RoutingDecision] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    def device(self, number: int = 1, photo: bytes = PHOTO) -> Any:
        return connect(url=self.url, identity=identity(number), photo=photo)


def identity(number: int = 1) -> Identity:
    return Identity(device_id=f"02:00:00:00:00:{number:02x}")


class Everybody:
    def check(self, device_id: str, client_id: str, token: str) -> None:
        pass


@asynccontextmanager
async def scene(eyes: ScriptedCompleter | None, *, private: str = "") -> AsyncGenerator[Scene, None]:
    """Run everything but a brain; ``eyes`` None leaves the pool without a worker."""
    bus, edge = MemoryBus(), ScriptedCompleter()
    here = Scene("", edge, None if eyes is None else PoolWorker(bus, "qwen-vl", eyes, worker_id="w1"))
    hierarchy = Hierarchy(
        Sightless(edge),
        {"qwen-vl": RemoteCompleter(bus, "qwen-vl", "n1"), "qwen-14b": RemoteCompleter(bus, "qwen-14b", "n1")},
        AnswerCache(Ladder(MemoryTier())),
        Router(POLICY, None),
        observe=here.decisions.append,
    )
    tokens = VisionTokens("a secret of this process")
    vision = Vision(hierarchy, tokens, is_private=lambda device: device == private, observe=here.results.append)
    async with AsyncExitStack() as stack:
        if here.worker:
            stack.push_async_callback(ended, asyncio.create_task(here.worker.run()))
            await here.worker.ready.wait()
        app = Starlette(routes=vision.routes)
        port = await stack.enter_async_context(serve_http(app, "127.0.0.1", 0, variable="EDGE_VISION_PORT"))
        offers = VisionOffers(f"http://127.0.0.1:{port}/xiaozhi/vision/", tokens)
        gateway = await stack.enter_async_context(
            Gateway(
                bus,
                node_id="n1",
                authenticator=Everybody(),
                host="127.0.0.1",
                port=0,
                options=SessionOptions(offer=offers),
            )
        )
        here.url = "ws://{}:{}/xiaozhi/v1/".format(*gateway.address)
        yield here
        assert vision.uploads == 0
        assert eyes is None or eyes.calls.running == 0


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def offered(device: Device) -> VisionOffer:
    """Return what the gateway's greeting told the device."""
    assert await device.until(lambda: device.firmware.vision is not None, WITHIN_S)
    assert device.firmware.vision is not None
    return device.firmware.vision


async def take_photo(here: Scene, number: int = 1, photo: bytes = PHOTO) -> dict[str, Any]:
    """Have a device take a photo and return what its tool would say."""
    async with here.device(number, photo) as device:
        said = await Camera(identity(number), photo).explain(await offered(device), QUESTION)
        answer: dict[str, Any] = msgspec.json.decode(said)
        return answer


def test_photo_is_answered_by_the_pool_that_sees() -> None:
    eyes = ScriptedCompleter(lambda _: "桌上有一只橘猫。它在睡觉。")

    async def work() -> Scene:
        async with scene(eyes) as here:
            assert await take_photo(here) == {"success": True, "result": "桌上有一只橘猫。它在睡觉。"}
            assert await take_photo(here) == {"success": True, "result": "桌上有一只橘猫。它在睡觉。"}
            return here

    here = run(work())
    assert [(d.tier, d.pool, d.reason) for d in here.decisions] == [("cloud", "qwen-vl", "picture")] * 2
    assert [prompt.images[0].data for prompt in eyes.prompts] == [PHOTO] * 2
    assert not here.edge.prompts
    assert here.results == ["answered"] * 2


def test_photo_is_never_answered_by_a_model_that_cannot_see() -> None:
    async def work() -> Scene:
        async with scene(None) as here:
            answer = await take_photo(here)
            assert answer["success"] is False
            return here

    here = run(work())
    assert not here.edge.prompts
    assert len(here.results) == 1


def test_photo_of_a_private_device_stays_here() -> None:
    eyes = ScriptedCompleter(lambda _: "猫")

    async def work() -> dict[str, Any]:
        async with scene(eyes, private=identity().device_id) as here:
            return await take_photo(here)

    assert run(work())["success"] is False
    assert not eyes.prompts


def test_photos_of_many_devices_are_told_apart() -> None:
    async def work() -> list[dict[str, Any]]:
        eyes = ScriptedCompleter(lambda prompt: f"{len(prompt.images[0].data)}字节。", first_token_s=0.05)
        async with scene(eyes) as here:
            photos = [jpeg(data=bytes(1000 * number)) for number in range(1, 7)]
            return await asyncio.gather(*(take_photo(here, n, photo) for n, photo in enumerate(photos, 1)))

    sizes = [len(jpeg(data=bytes(1000 * number))) for number in range(1, 7)]
    assert [answer["result"] for answer in run(work())] == [f"{size}字节。" for size in sizes]


def test_token_of_one_device_is_no_other_ones() -> None:
    async def work() -> None:
        async with scene(ScriptedCompleter(lambda _: "猫")) as here, here.device(1) as device:
            offer = await offered(device)
            with pytest.raises(DeviceError, match="401"):
                await Camera(identity(2), PHOTO).explain(offer, QUESTION)
            with pytest.raises(DeviceError, match="401"):
                await Camera(identity(1), PHOTO).explain(VisionOffer(offer.url, ""), QUESTION)

    run(work())


def test_device_that_hangs_up_stops_the_model() -> None:
    eyes = ScriptedCompleter(lambda _: "猫", first_token_s=60.0)

    async def work() -> list[str]:
        async with scene(eyes) as here, here.device() as device:
            showing = asyncio.create_task(Camera(identity(), PHOTO).explain(await offered(device), QUESTION))
            await until(lambda: eyes.calls.running == 1)
            showing.cancel()
            await asyncio.wait([showing])
            await until(lambda: eyes.calls.running == 0)
            await until(lambda: bool(here.results))
            return here.results

    assert run(work()) == ["gone"]


async def until(reached: Any) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not reached():  # noqa: ASYNC110 - other tasks tell nobody
            await asyncio.sleep(0.005)


def test_tool_call_reaches_the_camera_and_its_answer_the_gateway() -> None:
    async def work() -> tuple[list[str], Any]:
        async with scene(ScriptedCompleter(lambda _: "一只猫。")) as here, here.device() as device:
            await offered(device)
            call = {"name": "self.camera.take_photo", "arguments": {"question": QUESTION}}
            request = {"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": call}
            device.firmware.on_text(msgspec.json.encode({"type": "mcp", "payload": request}).decode(), device.now_ms)
            sent: list[Any] = []
            say = device._socket.send

            async def heard(message: str | bytes) -> None:
                sent.append(msgspec.json.decode(message))
                await say(message)

            device._socket.send = heard  # type: ignore[method-assign]  # what it sends is what is looked at
            await device._settle()
            await until(lambda: any(one["payload"]["id"] == 77 for one in sent))
            return here.results, sent[-1]

    results, sent = run(work())
    assert results == ["answered"]
    (content,) = sent["payload"]["result"]["content"]
    assert sent["payload"]["id"] == 77
    assert msgspec.json.decode(content["text"]) == {"success": True, "result": "一只猫。"}
