from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import msgspec
import pytest

from benchmarks import routing_outcomes
from benchmarks.requests_zh.request import Request, load_requests
from benchmarks.routing_journal import About, Graded, Journal, Side, lines_of
from benchmarks.routing_outcomes import Model, answer_all, ask, rows_of, run_side, spread
from coordinator.routing.signals import Kind
from models.errors import CompletionError, ConfigError
from models.prompts import CompletionDelta, Prompt, Usage
from tests.benchmarks.test_routing_journal import ABOUT
from tests.virtual_time import run


class Parrot:
    """A completer that says what it is told and counts who asks at once."""

    def __init__(self, say: Callable[[str], str], *, seconds: float = 1.0, fails_after: int = 1_000_000) -> None:
        self._say = say
        self._seconds = seconds
        self._fails_after = fails_after
        self.prompts: list[Prompt] = []
        self.running = self.most = 0

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        self.prompts.append(prompt)
        if len(self.prompts) > self._fails_after:
            raise CompletionError("the model broke")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self._seconds)
            for character in self._say(prompt.question):
                yield CompletionDelta(text=character, logprobs=(-0.1 * len(self.prompts),))
            yield CompletionDelta(text="", usage=Usage(completion_tokens=7))
        finally:
            self.running -= 1


def opened(completer: Parrot) -> Model:
    @asynccontextmanager
    async def model() -> AsyncGenerator[Parrot, None]:
        yield completer

    return model


def requests(count: int) -> list[Request]:
    return [
        Request(id=f"r{n}", kind=Kind.FACT, group=f"g{n % 3}", text=f"第{n}个", gold=("甲",), grader="text")
        for n in range(count)
    ]


def test_any_beginning_of_the_requests_is_mixed() -> None:
    everything = load_requests()
    mixed = spread(everything)
    checkable = [request for request in everything if request.gold is not None]
    groups = len({request.group for request in checkable})
    assert len({request.group for request in mixed[:groups]}) == groups
    assert Counter(request.id for request in mixed) == Counter(request.id for request in checkable)
    assert len({request.kind for request in mixed[:40]}) >= 3
    assert mixed == spread(everything)


def test_a_question_is_asked_as_the_product_asks_it() -> None:
    parrot = Parrot(lambda _: "一二三四五六七八九十")
    answer = run(ask(parrot, requests(1)[0], 96))
    (prompt,) = parrot.prompts
    assert [message.role for message in prompt.messages] == ["system", "user"]
    assert "小智" in prompt.messages[0].text
    assert (prompt.question, prompt.max_tokens, prompt.language) == ("第0个", 96, "zh")
    assert answer == ("一二三四五六七八九十", 7, -0.1)


def test_doubt_is_of_the_first_tokens_only() -> None:
    class Doubting(Parrot):
        async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
            yield CompletionDelta(text="甲", logprobs=(-1.0,) * 4)
            yield CompletionDelta(text="乙", logprobs=(-2.0,) * 4 + (-50.0,) * 9)

    assert run(ask(Doubting(str), requests(1)[0], 96))[2] == -1.5


def test_an_engine_without_log_probabilities_has_no_doubt() -> None:
    class Silent(Parrot):
        async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
            yield CompletionDelta(text="甲")

    assert run(ask(Silent(str), requests(1)[0], 96)) == ("甲", 0, None)


def test_slots_are_kept_busy_and_never_overfilled() -> None:
    parrot = Parrot(lambda _: "甲")
    kept: list[Graded] = []

    async def main() -> float:
        start = asyncio.get_running_loop().time()
        await run_side(
            parrot,
            "edge",
            requests(10),
            max_tokens=9,
            slots=4,
            keep=lambda _request, graded, _answer: kept.append(graded),
        )
        return asyncio.get_running_loop().time() - start

    assert run(main()) == pytest.approx(3.0)
    assert parrot.most == 4
    assert sorted(graded.id for graded in kept) == [f"r{n}" for n in range(10)]


def journalled(tmp_path: Path, parrots: dict[Side, Parrot], *, resume: bool = False) -> tuple[Journal, Path]:
    answers = tmp_path / "answers.jsonl"
    with Journal(tmp_path / "o.part", ABOUT, resume=resume) as journal, answers.open("ab") as file:
        models: dict[Side, Model] = {side: opened(parrot) for side, parrot in parrots.items()}
        run(answer_all(journal, requests(6), ABOUT, models, slots=2, answers=file))
    return journal, answers


