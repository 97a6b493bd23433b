from __future__ import annotations

import asyncio
import random
import threading
from contextlib import aclosing

import msgspec
import pytest

from models.errors import CatalogError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.llama import WARM_TOKENS, LlamaCompleter, LoopGuard, kept_messages
from models.llama_jobs import Outcome
from models.prompts import Message, Prompt
from models.store import locate
from tests.real_time import run

_BEGIN, _END = 1_000, 1_001


class _Spelling:
    """An engine whose tokens are bytes and whose answers are planned; remembers what it was fed."""

    def __init__(self, answer="好的。"):
        self.answer = list(answer.encode() if isinstance(answer, str) else answer)
        self.fed: list[list[int]] = []
        self.samplers: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.outcome = Outcome.DONE

    def tokenize(self, text):
        return list(text.encode())

    def mark(self, name):
        return {"<|im_start|>": _BEGIN, "<|im_end|>": _END}[name]

    def piece(self, token):
        return bytes([token])

    def sampler(self, seed):
        self.samplers.append(seed)
        return iter(self.answer)

    def decode(self, feeds):
        self.gate.wait()
        self.fed += [list(feed.tokens) for feed in feeds]
        return self.outcome

    def sample(self, feed, sampler):
        return next(sampler, None), -0.25

    def forget(self, sequence, start):
        return True

    def share(self, source, target, count):
        pass

    def stop(self):
        pass

    def resume(self):
        pass


class _Rambling(_Spelling):
    """Says something else with every token and comes to no end."""

    def sampler(self, seed):
        dice = random.Random(seed)
        return iter(lambda: dice.randrange(97, 123), None)


def _prompt(*texts, max_tokens=64, budget_ms=30_000, device_id=""):
    roles = ["system", *["user", "assistant"] * len(texts)]
    messages = tuple(Message(role=role, text=text) for role, text in zip(roles, texts, strict=False))
    return Prompt(turn_id="t", messages=messages, max_tokens=max_tokens, budget_ms=budget_ms, device_id=device_id)


def _completer(engine, tmp_path, **options):
    return LlamaCompleter(tmp_path / "tiny.gguf", engine=engine, **options)


async def _answer(completer, prompt):
    async with aclosing(completer.complete(prompt)) as deltas:
        return [delta async for delta in deltas]


