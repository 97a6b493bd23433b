from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coordinator.probes import serve_http
from edge.gateway.vision_tokens import VisionOffer
from edge.gateway.vision_upload import read_upload
from edge.simulator.bootstrap import Identity
from edge.simulator.camera import Camera
from models.errors import DeviceError
from tests.edge.gateway.jpegs import jpeg
from tests.real_time import run

IDENTITY = Identity(device_id="02:00:00:00:00:01")
PHOTO = jpeg(data=bytes(2000))


class Server:
    """Takes what a camera posts."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.body = b""

    async def take(self, request: Request) -> Response:
        self.headers, self.body = dict(request.headers), await request.body()
        return PlainTextResponse("看到了", self.status)

    async def shown(self, token: str = "t1") -> str:
        app = Starlette(routes=[Route("/vision", self.take, methods=["POST"])])
        async with serve_http(app, "127.0.0.1", 0, variable="EDGE_VISION_PORT") as port:
            offer = VisionOffer(f"http://127.0.0.1:{port}/vision", token)
            return await Camera(IDENTITY, PHOTO).explain(offer, "这是什么？")


def test_picture_is_posted_as_firmware_posts_it() -> None:
    server = Server()
    assert run(server.shown()) == "看到了"
    assert server.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in server.headers
    assert (server.headers["device-id"], server.headers["client-id"]) == (IDENTITY.device_id, IDENTITY.uuid)
    assert server.headers["authorization"] == "Bearer t1"
    upload = read_upload(server.headers["content-type"], server.body)
    assert (upload.question, upload.jpeg) == ("这是什么？", PHOTO)


def test_without_a_token_none_is_shown() -> None:
    server = Server()
    run(server.shown(token=""))
    assert "authorization" not in server.headers


def test_any_status_but_200_is_a_failure() -> None:
    with pytest.raises(DeviceError, match="answers 204"):
        run(Server(status=204).shown())


def test_server_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(DeviceError, match="cannot show"):
        run(Camera(IDENTITY, PHOTO).explain(VisionOffer("http://127.0.0.1:1/vision", "t"), "?"))
