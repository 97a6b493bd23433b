"""A conversation through NATS to a real vLLM, and one cancel from the edge to its scheduler; status 0 only if all went as said.

python -m manifests.vllm_demo

    the edge's asker -> NATS leaf -> NATS hub -> cloud worker (python -m cloud) -> vLLM on this machine's CPU

Ears and voice are left out: what a device would have said is written below, and answers are printed. All else is the real road.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from coordinator.nats_bus import NatsBus
from coordinator.remote import RemoteCompleter
from manifests import servers
from manifests.processes import Children, answers, children, free_ports
from manifests.vllm_environment import Environment, made_environment
from manifests.vllm_server import Readings, readings, vllm
from models.engines import Completer
from models.errors import ConfigError, VoiceError
from models.prompts import Message, Prompt

EDGE = "edge-demo"
POOL = "qwen-14b"
MAX_IDLE_MS = 200.0
"""From an interruption on the edge to a vLLM that runs nothing."""
TRIES = 20
WORKER_READY_S = 60.0
_BUDGET_MS = 120_000
_BEGIN_S = 30.0
"""How long vLLM may take to show a request as running."""
_IDLE_S = 10.0
_POLL_S = 0.02
"""Telling its counters takes vLLM's server some milliseconds of the loop in which it hears of interruptions."""
_LONGEST_WAIT_S = 2.0
"""An interruption comes this long after vLLM began at the latest; an answer of 600 tokens takes much longer here."""
_LONG_TOKENS = 600
_SYSTEM = "你是一个语音助手，名字叫小智。请用简短、口语化的中文回答，不要使用列表和标题，不要重复用户的问题。"
QUESTIONS = ("法国的首都是哪个城市？", "那里最有名的塔叫什么？", "它大概有多高？", "谢谢，请用一句话总结我们聊了什么。")
LONG_QUESTION = "请从一数到一千，一个数字都不要漏掉，中间用逗号隔开。"


@dataclass(frozen=True, slots=True)
class Road:
    """The running parts the demo and the tests talk to."""

    completer: Completer
    """The edge's end of the road."""
    vllm_url: str
    client: httpx.AsyncClient

    async def readings(self) -> Readings:
        """Return what vLLM's counters say now."""
        return await readings(self.client, self.vllm_url)

    async def becomes(self, *, busy: bool, within_s: float) -> Readings | None:
        """Poll until vLLM works or rests; return the counters of then, None when it did not come to it."""
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            found = await self.readings()
            if (found.running + found.waiting > 0) == busy:
                return found
            await asyncio.sleep(_POLL_S)
        return None


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of one question."""

    question: str
    answer: str
    pieces: int
    first_token_ms: float
    total_ms: float
    reused_tokens: int
    """Tokens of the prompt that vLLM found in its prefix cache."""
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Interruption:
    """What came of one answer that was closed in the middle."""

    after_ms: float
    """Since vLLM began."""
    pieces: int
    """Pieces of the answer heard until then."""
    closed_ms: float
    """Until the edge's generator had ended."""
    idle_ms: float | None
    """Until vLLM ran nothing; None when it went on."""
    was_running: bool
    """Whether vLLM was at work when the edge closed."""


@asynccontextmanager
async def road(environment: Environment, report: servers.Report) -> AsyncGenerator[Road, None]:
    """Start NATS, vLLM and a cloud worker and join them as an edge; all is stopped when left; raise ConfigError for what does not come up."""
    with tempfile.TemporaryDirectory(prefix="xf-vllm-", ignore_cleanup_errors=True) as temporary:
        base = Path(temporary)
        async with children(base) as group:
            nats = await servers.nats(group, base, report, edge_id=EDGE)
            async with (
                vllm(group, environment, POOL, report) as url,
                NatsBus.connect(nats.leaf_url, name=EDGE) as bus,
                httpx.AsyncClient(timeout=5.0, trust_env=False) as client,
            ):
                await _worker(group, nats, url, report)
                yield Road(RemoteCompleter(bus, POOL, EDGE), url, client)


async def _worker(group: Children, nats: servers.Nats, vllm_url: str, report: servers.Report) -> None:
    (port,) = free_ports(1)
    settings = {
        "CLOUD_NATS_URL": nats.hub_url,
        "CLOUD_NATS_NKEY_SEED_FILE": str(nats.keys / "cloud.nk"),
        "CLOUD_POOL": POOL,
        "CLOUD_UPSTREAM_URL": vllm_url,
        "CLOUD_HTTP_PORT": str(port),
    }
    child = await group.start("cloud-worker", [sys.executable, "-m", "cloud"], env=settings)
    took_s = await group.wait_ready(child, lambda: answers(f"http://127.0.0.1:{port}/readyz"), WORKER_READY_S)
    report(f"cloud worker ready after {took_s:.1f} s")


async def converse(ends: Road, questions: Sequence[str]) -> AsyncGenerator[Turn, None]:
    """Ask in one dialogue and yield each turn once its answer is complete; raise CompletionError when one is not."""
    said = [Message(role="system", text=_SYSTEM)]
    for number, question in enumerate(questions, start=1):
        said.append(Message(role="user", text=question))
        before = await ends.readings()
        began_s, first_s, pieces = time.monotonic(), None, list[str]()
        async with aclosing(ends.completer.complete(_prompt(f"turn-{number}", said, 96))) as deltas:
            async for delta in deltas:
                first_s = first_s or time.monotonic()
                if delta.text:
                    pieces.append(delta.text)
        ended_s = time.monotonic()
        after = await ends.becomes(busy=False, within_s=_IDLE_S) or before
        said.append(Message(role="assistant", text="".join(pieces)))
        yield Turn(
            question,
            "".join(pieces),
            len(pieces),
            ((first_s or ended_s) - began_s) * 1000,
            (ended_s - began_s) * 1000,
            after.prefix_hits_tokens - before.prefix_hits_tokens,
            after.prefix_queries_tokens - before.prefix_queries_tokens,
        )