def test_both_sides_answer_with_their_own_limits(tmp_path: Path) -> None:
    parrots: dict[Side, Parrot] = {"edge": Parrot(lambda _: "乙"), "cloud": Parrot(lambda _: "甲")}
    journal, answers = journalled(tmp_path, parrots)
    lines = list(lines_of(requests(6), journal, ABOUT))
    assert [(line.edge, line.cloud) for line in lines] == [(0, 1)] * 6
    assert {prompt.max_tokens for prompt in parrots["edge"].prompts} == {ABOUT.edge_tokens}
    assert {prompt.max_tokens for prompt in parrots["cloud"].prompts} == {ABOUT.cloud_tokens}
    told = [msgspec.json.decode(line) for line in answers.read_bytes().splitlines()]
    assert [each["answer"] for each in told] == ["乙"] * 6 + ["甲"] * 6


def test_a_broken_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    broken: dict[Side, Parrot] = {"edge": Parrot(lambda _: "甲", fails_after=4), "cloud": Parrot(lambda _: "甲")}
    with pytest.raises(CompletionError, match="broke"):
        journalled(tmp_path, broken)
    assert broken["edge"].running == 0
    mended: dict[Side, Parrot] = {"edge": Parrot(lambda _: "甲"), "cloud": Parrot(lambda _: "甲")}
    journal, _ = journalled(tmp_path, mended, resume=True)
    assert len(mended["edge"].prompts) == 2
    assert len(list(lines_of(requests(6), journal, ABOUT))) == 6


def test_the_table_has_a_row_for_each_class_and_one_for_all(tmp_path: Path) -> None:
    parrots: dict[Side, Parrot] = {
        "edge": Parrot(lambda question: "甲" if question == "第0个" else "乙"),
        "cloud": Parrot(lambda question: "甲" if question in ("第1个", "第2个") else "乙"),
    }
    journal, _ = journalled(tmp_path, parrots)
    rows = rows_of(list(lines_of(requests(6), journal, ABOUT)))
    assert rows == [
        ("fact", 6, "16.7 %", "33.3 %", "50.0 %", "16.7 %"),
        ("all", 6, "16.7 %", "33.3 %", "50.0 %", "16.7 %"),
    ]
    assert rows_of([]) == []


def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *more: str) -> int:
    monkeypatch.setattr(sys, "argv", ["routing_outcomes", "--out", str(tmp_path / "o.jsonl"), *more])
    with pytest.raises(SystemExit) as left:
        sys.exit(routing_outcomes.main())
    return int(left.value.code or 0)


@pytest.fixture
def parrots(monkeypatch: pytest.MonkeyPatch) -> list[Parrot]:
    """Both models replaced by parrots, in the order they are opened; no weights are needed."""
    made: list[Parrot] = []

    def local_model(_name: str, *, slots: int, threads: int) -> object:
        made.append(Parrot(lambda _: "答案是八", seconds=0))
        return opened(made[-1])()

    def about_of(edge: str, cloud: str, *_: object) -> About:
        return msgspec.structs.replace(ABOUT, edge=edge, cloud=cloud)

    monkeypatch.setattr(routing_outcomes, "local_model", local_model)
    monkeypatch.setattr(routing_outcomes, "about_of", about_of)
    return made


def test_the_command_writes_outcomes_and_leaves_no_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parrots: list[Parrot]
) -> None:
    assert command_line(monkeypatch, tmp_path, "--limit", "12", "--edge", "small", "--cloud", "large") == 0
    head, *lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert msgspec.json.decode(head)["about"]["edge"] == "small"
    assert len(lines) == 12
    assert {"id", "text", "kind", "group", "edge", "cloud", "edge_logprob"} <= msgspec.json.decode(lines[0]).keys()
    assert len(parrots) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["o.jsonl"]


def test_an_interrupt_keeps_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    parrots: list[Parrot],
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    graded = count()

    def interrupted(_request: Request, _answer: str) -> bool:
        if next(graded) == 3:
            signal.raise_signal(signal.SIGINT)
        return True

    # A shell lets what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with monkeypatch.context() as patch:
        patch.setattr(routing_outcomes, "is_right", interrupted)
        assert command_line(patch, tmp_path, "--limit", "12") == 130
    assert "--resume" in capsys.readouterr().err
    assert len((tmp_path / "o.jsonl.part").read_bytes().splitlines()) >= 5
    assert command_line(monkeypatch, tmp_path, "--limit", "12") == 1
    assert command_line(monkeypatch, tmp_path, "--limit", "12", "--resume") == 0


def test_answers_that_cannot_be_kept_are_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parrots: list[Parrot]
) -> None:
    assert command_line(monkeypatch, tmp_path, "--answers", str(tmp_path / "missing" / "a")) == 1
    assert not parrots


def test_a_wrong_option_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert command_line(monkeypatch, tmp_path, "--slots", "0") == 2


def test_an_unknown_model_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(monkeypatch, tmp_path, "--edge", "no-such-model") == 1
    assert "no-such-model" in capsys.readouterr().err


def test_a_used_journal_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "o.part").write_text("{}\n")
    with pytest.raises(ConfigError):
        Journal(tmp_path / "o.part", ABOUT, resume=True)
