from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.nats_rights import Role
from coordinator.nats_users import User, added, new_seed, read_users, revoked, users_text, write_seed, write_users
from models.errors import ConfigError

EDGE = User(role=Role.EDGE, name="edge-1", key="U" + "A" * 55)
CLOUD = User(role=Role.CLOUD, name="pool-a", key="U" + "B" * 55)


def test_users_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_users(tmp_path / "users.conf", [EDGE, CLOUD])
    assert read_users(tmp_path / "users.conf") == [EDGE, CLOUD]
    assert [path.name for path in tmp_path.iterdir()] == ["users.conf"]


def test_the_file_that_ships_has_nobody() -> None:
    assert read_users(Path(__file__).parents[2] / "manifests/base/nats-hub/users.conf") == []


def test_no_file_is_nobody(tmp_path: Path) -> None:
    assert read_users(tmp_path / "users.conf") == []


@pytest.mark.parametrize(
    "line", ["x", '{"nkey": "UAAA"}', users_text([EDGE]).splitlines()[2].replace("edge edge-1", "king edge-1")]
)
def test_a_line_that_is_not_ours_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "users.conf").write_text(f"users: [\n{line}\n]\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_users(tmp_path / "users.conf")


@given(st.binary(max_size=300))
def test_no_file_breaks_it(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("users") / "users.conf"
    path.write_bytes(content)
    with suppress(ConfigError):
        assert all(user.key.startswith("U") for user in read_users(path))


def test_one_name_has_one_key() -> None:
    with pytest.raises(ConfigError, match="revoke it first"):
        added([EDGE], User(role=Role.EDGE, name="edge-1", key="U" + "C" * 55))
    assert added([EDGE], User(role=Role.CLOUD, name="edge-1", key="U" + "C" * 55))[0] == EDGE


@pytest.mark.parametrize("name", ["edge-1", EDGE.key])
def test_a_key_is_taken_away_by_name_or_by_itself(name: str) -> None:
    assert revoked([EDGE, CLOUD], name) == [CLOUD]


def test_nobody_to_revoke_is_said() -> None:
    with pytest.raises(ConfigError, match="edge-9"):
        revoked([EDGE], "edge-9")


def test_a_seed_is_its_owners_and_never_written_over_another(tmp_path: Path) -> None:
    seed, key = new_seed()
    assert (seed[:2], key[:1], len(key)) == ("SU", "U", 56)
    write_seed(tmp_path / "edge-1.nk", seed)
    assert stat.S_IMODE((tmp_path / "edge-1.nk").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="never written over"):
        write_seed(tmp_path / "edge-1.nk", seed)
