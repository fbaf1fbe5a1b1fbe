"""`gossipfl user`: who may log in to a hub. It works on the hub's database, on the hub's machine.

Nobody chooses another's password: a new user gets a code that works once, and sets its own.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gossipfl.cli.output import Result
from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.hub.auth.sessions import Sessions
    from gossipfl.hub.auth.users import User, Users

T = TypeVar("T")
ROLES = ("operator", "auditor", "viewer", "hub")
PASSWORD_BYTES_MAX = 1_024


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("user", help="who may log in to a hub")
    verbs = parser.add_subparsers(dest="user_verb", metavar="VERB")

    adding = verbs.add_parser("add", help="make a user; prints a code that works once")
    adding.add_argument("name", help="a-z, 0-9, . _ -, 2 to 32 of them")
    adding.add_argument("--role", choices=ROLES, required=True)
    adding.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a viewer sees only clients that have it; may be given more than once",
    )
    adding.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="set this password (mode 0600) and print no code: for a first operator off loopback",
    )
    _add_config(adding)
    adding.set_defaults(handler=add)

    listing = verbs.add_parser("list", help="all users")
    _add_config(listing)
    listing.set_defaults(handler=list_)

    disabling = verbs.add_parser("disable", help="shut a user out and end its sessions")
    disabling.add_argument("name")
    _add_config(disabling)
    disabling.set_defaults(handler=disable)

    linking = verbs.add_parser("login-link", help="a code for a user who has lost its password")
    linking.add_argument("name")
    _add_config(linking)
    linking.set_defaults(handler=login_link)


def _add_config(parser: Any) -> None:
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the hub's hub.toml"
    )


def add(args: Namespace) -> Result:
    """A new user, with a code or with a password."""
    from gossipfl.hub.rest.access import Role

    labels = dict(_label(text) for text in args.label)
    password = _password(args.password_file)

    async def work(users: Users, sessions: Sessions) -> str:
        code = await users.add(args.name, Role(args.role), labels, by_hand())
        if password is not None:
            await users.redeem(code, password)
        return code

    if password is not None:
        _require_good(password, args.name)
    code = _on_database(args.config, work)
    shown = {"name": args.name, "role": args.role, "labels": labels}
    if password is not None:
        return Result(shown, f"{args.name} may log in with the password of the file")
    return Result({**shown, "code": code}, _code_text(args.name, code))


def list_(args: Namespace) -> Result:
    async def work(users: Users, sessions: Sessions) -> list[User]:
        return await users.all()

    found = _on_database(args.config, work)
    rows = [
        {
            "name": user.name,
            "role": user.role.value,
            "labels": user.labels,
            "state": _state(user),
            "created": user.created,
        }
        for user in found
    ]
    text = "\n".join(f"{row['name']:<32} {row['role']:<9} {row['state']}" for row in rows)
    return Result({"users": rows}, text or "there are no users yet")


def disable(args: Namespace) -> Result:
    async def work(users: Users, sessions: Sessions) -> None:
        await users.disable(args.name, by_hand())
        await sessions.end_all(args.name, "disabled on the hub's machine", is_out=True)

    _on_database(args.config, work)
    return Result({"name": args.name, "state": "disabled"}, f"{args.name} is shut out")


def login_link(args: Namespace) -> Result:
    async def work(users: Users, sessions: Sessions) -> str:
        return await users.link(args.name, by_hand())

    code = _on_database(args.config, work)
    return Result({"name": args.name, "code": code}, _code_text(args.name, code))


def _on_database(config: Path, work: Callable[[Users, Sessions], Awaitable[T]]) -> T:
    """`work` on the users of the hub that this file configures, which may be running."""
    import asyncio
    import time

    from gossipfl.cli.hub import require_extra

    require_extra()
    from gossipfl.hub.auth.sessions import Sessions
    from gossipfl.hub.auth.tokens import Tokens
    from gossipfl.hub.auth.users import Users
    from gossipfl.hub.database import open_database
    from gossipfl.hub.settings import load_settings

    settings = load_settings([config])

    async def run() -> T:
        database = await open_database(settings.dsn, password=settings.password)
        try:
            nobody = Tokens(bytes(32), "")  # nothing is minted here
            sessions = Sessions(database, nobody, time.time)
            return await work(Users(database, time.time), sessions)
        finally:
            await database.close()

    return asyncio.run(run())


def by_hand() -> str:
    """Who works at the hub's machine, as the log names whoever did something there."""
    import getpass

    return f"{getpass.getuser()} (command line)"


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError("GF100", f"--label {text}: NAME=VALUE is wanted")
    return name, value


def _password(path: Path | None) -> str | None:
    from gossipfl.fleet import files

    if path is None:
        return None
    return files.read_secret(path, PASSWORD_BYTES_MAX).decode().strip("\r\n")


def _require_good(password: str, name: str) -> None:
    from gossipfl.hub.auth.passwords import require_good

    require_good(password, name)


def _state(user: User) -> str:
    if user.is_disabled:
        return "disabled"
    return "active" if user.has_password else "has not set a password yet"


def _code_text(name: str, code: str) -> str:
    return (
        f"{name} sets a password with this code, once and within a day:\n  {code}\n"
        "at the hub: its page /login, or POST /api/v1/auth/link"
    )
