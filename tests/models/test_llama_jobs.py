from __future__ import annotations

import pytest

from models.llama_jobs import Counts, Feed, Job


def test_jobs_are_told_apart_even_when_they_ask_the_same():
    assert Job(tokens=[1]) != Job(tokens=[1])
    assert len({Job(tokens=[1]), Job(tokens=[1])}) == 2


def test_job_without_limits_never_expires_or_loops():
    job = Job(tokens=[1])
    assert job.deadline_s == float("inf")
    assert not job.loops(1)


def test_feed_cannot_be_changed_once_planned():
    feed = Feed(0, 0, [1], wants_token=True)
    with pytest.raises(AttributeError):
        feed.start = 1  # type: ignore[misc]  # that is the point


def test_counts_begin_at_nothing():
    assert Counts() == Counts(0, 0, 0, 0, 0, 0)