async def _until(holds):
    """Return once ``holds()``; another thread is on its way there."""
    for _ in range(20_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never came true")


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


def test_an_answer_that_was_begun_is_left_open_to_go_on(tmp_path):
    engine = _Spelling("")
    prompt = _prompt("why", "because")
    run(_answer(_completer(engine, tmp_path), prompt))
    tokens = bytes(token if token < 256 else ord("|") for chunk in engine.fed for token in chunk)
    assert tokens.endswith(b"|user\nbecause|\n|assistant\n"), "an even number of texts ends with the user's"

    engine = _Spelling("")
    begun = msgspec.structs.replace(prompt, messages=(*prompt.messages, Message(role="assistant", text="Since it")))
    run(_answer(_completer(engine, tmp_path), begun))
    continued = bytes(token if token < 256 else ord("|") for chunk in engine.fed for token in chunk)
    assert continued == tokens + b"Since it"


def test_warmed_system_prompt_is_not_read_again(tmp_path):
    engine = _Spelling("")
    completer = _completer(engine, tmp_path)

    async def warmed():
        await completer.warm("be brief")
        assert [token for chunk in engine.fed for token in chunk] == [_BEGIN, *b"system\nbe brief", _END, *b"\n"]
        engine.fed.clear()
        await _answer(completer, _prompt("be brief", "q"))

    run(warmed())
    assert engine.fed == [[_BEGIN, *b"user\nq", _END, *b"\n", _BEGIN, *b"assistant\n"]]
    assert completer.counts.reused_tokens == len("be brief") + 10


def test_dice_are_the_same_for_the_same_prompt_only(tmp_path):
    engine = _Spelling("")
    completer = _completer(engine, tmp_path)
    for question in ("a", "b", "a"):
        run(_answer(completer, _prompt("s", question)))
    first, other, again = engine.samplers
    assert first == again != other


def test_log_probabilities_come_with_the_text_they_stand_behind(tmp_path):
    deltas = run(_answer(_completer(_Spelling("好a"), tmp_path), _prompt("s", "q", max_tokens=5)))
    assert [(delta.text, delta.logprobs) for delta in deltas] == [("好", (-0.25,) * 3), ("a", (-0.25,)), ("", ())]


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


def test_cache_smaller_than_a_dialogue_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot hold one dialogue of 4096"):
        _completer(_Spelling(), tmp_path, cache_tokens=4095)


@pytest.mark.parametrize("at_once", [True, False])
def test_budget_running_out_is_a_deadline(tmp_path, at_once):
    engine = _Spelling("ab" * 30)
    clock = [0.0]
    completer = _completer(engine, tmp_path, now=lambda: clock[0])

    async def slow():
        async with aclosing(completer.complete(_prompt("s", "q", budget_ms=1_000, max_tokens=1_000))) as deltas:
            if not at_once:
                await anext(deltas)
            clock[0] = 2.0
            async for _ in deltas:
                pass

    if at_once:
        ticks = iter([0.0, *[2.0] * 1_000])
        completer._now = lambda: next(ticks)
    else:
        engine.answer = [97, 98, 99, *range(256)] * 1_000
    with pytest.raises(DeadlineError, match="budget ran out"):
        run(slow())


def test_full_line_refuses_and_waiting_beyond_the_budget_is_a_deadline(tmp_path):
    engine = _Spelling("abc" * 9)
    waits = []
    clock = [0.0]
    completer = _completer(engine, tmp_path, slots=1, max_waiting=1, observe_wait=waits.append, now=lambda: clock[0])

    async def crowded():
        engine.gate.clear()
        first = asyncio.create_task(_answer(completer, _prompt("s", "q")))
        await _until(lambda: completer._thread._work.open == 1)
        second = asyncio.create_task(_answer(completer, _prompt("s", "q", budget_ms=20)))
        await _until(lambda: completer.waiting == 1)
        with pytest.raises(OverloadedError, match="1 calls already wait"):
            await _answer(completer, _prompt("s", "q"))
        clock[0] = 1.0
        engine.gate.set()
        with pytest.raises(DeadlineError, match="no slot within the budget"):
            await second
        assert await first
        return await _answer(completer, _prompt("s", "q"))

    assert run(crowded())
    assert waits == [0.0, 0.0]


def test_closing_or_cancelling_frees_the_slot(tmp_path):
    no_end = 10**9
    completer = _completer(
        _Rambling(), tmp_path, slots=1, max_waiting=0, context_tokens=2 * no_end, cache_tokens=2 * no_end
    )

    async def interrupted():
        async with aclosing(completer.complete(_prompt("s", "q", max_tokens=no_end))) as deltas:
            await anext(deltas)
        for turns_of_the_loop in range(12):
            task = asyncio.create_task(_answer(completer, _prompt("s" * 500, "q", max_tokens=no_end)))
            for _ in range(turns_of_the_loop):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert completer._thread._work.open == 0
        return await _answer(completer, _prompt("s", "q"))

    assert run(interrupted())


def test_failing_engine_frees_the_slot(tmp_path):
    engine = _Spelling()
    completer = _completer(engine, tmp_path, slots=1, max_waiting=0)

    async def twice():
        for _ in range(2):
            with pytest.raises(CompletionError, match="the model failed"):
                await _answer(completer, _prompt("s", "q"))

    engine.outcome = Outcome.BROKEN
    run(twice())


def test_closed_completer_refuses(tmp_path):
    completer = _completer(_Spelling(), tmp_path)
    completer.close()
    with pytest.raises(OverloadedError):
        run(_answer(completer, _prompt("s", "q")))


def test_missing_model_is_named(tmp_path):
    with pytest.raises(CatalogError, match=r"nothing\.gguf: no such model file"):
        LlamaCompleter(tmp_path / "nothing.gguf")


@pytest.fixture(scope="module")
def qwen():
    completer = LlamaCompleter(
        locate("qwen2.5-coder-0.5b-instruct-q4_k_m")["model"],
        slots=4,
        context_tokens=1024,
        cache_tokens=2048,
        logprobs=True,
    )
    yield completer
    completer.close()


_SYSTEM = "你是语音助手，用一句话回答。" * 5
_QUESTIONS = {"中国的首都是哪里？": "北京", "法国的首都是哪里？": "巴黎", "日本的首都是哪里？": "东京"}


def _text(deltas):
    return "".join(delta.text for delta in deltas)


@pytest.mark.engine
def test_real_model_answers_several_at_once_each_their_own(qwen):
    async def dialogues():
        await qwen.warm(_SYSTEM)
        read = qwen.counts.read_tokens
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_answer(qwen, _prompt(_SYSTEM, question))) for question in _QUESTIONS]
        return [task.result() for task in tasks], qwen.counts.read_tokens - read

    answers, read_tokens = run(dialogues(), timeout_s=120)
    for answer, city in zip(answers, _QUESTIONS.values(), strict=True):
        assert [name for name in _QUESTIONS.values() if name in _text(answer)] == [city]
        logprobs = [logprob for delta in answer for logprob in delta.logprobs]
        assert len(logprobs) == answer[-1].usage.completion_tokens
        assert max(logprobs) <= 0.0
    assert read_tokens < 3 * 25


