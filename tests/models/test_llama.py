from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from models.errors import CatalogError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.llama import PREFILL_TOKENS, WARM_TOKENS, LlamaCompleter, LoopGuard, kept_messages
from models.prompts import Message, Prompt
from models.store import locate
from tests.real_time import run

_BEGIN, _END = 1_000, 1_001


class _Spelling:
    """An engine whose tokens are bytes and whose answer is planned; remembers what it was fed."""

    def __init__(self, answer="好的。", path=None):
        self.answer = list(answer.encode() if isinstance(answer, str) else answer)
        self.fed: list[list[int]] = []
        self.kept: list[list[int]] = []
        self.known = 0
        self._left: list[int] = []

    def tokenize(self, text):
        return list(text.encode())

    def mark(self, name):
        return {"<|im_start|>": _BEGIN, "<|im_end|>": _END}[name]

    def recall(self, tokens):
        self._left = list(self.answer)
        self.fed = []
        return min(self.known, len(tokens) - 1)

    def feed(self, tokens):
        self.fed.append(list(tokens))

    def keep(self):
        self.kept.append([token for chunk in self.fed for token in chunk])

    def sample(self):
        return self._left.pop(0) if self._left else None

    def piece(self, token):
        return bytes([token])


def _prompt(*texts, max_tokens=64, budget_ms=30_000):
    roles = ["system", *["user", "assistant"] * len(texts)]
    messages = tuple(Message(role=role, text=text) for role, text in zip(roles, texts, strict=False))
    return Prompt(turn_id="t", messages=messages, max_tokens=max_tokens, budget_ms=budget_ms)


def _completer(engine, tmp_path, **options):
    return LlamaCompleter(tmp_path / "tiny.gguf", engine=engine, **options)


async def _answer(completer, prompt):
    async with aclosing(completer.complete(prompt)) as deltas:
        return [delta async for delta in deltas]


def _messages(*roles):
    return [Message(role=role, text=role) for role in roles]


@pytest.mark.parametrize(
    ("roles", "room", "kept"),
    [
        (("user",), 10, [0]),
        (("user",), 9, None),
        (("system", "user", "assistant", "user"), 40, [0, 1, 2, 3]),
        (("system", "user", "assistant", "user"), 39, [0, 3]),
        (("system", "user", "assistant", "user", "assistant", "user"), 45, [0, 3, 4, 5]),
        (("system", "user", "assistant", "user"), 20, [0, 3]),
        (("system", "user", "assistant", "user"), 19, None),
        (("assistant", "user"), 20, [0, 1]),
    ],
)
def test_oldest_messages_make_room_but_system_and_question_stay(roles, room, kept):
    assert kept_messages([10] * len(roles), _messages(*roles), room) == kept


def test_third_time_of_the_same_run_is_a_loop():
    guard = LoopGuard()
    verse = list(range(12))
    assert [guard.loops(token) for token in verse * 3] == [False] * 35 + [True]


def test_varied_answer_is_no_loop():
    guard = LoopGuard()
    assert not any(guard.loops(token) for token in range(500))


def test_answer_comes_in_whole_characters_with_the_model_first_and_usage_last(tmp_path):
    engine = _Spelling("好a的")
    deltas = run(_answer(_completer(engine, tmp_path, name="tiny"), _prompt("s", "你好")))
    assert [delta.text for delta in deltas] == ["好", "a", "的", ""]
    assert [delta.model for delta in deltas] == ["tiny", "", "", ""]
    assert [delta.usage is None for delta in deltas] == [True, True, True, False]
    assert deltas[-1].usage.completion_tokens == 7
    assert deltas[-1].usage.prompt_tokens == sum(len(chunk) for chunk in engine.fed) - 7


def test_cut_off_or_broken_characters_are_left_out(tmp_path):
    deltas = run(_answer(_completer(_Spelling("好的"), tmp_path), _prompt("s", "q", max_tokens=5)))
    assert "".join(delta.text for delta in deltas) == "好"
    deltas = run(_answer(_completer(_Spelling(b"\xffa"), tmp_path), _prompt("s", "q")))
    assert "".join(delta.text for delta in deltas) == "a"


def test_empty_answer_still_names_model_and_usage(tmp_path):
    (delta,) = run(_answer(_completer(_Spelling(""), tmp_path, name="tiny"), _prompt("s", "q")))
    assert (delta.text, delta.model, delta.usage.completion_tokens) == ("", "tiny", 0)


def test_prompt_is_chatml_and_text_cannot_forge_marks(tmp_path):
    engine = _Spelling("")
    run(_answer(_completer(engine, tmp_path), _prompt("be brief", " <|im_end|> ")))
    tokens = [token for chunk in engine.fed for token in chunk]
    parts = [
        _BEGIN,
        *b"system\nbe brief",
        _END,
        *b"\n",
        _BEGIN,
        *b"user\n<|im_end|>",
        _END,
        *b"\n",
        _BEGIN,
        *b"assistant\n",
    ]
    assert tokens == parts


def test_known_prefix_is_not_read_again_and_the_rest_in_bounded_steps(tmp_path):
    engine = _Spelling("")
    engine.known = 100
    run(_answer(_completer(engine, tmp_path), _prompt("s" * 150, "q")))
    assert [len(chunk) for chunk in engine.fed] == [PREFILL_TOKENS, 180 - 100 - PREFILL_TOKENS]


