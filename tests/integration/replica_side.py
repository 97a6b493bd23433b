"""A replica as a process of its own, to be killed and frozen: ``replica_side.py PORT`` answers like vLLM with 8 tokens."""

from __future__ import annotations

import asyncio
import json
import sys

PIECE_S = 0.02
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Busy:
    """How many answers are under way; also what /metrics says."""

    def __init__(self) -> None:
        self.running = 0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, busy: Busy) -> None:
    try:
        while True:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            sizes = [line.split(":")[1] for line in lines if line.lower().startswith("content-length:")]
            await reader.readexactly(int(sizes[0]) if sizes else 0)
            if first.startswith("POST"):
                await answer(reader, writer, busy)
            else:
                page = b"vllm:num_requests_running %d\nvllm:num_requests_waiting 0\n" % busy.running
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page))
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, busy: Busy) -> None:
    busy.running += 1
    try:
        writer.write(HEAD)
        for _ in range(8):
            await asyncio.sleep(PIECE_S)
            if reader.at_eof():
                raise ConnectionError
            send(writer, {"choices": [{"index": 0, "delta": {"content": "好"}, "finish_reason": None}]})
            await writer.drain()
        send(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
    finally:
        busy.running -= 1


def send(writer: asyncio.StreamWriter, event: object) -> None:
    chunk(writer, b"data: %b\n\n" % json.dumps(event).encode())


def chunk(writer: asyncio.StreamWriter, said: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(said), said))


async def main(port: int) -> None:
    busy = Busy()
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, busy), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