async def interrupt(ends: Road, after_s: float, number: int) -> Interruption:
    """Ask for a long answer, cancel it ``after_s`` after vLLM began, and return how long vLLM went on; raise CompletionError."""
    pieces = 0

    async def listen() -> None:
        nonlocal pieces
        said = [
            Message(role="user", text=LONG_QUESTION),
            Message(role="assistant", text=f"好的，从{number}开始：{number}，"),
        ]
        async with aclosing(ends.completer.complete(_prompt(f"long-{number}", said, _LONG_TOKENS))) as deltas:
            async for _ in deltas:
                pieces += 1

    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen(), name="listening")
        await ends.becomes(busy=True, within_s=_BEGIN_S)
        await asyncio.sleep(after_s)
        before = await ends.readings()
        began_s = time.monotonic()
        listening.cancel()
        await asyncio.wait([listening])
        closed_s = time.monotonic()
        after = await ends.becomes(busy=False, within_s=_IDLE_S)
        idle_ms = None if after is None else (time.monotonic() - began_s) * 1000
    return Interruption(after_s * 1000, pieces, (closed_s - began_s) * 1000, idle_ms, before.running > 0)


def failures(turns: Sequence[Turn], interruptions: Sequence[Interruption]) -> tuple[str, ...]:
    """Return in words what did not go as said; pure."""
    checks = [check for number, turn in enumerate(turns, start=1) for check in _of_turn(number, turn)]
    checks += [check for number, one in enumerate(interruptions, start=1) for check in _of_interruption(number, one)]
    return tuple(words for holds, words in checks if not holds)


def _of_turn(number: int, turn: Turn) -> list[tuple[bool, str]]:
    return [
        (bool(turn.answer.strip()), f"turn {number} has no answer"),
        (turn.pieces > 1, f"turn {number} did not stream"),
        (number == 1 or turn.reused_tokens > 0, f"turn {number} reused nothing of the dialogue before it"),
    ]


def _of_interruption(number: int, one: Interruption) -> list[tuple[bool, str]]:
    took = "10 s and more" if one.idle_ms is None else f"{one.idle_ms:.0f} ms"
    in_time = one.idle_ms is not None and one.idle_ms <= MAX_IDLE_MS
    return [
        (one.was_running, f"interruption {number} came when vLLM was not at work"),
        (in_time, f"vLLM went on for {took} after interruption {number}"),
    ]


def _prompt(turn_id: str, said: Sequence[Message], max_tokens: int) -> Prompt:
    return Prompt(turn_id=turn_id, messages=tuple(said), device_id="demo", max_tokens=max_tokens, budget_ms=_BUDGET_MS)


async def demo(console: Console, environment: Environment, points: random.Random) -> bool:
    """Hold the conversation, interrupt, and return whether all went as said; raise VoiceError when a part does not come up."""
    console.print("Starting NATS (hub and leaf), vLLM on the CPU (a minute or two) and a cloud worker.")
    async with road(environment, lambda line: console.print(f"  {line}", style="dim")) as ends:
        turns = []
        async with aclosing(converse(ends, QUESTIONS)) as conversation:
            async for turn in conversation:
                turns.append(turn)
                _print_turn(console, turn)
        _print_turns(console, turns)
        interruptions = [await interrupt(ends, points.uniform(0, _LONGEST_WAIT_S), n + 1) for n in range(TRIES)]
        _print_interruptions(console, interruptions)
    wrong = failures(turns, interruptions)
    for line in wrong:
        console.print(line, style="bold red", markup=False)
    console.print("all went as said" if not wrong else f"{len(wrong)} things did not go as said", style="bold")
    return not wrong


def _print_turn(console: Console, turn: Turn) -> None:
    console.print(f"  asked     {turn.question}", markup=False, highlight=False)
    console.print(f"  answered  {turn.answer}", markup=False, highlight=False)


def _print_turns(console: Console, turns: Sequence[Turn]) -> None:
    table = Table("turn", "first token ms", "total ms", "pieces", "prompt tokens", "of them in the prefix cache")
    for number, turn in enumerate(turns, start=1):
        times = (f"{turn.first_token_ms:.0f}", f"{turn.total_ms:.0f}")
        table.add_row(str(number), *times, str(turn.pieces), str(turn.prompt_tokens), str(turn.reused_tokens))
    console.print(table)


def _print_interruptions(console: Console, interruptions: Sequence[Interruption]) -> None:
    table = Table("closed after ms", "pieces heard", "edge closed ms", "vLLM at 0 ms")
    for one in interruptions:
        idle = "went on" if one.idle_ms is None else f"{one.idle_ms:.0f}"
        table.add_row(f"{one.after_ms:.0f}", str(one.pieces), f"{one.closed_ms:.1f}", idle)
    console.print(table)
    idle_ms = sorted(one.idle_ms for one in interruptions if one.idle_ms is not None)
    if idle_ms:
        middle, worst = idle_ms[len(idle_ms) // 2], idle_ms[-1]
        console.print(f"vllm:num_requests_running is 0 after {middle:.0f} ms (median), {worst:.0f} ms at worst.")


async def _until_told() -> bool:
    """Run the demo; SIGTERM ends it as Ctrl-C does."""
    task = asyncio.current_task()
    if task is None:
        raise ConfigError("the demo runs in a task")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await demo(Console(), made_environment(), random.Random(5))  # noqa: S311  # the same points in each run


def main() -> int:
    """Return the exit status."""
    try:
        return 0 if asyncio.run(_until_told()) else 1
    except VoiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.stderr.write("interrupted; everything is stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
