"""`sipserver users`: make users, list them, change their roles, shut them out, give them a new password, delete them.

Owns the words on the terminal. A password is asked for, or is the first line of standard input: never an argument,
which others on the machine could read. The database is worked on directly, so that a server need not run.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from sipserver import settings, tenant_name
from sipserver.calls.timeline import clean
from sipserver.cli import tables, tenants
from sipserver.cli.operator_audit import OperatorAudit
from sipserver.errors import CallerError
from sipserver.store.database import Database
from sipserver.store.users import UserRows
from sipserver.tenants import passwords
from sipserver.tenants.roles import Role, role_of
from sipserver.tenants.user_book import UserBook
from sipserver.tenants.users import User, email_of, name_of

app = typer.Typer(help="Make users, list, change and delete them.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
Tenant = Annotated[str, typer.Option(help="Whose user.")]
Email = Annotated[str, typer.Argument(metavar="EMAIL")]
Done = TypeVar("Done")
_ROLES = ", ".join(Role)


@app.command()
def create(
    email: Email,
    tenant: Tenant,
    role: Annotated[str, typer.Option(help=f"What the user may do: {_ROLES}.")],
    name: Annotated[str, typer.Option(help="As people call the user.")] = "",
    without_password: Annotated[
        bool, typer.Option("--without-password", help="Only an OpenID provider lets the user in.")
    ] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Make a user; the password is asked for, or comes as a line of standard input."""
    wanted, called = role_of(role), name_of(name)
    password = None if without_password else _password()

    async def work(book: UserBook, audit: OperatorAudit) -> User:
        return await audit.do(
            tenant_name.checked(tenant),
            "user.created",
            lambda: book.create(tenant, email, called, wanted, password=password),
            of="user",
            made=lambda user: user.id,
            detail={"email": email_of(email), "role": wanted},
        )

    user = _run(config, work)
    tenants.warn_of_unknown(settings.load(config), tenant)
    typer.echo(f"made {clean(user.email)}, {wanted} of {clean(tenant)}")


@app.command("list")
def list_users(
    tenant: Annotated[str | None, typer.Option(help="Only users of this tenant.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is stored, as JSON.")] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show the users."""

    async def work(book: UserBook, _audit: OperatorAudit) -> list[User]:
        return list(await book.list(tenant))

    found = _run(config, work)
    if as_json:
        typer.echo(json.dumps([_fields(user) for user in found], default=str, indent=2))
        return
    columns = ("tenant", "e-mail", "name", "role", "state", "last login (UTC)")
    tables.show(columns, map(_facts, found), whole=("e-mail", "role", "last login (UTC)"))


@app.command("set-role")
def set_role(
    email: Email,
    role: Annotated[str, typer.Argument(metavar="ROLE", help=_ROLES)],
    tenant: Tenant,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Give another role; it counts at once. The last owner stays one."""
    typer.echo(_told(_change(config, tenant, email, role=role_of(role))))


@app.command()
def disable(email: Email, tenant: Tenant, config: Config = settings.DEFAULT_FILE) -> None:
    """Let a user in no more; sessions end at once."""
    typer.echo(_told(_change(config, tenant, email, enabled=False)))


@app.command()
def enable(email: Email, tenant: Tenant, config: Config = settings.DEFAULT_FILE) -> None:
    """Let a user in again."""
    typer.echo(_told(_change(config, tenant, email, enabled=True)))


@app.command("reset-password")
def reset_password(email: Email, tenant: Tenant, config: Config = settings.DEFAULT_FILE) -> None:
    """Give a new password, asked for or a line of standard input; sessions end at once, a lock is taken away."""
    typer.echo(_told(_change(config, tenant, email, password=_password())))


@app.command()
def delete(
    email: Email,
    tenant: Tenant,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Delete a user; sessions end at once. The last owner stays. The audit log keeps who it was."""
    if not yes:
        typer.confirm(clean(f"delete {email} of {tenant}?"), abort=True)

    async def work(book: UserBook, audit: OperatorAudit) -> User:
        user = await book.by_email(tenant, email)
        told = {"email": user.email, "name": user.name, "role": user.role}
        deleting = partial(book.delete, user.id, tenant=tenant)
        return await audit.do(tenant, "user.deleted", deleting, of="user", which=user.id, detail=told)

    typer.echo(f"deleted {clean(_run(config, work).email)} of {clean(tenant)}")


def _change(config: Path, tenant: str, email: str, **changes: Any) -> User:
    async def work(book: UserBook, audit: OperatorAudit) -> User:
        user = await book.by_email(tenant, email)
        told = {"email": user.email, **({"renewed": "password"} if "password" in changes else changes)}
        changing = partial(book.change, user.id, tenant=tenant, **changes)
        return await audit.do(tenant, "user.changed", changing, of="user", which=user.id, detail=told)

    return _run(config, work)


def _run(config: Path, work: Callable[[UserBook, OperatorAudit], Awaitable[Done]]) -> Done:
    async def running() -> Done:
        async with _book(config) as (book, audit):
            return await work(book, audit)

    return asyncio.run(running())


@asynccontextmanager
async def _book(config: Path) -> AsyncIterator[tuple[UserBook, OperatorAudit]]:
    loaded = settings.load(config)
    database = Database(loaded.store, connections=1)
    await database.open()
    try:
        yield UserBook(UserRows(database), passwords.Passwords()), OperatorAudit(loaded, database)
    finally:
        await database.close()


def _password() -> str:
    if sys.stdin.isatty():
        given = getpass.getpass("password: ")
        passwords.check(given)
        if getpass.getpass("once more: ") != given:
            raise CallerError("these were two different passwords")
        return given
    given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise CallerError("no password: send it as a line of standard input, or run this on a terminal")
    passwords.check(given)
    return given


def _told(user: User) -> str:
    return clean(f"{user.email} of {user.tenant}: {user.role}, {_state(user)}")


def _state(user: User) -> str:
    if user.disabled_at is not None:
        return "disabled"
    ways = [way for way, there in (("password", user.has_password), ("provider", user.by_provider)) if there]
    state = f"comes by {' and '.join(ways)}" if ways else "no way in yet"
    if user.locked_until is not None and user.locked_until > datetime.now(UTC):
        state += f", locked until {user.locked_until:%H:%M:%S} UTC"
    return state


def _facts(user: User) -> tuple[str, ...]:
    came = f"{user.login_at:%Y-%m-%d %H:%M}" if user.login_at else "never"
    return (user.tenant, user.email, user.name, user.role, _state(user), came)


def _fields(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "tenant": user.tenant,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "state": _state(user),
        "created_at": user.created_at,
        "disabled_at": user.disabled_at,
        "login_at": user.login_at,
        "locked_until": user.locked_until,
    }