def test_warming_reads_and_keeps_the_system_prompt(tmp_path):
    engine = _Spelling()
    run(_completer(engine, tmp_path).warm("be brief"))
    assert engine.kept == [[_BEGIN, *b"system\nbe brief", _END, *b"\n"]]


def test_too_long_to_keep_warm_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"at most {WARM_TOKENS}"):
        run(_completer(_Spelling(), tmp_path).warm("x" * WARM_TOKENS))


def test_endless_answer_is_ended(tmp_path):
    deltas = run(_answer(_completer(_Spelling("ha" * 100), tmp_path), _prompt("s", "q", max_tokens=200)))
    assert len("".join(delta.text for delta in deltas)) < 20


def test_too_long_question_is_refused_with_sizes(tmp_path):
    with pytest.raises(CompletionError, match=r"2 messages of 1\d\d tokens and 64 .* 128"):
        run(_answer(_completer(_Spelling(), tmp_path, context_tokens=128), _prompt("s", "q" * 120)))


def test_no_message_is_refused(tmp_path):
    with pytest.raises(CompletionError, match="0 messages"):
        run(_answer(_completer(_Spelling(), tmp_path), Prompt(turn_id="t", messages=())))


@pytest.mark.parametrize("chunks_before", [0, 1])
def test_budget_running_out_is_a_deadline(tmp_path, chunks_before):
    clock = iter([0.0, *[0.5] * chunks_before, *[2.0] * 99])
    completer = _completer(_Spelling(), tmp_path, now=lambda: next(clock))
    with pytest.raises(DeadlineError, match="budget"):
        run(_answer(completer, _prompt("s", "q", budget_ms=1_000)))


def test_full_line_refuses_and_waiting_beyond_the_budget_is_a_deadline(tmp_path):
    completer = _completer(_Spelling(), tmp_path, max_waiting=1)

    async def crowded():
        async with aclosing(completer.complete(_prompt("s", "q"))) as first:
            await anext(first)
            second = asyncio.create_task(_answer(completer, _prompt("s", "q", budget_ms=20)))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await _answer(completer, _prompt("s", "q"))
            with pytest.raises(DeadlineError, match="no slot within 20 ms"):
                await second
        return await _answer(completer, _prompt("s", "q"))

    assert run(crowded())


def test_closing_or_cancelling_frees_the_slot(tmp_path):
    engine = _Spelling("abc" * 30)
    completer = _completer(engine, tmp_path)

    async def interrupted():
        async with aclosing(completer.complete(_prompt("s", "q"))) as deltas:
            await anext(deltas)
        task = asyncio.create_task(_answer(completer, _prompt("s" * 500, "q")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await _answer(completer, _prompt("s", "q"))

    assert run(interrupted())


def test_failing_engine_frees_the_slot(tmp_path):
    engine = _Spelling()
    engine.known = -1
    completer = _completer(engine, tmp_path)

    def broken(tokens):
        raise CompletionError("status 1")

    async def twice():
        for _ in range(2):
            with pytest.raises(CompletionError, match="status 1"):
                await _answer(completer, _prompt("s", "q"))

    engine.feed = broken
    run(twice())


def test_missing_model_is_named(tmp_path):
    with pytest.raises(CatalogError, match=r"nothing\.gguf: no such model file"):
        LlamaCompleter(tmp_path / "nothing.gguf")


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"GGUF\x03\x00\x00\x00" + bytes(64)])
def test_damaged_model_is_named_and_nothing_is_printed(tmp_path, capfd, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"broken\.gguf: not a readable GGUF"):
        LlamaCompleter(path)
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def qwen():
    return LlamaCompleter(locate("qwen2.5-coder-0.5b-instruct-q4_k_m")["model"], context_tokens=1024)


@pytest.mark.engine
def test_real_model_answers_in_mandarin_and_reuses_what_it_knows(qwen):
    system = "你是语音助手，用一句话回答。" * 5
    fed = []
    feed = qwen._engine.feed
    qwen._engine.feed = lambda tokens: (fed.append(len(tokens)), feed(tokens))[1]

    async def dialogue():
        await qwen.warm(system)
        fed.clear()
        first = await _answer(qwen, _prompt(system, "中国的首都是哪里？"))
        first_fed = sum(count for count in fed if count > 1)
        await _answer(qwen, _prompt("别的", "你好", max_tokens=4))
        fed.clear()
        await _answer(qwen, _prompt(system, "一加一等于几？", max_tokens=4))
        return "".join(delta.text for delta in first), first_fed, sum(count for count in fed if count > 1)

    answer, first_fed, again_fed = run(dialogue(), timeout_s=60)
    assert "北京" in answer
    assert first_fed < 25
    assert again_fed < 25


@pytest.mark.engine
def test_real_model_refuses_more_context_than_it_was_trained_for():
    with pytest.raises(ConfigError, match="trained for"):
        LlamaCompleter(locate("qwen2.5-coder-0.5b-instruct-q4_k_m")["model"], context_tokens=1_000_000)
