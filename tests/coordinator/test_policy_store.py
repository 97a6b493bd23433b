from __future__ import annotations

import json

import pytest

from coordinator.buckets import MemoryBucket
from coordinator.policy_store import PolicyStore, difference, numbered
from coordinator.wire import POLICY_KEY
from models.errors import ConfigError
from tests.virtual_time import run


def document(threshold: float, **more: object) -> bytes:
    return json.dumps({"threshold": threshold, **more}).encode()


async def put(store: PolicyStore, threshold: float) -> int:
    return await store.apply(await store.proposed(document(threshold)))


def test_each_change_is_the_next_version_whatever_the_file_says() -> None:
    async def scenario() -> None:
        store = PolicyStore(MemoryBucket())
        first = await store.proposed(document(0.7, version=41))
        assert (first.policy.version, first.revision) == (1, 0)
        assert await store.apply(first) == 1
        second = await store.proposed(document(0.8))
        assert (second.policy.version, second.revision) == (2, 1)
        assert second.diff == (
            "--- in force",
            "+++ new",
            "@@ -1,3 +1,3 @@",
            " {",
            '-  "threshold": 0.7',
            '+  "threshold": 0.8',
            " }",
        )
        assert await store.apply(second) == 2
        assert [known.policy.version for known in await store.history() if known.policy] == [1, 2]

    run(scenario())


def test_the_same_policy_in_another_order_changes_nothing() -> None:
    async def scenario() -> None:
        store = PolicyStore(MemoryBucket())
        await store.apply(await store.proposed(b'{"threshold": 0.7, "router": "gain"}'))
        assert (await store.proposed(b'{"router":"gain","threshold":0.7,"version":9}')).diff == ()

    run(scenario())


def test_a_change_made_from_another_revision_is_refused() -> None:
    async def scenario() -> None:
        store = PolicyStore(MemoryBucket())
        await put(store, 0.7)
        with pytest.raises(ConfigError, match="from revision 3, but revision 1 is in force"):
            await store.proposed(document(0.8), revision=3)
        mine, theirs = await store.proposed(document(0.8), revision=1), await store.proposed(document(0.9))
        await store.apply(theirs)
        with pytest.raises(ConfigError, match="from revision 1, but revision 2 is in force: somebody else"):
            await store.apply(mine)
        (*_, newest) = await store.history()
        assert newest.policy
        assert newest.policy.threshold == 0.9

    run(scenario())


@pytest.mark.parametrize("bad", [b"", b"junk", b"\xff", b"[]", b"3", b"null", b"[" * 100_000])
def test_what_is_no_json_object_is_no_policy(bad: bytes) -> None:
    with pytest.raises(ConfigError, match="a policy is a JSON object"):
        numbered(bad, 1)


def test_a_bad_field_is_named() -> None:
    with pytest.raises(ConfigError, match="treshold"):
        numbered(b'{"treshold": 0.7}', 1)


def test_going_back_skips_what_was_no_policy_and_makes_a_new_version() -> None:
    async def scenario() -> None:
        bucket = MemoryBucket()
        store = PolicyStore(bucket)
        await put(store, 0.6)
        await put(store, 0.7)
        await bucket.put(POLICY_KEY, b"junk from elsewhere")
        await put(store, 0.9)
        assert [known.policy is not None for known in await store.history()] == [True, True, False, True]
        back = await store.proposed(await store.earlier())
        assert (back.policy.version, back.policy.threshold, back.revision) == (4, 0.7, 4)
        assert (await store.proposed(await store.earlier(1))).policy.threshold == 0.6
        await store.apply(back)
        assert (await store.proposed(await store.earlier())).policy.threshold == 0.9, "back and forth"

    run(scenario())


def test_there_may_be_nothing_to_go_back_to() -> None:
    async def scenario() -> None:
        store = PolicyStore(MemoryBucket())
        with pytest.raises(ConfigError, match="no earlier policy"):
            await store.earlier()
        await put(store, 0.7)
        with pytest.raises(ConfigError, match="no earlier policy"):
            await store.earlier()
        with pytest.raises(ConfigError, match="revision 9 is not kept"):
            await store.earlier(9)

    run(scenario())


@pytest.mark.parametrize(
    ("old", "changed"),
    [(b"", ["+{", '+  "threshold": 0.7', "+}"]), (b"junk", ["-(not a policy)", "+{", '+  "threshold": 0.7', "+}"])],
)
def test_the_first_policy_and_one_after_junk_differ_in_everything(old: bytes, changed: list[str]) -> None:
    lines = difference(old, document(0.7, version=1))
    assert [line for line in lines if line[0] in "+-" and line[:3] not in {"+++", "---"}] == changed
