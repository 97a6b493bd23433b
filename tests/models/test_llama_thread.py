from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from models.errors import CompletionError, OverloadedError
from models.llama_jobs import Ended, Job, Outcome, Started, Wrote
from models.llama_scheduler import Scheduler
from models.llama_thread import EngineThread
from tests.real_time import run


class _Gated:
    """An engine whose steps wait for ``let``, until then for ``stop``; writes token 5 without end."""

    def __init__(self, *, is_open=True):
        self.open = threading.Event()
        self.entered = threading.Event()
        self.stopped = threading.Event()
        self.steps = 0
        self.threads = set()
        self.error = None
        if is_open:
            self.open.set()

    def sampler(self, seed):
        return None

    def decode(self, feeds):
        self.threads.add(threading.current_thread())
        self.steps += 1
        self.entered.set()
        if self.error:
            raise self.error
        while not self.open.wait(0.001):
            if self.stopped.is_set():
                return Outcome.STOPPED
        return Outcome.DONE

    def sample(self, feed, sampler):
        return 5, None

    def forget(self, sequence, start):
        return True

    def share(self, source, target, count):
        return None

    def stop(self):
        self.stopped.set()

    def resume(self):
        self.stopped.clear()


def _thread(engine, *, slots=1, max_waiting=1):
    return EngineThread(Scheduler(engine, slots=slots), engine, name="t", slots=slots, max_waiting=max_waiting)


def _job(max_tokens=3):
    return Job(tokens=[1, 2, 3], max_tokens=max_tokens)


async def _events(answer):
    events = []
    while not events or not isinstance(events[-1], Ended):
        events.append(await answer.next())
    return events


def test_events_come_in_order_and_from_one_thread():
    engine = _Gated()
    thread = _thread(engine)

    async def twice():
        for _ in range(2):
            events = await _events(thread.submit(_job()))
            assert [type(event) for event in events] == [Started, Wrote, Wrote, Wrote, Ended]

    run(twice())
    run(twice())
    assert len(engine.threads) == 1
    assert threading.current_thread() not in engine.threads
    thread.close()


def test_closing_during_a_prompt_stops_the_running_step():
    engine = _Gated(is_open=False)
    thread = _thread(engine)

    async def interrupted():
        answer = thread.submit(_job())
        await asyncio.to_thread(engine.entered.wait)
        await answer.close()
        assert thread.waiting == 0
        engine.open.set()
        assert len(await _events(thread.submit(_job()))) == 5

    run(interrupted())
    thread.close()


def test_closing_waits_for_the_engine_even_when_cancelled_meanwhile():
    engine = _Gated()
    thread = _thread(engine)

    async def stubborn():
        answer = thread.submit(_job(10_000_000))
        await answer.next()
        await answer.next()
        engine.open.clear()
        engine.entered.clear()
        await asyncio.to_thread(engine.entered.wait)
        closing = asyncio.create_task(answer.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        assert not closing.done()
        engine.open.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        steps = engine.steps
        assert len(await _events(thread.submit(_job()))) == 5
        assert engine.steps == steps + 3

    run(stubborn())
    thread.close()


def test_full_line_is_refused_at_once():
    engine = _Gated(is_open=False)
    thread = _thread(engine)

    async def crowded():
        answers = [thread.submit(_job()) for _ in range(2)]
        assert thread.waiting == 1
        with pytest.raises(OverloadedError, match="1 calls already wait for 1 slots"):
            thread.submit(_job())
        engine.open.set()
        for answer in reversed(answers):
            await answer.close()
        assert thread.waiting == 0

    run(crowded())
    thread.close()


def test_line_too_long_for_the_budget_is_refused_by_the_measured_pace():
    engine = _Gated()
    clock = iter(range(0, 100_000, 4))
    scheduler = Scheduler(engine, slots=1)
    thread = EngineThread(scheduler, engine, name="t", slots=1, max_waiting=5, now=lambda: next(clock))

    async def crowded():
        await _events(thread.submit(_job()))
        assert thread.wait_s == 0.0
        engine.open.clear()
        engine.entered.clear()
        first = thread.submit(_job())
        await asyncio.to_thread(engine.entered.wait)
        assert thread.wait_s == scheduler.hold_s > 4.0
        with pytest.raises(OverloadedError, match="a slot comes free in about"):
            thread.check(4.0)
        thread.check(1_000.0)
        engine.open.set()
        await first.close()

    run(crowded())
    thread.close()


def test_closing_the_thread_ends_open_jobs_and_refuses_new_ones():
    engine = _Gated(is_open=False)
    thread = _thread(engine)

    async def closed():
        running, waiting = thread.submit(_job()), thread.submit(_job())
        await asyncio.to_thread(engine.entered.wait)
        thread.close()
        engine.open.set()
        for answer in (running, waiting):
            with pytest.raises(OverloadedError, match="closed"):
                await _events(answer)
            await answer.close()
        with pytest.raises(OverloadedError, match="closed"):
            thread.submit(_job())

    run(closed())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_crash_of_the_thread_ends_open_jobs_and_refuses_new_ones():
    engine = _Gated()
    engine.error = OSError("access violation")
    thread = _thread(engine)

    async def crashed():
        answer = thread.submit(_job())
        with pytest.raises(CompletionError, match="restart"):
            await _events(answer)
        with pytest.raises(OverloadedError, match="closed"):
            thread.submit(_job())

    run(crashed())
    (worker,) = engine.threads
    worker.join()


def test_event_loop_that_is_gone_harms_nobody():
    engine = _Gated(is_open=False)
    thread = _thread(engine)

    async def leave():
        thread.submit(_job())

    async def ask():
        return await _events(thread.submit(_job()))

    run(leave())
    engine.open.set()
    assert len(run(ask())) == 5
    thread.close()


def test_dropping_the_last_reference_ends_the_thread():
    engine = _Gated()
    thread = _thread(engine)

    async def ask(submit):
        await _events(submit(_job()))

    run(ask(thread.submit))
    (worker,) = engine.threads
    del thread
    gc.collect()
    assert not worker.is_alive()