@pytest.mark.engine
def test_real_follow_up_turn_reads_only_what_is_new(qwen):
    async def dialogue():
        question = "一加一等于几？"
        first = await _answer(qwen, _prompt(_SYSTEM, question, device_id="a", max_tokens=24))
        await _answer(qwen, _prompt("别的", "你好", device_id="b", max_tokens=4))
        read = qwen.counts.read_tokens
        await _answer(qwen, _prompt(_SYSTEM, question, _text(first), "再加一呢？", device_id="a", max_tokens=4))
        return qwen.counts.read_tokens - read

    assert run(dialogue(), timeout_s=120) < 20


@pytest.mark.engine
def test_real_model_stops_for_who_leaves_and_goes_on_for_who_stays(qwen):
    async def leaving():
        stays = asyncio.create_task(_answer(qwen, _prompt(_SYSTEM, "中国的首都是哪里？")))
        async with aclosing(qwen.complete(_prompt(_SYSTEM, "讲一个很长的故事。"))) as deltas:
            await anext(deltas)
        task = asyncio.create_task(_answer(qwen, _prompt("很长。" * 150, "你好")))
        await _until(lambda: qwen._thread._work.open == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer = await stays
        assert qwen._thread._work.open == 0
        return answer

    assert "北京" in _text(run(leaving(), timeout_s=120))


@pytest.mark.engine
def test_real_model_with_too_little_memory_pauses_and_still_answers():
    completer = LlamaCompleter(
        locate("qwen2.5-coder-0.5b-instruct-q4_k_m")["model"], slots=4, context_tokens=256, cache_tokens=256
    )
    things = ("大海", "森林", "月亮", "熊猫")

    async def crowded():
        async with asyncio.TaskGroup() as group:
            prompts = [_prompt("说长一点。", f"讲一个关于{thing}的长故事。", max_tokens=100) for thing in things]
            tasks = [group.create_task(_answer(completer, prompt)) for prompt in prompts]
        return [task.result() for task in tasks]

    answers = run(crowded(), timeout_s=120)
    assert [thing in _text(answer) for thing, answer in zip(things, answers, strict=True)] == [True] * 4
    assert completer.counts.preemptions
    completer.close()
