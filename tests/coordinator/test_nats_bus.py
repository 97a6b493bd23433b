from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import structlog.testing

from coordinator.nats_bus import LONGEST_RETURN_S, MAX_TOLD, RETURN_S, NatsBus, _Link, _Return
from models.errors import ConfigError
from tests import real_time
from tests.virtual_time import run


@pytest.mark.parametrize("connect_s", [0.05, 0.5])
def test_a_server_that_is_away_is_named_and_nothing_is_left(unused_tcp_port: int, connect_s: float) -> None:
    heard: list[bool] = []

    async def scenario() -> None:
        url = f"nats://somebody:secret@127.0.0.1:{unused_tcp_port}"
        with pytest.raises(ConfigError, match=rf"nats://\*\*\*@127.0.0.1:{unused_tcp_port}: .*nats-server") as caught:
            async with NatsBus.connect(url, name="x", connect_s=connect_s, on_state=heard.append):
                pass
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)

    real_time.run(scenario())
    assert heard == []


def test_a_process_that_is_stopped_while_it_connects_ends_at_once(unused_tcp_port: int) -> None:
    async def connecting() -> None:
        async with NatsBus.connect(f"nats://127.0.0.1:{unused_tcp_port}", name="x", connect_s=60):
            pass

    async def scenario() -> None:
        for turns in range(30):
            task = asyncio.create_task(connecting())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.cancelled(), f"after {turns} turns of the loop"

    real_time.run(scenario())


def test_something_else_on_the_port_is_a_config_error() -> None:
    async def scenario() -> None:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConfigError, match="INFO"):
                async with NatsBus.connect(f"nats://127.0.0.1:{port}", name="x", connect_s=1.5):
                    pass

    real_time.run(scenario())


@pytest.mark.parametrize("url", ["", "nats://", "nats://h:notaport", "nats://h:99999999"])
def test_an_address_that_is_none_is_a_config_error(url: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="nats://host:port"):
            async with NatsBus.connect(url, name="x", connect_s=5):
                pass

    real_time.run(scenario())


@pytest.mark.parametrize("seed", ["nonsense", "SUAAAA", "S" * 58, "十" * 58, "SU\nAA"])
def test_a_seed_that_is_none_is_refused_without_being_repeated(seed: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="NKey seed") as caught:
            async with NatsBus.connect("nats://127.0.0.1:1", name="x", nkey_seed=seed):
                pass
        assert seed not in str(caught.value)

    real_time.run(scenario())


# Coming back


def test_the_first_try_comes_soon_and_later_ones_at_random_moments_of_ever_longer_pauses() -> None:
    closed: list[int] = []
    client = SimpleNamespace(_transport=None)
    coming_back = _Return(client)
    pauses: list[list[float]] = [[] for _ in range(8)]
    for _ in range(300):
        coming_back.begin()
        for number, tries in enumerate(pauses):
            client._transport = SimpleNamespace(close=lambda number=number: closed.append(number))
            server, pause_s = coming_back(["first", "second"], {})
            assert server == "first"
            tries.append(pause_s)
    assert closed == list(range(8)) * 300, "the library forgets the socket of a try that failed"
    longest = [RETURN_S * 2**number for number in range(8)]
    for tries, most_s in zip(pauses, longest, strict=True):
        bound_s = min(most_s, LONGEST_RETURN_S)
        assert 0.9 * bound_s < max(tries) <= bound_s
        assert min(tries) < 0.1 * bound_s, "the whole of the pause is used"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ('nats: Permissions Violation for Publish to "voice.turn.x.y"', [("publish", "voice.turn.x.y")]),
        ('nats: permissions violation for subscription to "a.>" using queue "q"', [("subscription", "a.>")]),
        ("nats: something else", []),
    ],
)
def test_what_a_key_may_not_do_is_told_once(reason: str, told: list[tuple[str, str]]) -> None:
    async def scenario() -> None:
        link = _Link("edge", lambda _state: None, lambda: None)
        await link.up()
        for _ in range(3):
            await link.failed(OSError(reason))

    with structlog.testing.capture_logs() as logs:
        run(scenario())
    forbidden = [(line["what"], line["subject"]) for line in logs if line["event"] == "bus_forbidden"]
    assert forbidden == told


def test_no_more_is_told_of_forbidden_subjects_than_anybody_reads() -> None:
    async def scenario() -> None:
        link = _Link("edge", lambda _state: None, lambda: None)
        await link.up()
        for number in range(3 * MAX_TOLD):
            await link.failed(OSError(f'Permissions Violation for Publish to "s.{number}"'))

    with structlog.testing.capture_logs() as logs:
        run(scenario())
    assert sum(line["event"] == "bus_forbidden" for line in logs) == MAX_TOLD
