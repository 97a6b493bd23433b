"""The ``keys`` command: who may connect to the hub, as what. Keys are made here, put in force by the hub's reload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.command_line import AsJson, print_json, told
from coordinator.nats_rights import Role
from coordinator.nats_users import User, added, new_seed, read_users, revoked, write_seed, write_users

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Who may connect to the hub, and as what: an NKey for each edge, worker, coordinator and operator.\n\n"
    "The hub's configuration includes the file of users (public keys only); a seed is secret and belongs to one process. What a key may "
    "do follows from its role: an edge's reads that edge's answers alone.",
)
_Users = Annotated[Path, typer.Option("--users", help="File of users that the hub includes.")]
_USERS = Path("users.conf")
_RELOAD = "put it in force with: nats-server --signal reload"
_RESTART = "put it in force by restarting the hub: a reload refuses the key, but leaves an edge's open link as it is (leaves are back in a second or two)"

_NEW_EXAMPLES = """\b
Examples:
  xiaozhi-fleet keys new edge edge-1
  xiaozhi-fleet keys new cloud pool-a --users /etc/nats/users.conf --seed /run/secrets/pool-a.nk
  xiaozhi-fleet keys new operator alice
"""


@app.command("new", short_help="Make a key.", epilog=_NEW_EXAMPLES)
def new_command(
    *,
    role: Annotated[Role, typer.Argument(help="What it is for.", show_default=False)],
    name: Annotated[str, typer.Argument(help="The edge's EDGE_NODE_ID; a label for the others.", show_default=False)],
    users: _Users = _USERS,
    seed: Annotated[
        Path | None, typer.Option(help="Where the seed is written, NAME.nk when not set.", show_default=False)
    ] = None,
) -> None:
    """Make a key, write its seed into a new file that its owner alone may read, and add it to the users."""
    with told():
        secret, key = new_seed()
        grown = added(read_users(users), User(role=role, name=name, key=key))
        place = seed or Path(f"{name}.nk")
        write_seed(place, secret)
        write_users(users, grown)
        typer.echo(f"{place}: the seed of {role} {name}; {_use(role)}")
        typer.echo(f"{users}: {len(grown)} users; {_RELOAD}")


_LIST_EXAMPLES = """\b
Examples:
  xiaozhi-fleet keys list
  xiaozhi-fleet keys list --users /etc/nats/users.conf --json
"""


@app.command("list", short_help="List who has a key.", epilog=_LIST_EXAMPLES)
def list_command(*, users: _Users = _USERS, as_json: AsJson = False) -> None:
    """List who has a key."""
    with told():
        found = read_users(users)
        if as_json:
            print_json(found)
            return
        for user in found:
            typer.echo(f"{user.role:<12} {user.name:<32} {user.key}")
        if not found:
            typer.echo(f"{users}: nobody has a key; make one with: xiaozhi-fleet keys new edge edge-1", err=True)


_REVOKE_EXAMPLES = """\b
Examples:
  xiaozhi-fleet keys revoke edge-1
  xiaozhi-fleet keys revoke edge-1 --users /etc/nats/users.conf
"""


@app.command("revoke", short_help="Take a key away.", epilog=_REVOKE_EXAMPLES)
def revoke_command(
    *,
    name: Annotated[str, typer.Argument(help="The name, or the public key.", show_default=False)],
    users: _Users = _USERS,
) -> None:
    """Take a key away. What is connected with it as a client is cut at the hub's reload, an edge's leaf at its restart."""
    with told():
        left = revoked(read_users(users), name)
        write_users(users, left)
        typer.echo(f"{users}: {len(left)} users; {_RESTART}")


def _use(role: Role) -> str:
    if role is Role.EDGE:
        return "its leaf takes it as HUB_SEED"
    if role is Role.OPERATOR:
        return "name it with --nkey-seed-file"
    return f"its process takes the file as {role.upper()}_NATS_NKEY_SEED_FILE"
