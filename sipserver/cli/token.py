"""`sipserver token`: make a token that lets a client place a call by WebSocket or browser, or follow a tenant's calls.

Owns the words on the terminal. No server needs to run: whoever has the secret may make tokens.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings
from sipserver.bus.once import MemoryOnce
from sipserver.errors import SettingsError
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens

LONGEST_S = 30 * 86_400


class Purpose(enum.StrEnum):
    """What people make tokens for by hand; the others are made by the server."""

    VOICE = "voice"
    WEBRTC = "webrtc"
    EVENTS = "events"


def token(
    use: Annotated[Purpose, typer.Option(help="A call by plain WebSocket, one from a browser, or a tenant's events.")],
    to: Annotated[str, typer.Option(help="The user or number of the dialplan that it may call.")] = "",
    from_: Annotated[str, typer.Option("--from", help="As whom it calls.")] = "",
    tenant: Annotated[str, typer.Option(help="Whose calls or events; for a call the route may decide.")] = "",
    lives: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, max=LONGEST_S, help="How long; otherwise gate.token_s.")
    ] = None,
    reusable: Annotated[bool, typer.Option("--reusable", help="Good for any number of uses until it is over.")] = False,
    variable: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A dialplan variable; may be given more than once.")
    ] = None,
    config: Annotated[
        Path, typer.Option("--config", help="The settings file.", metavar="FILE")
    ] = settings.DEFAULT_FILE,
) -> None:
    """Print a token, good for one use. Needs the server's secret in the environment."""
    gate = settings.load(config).gate
    if use is Purpose.EVENTS and not tenant:
        raise typer.BadParameter("events belong to a tenant: say whose", param_hint="--tenant")
    if use is not Purpose.EVENTS and not to:
        raise typer.BadParameter("a call goes to somebody: say to whom", param_hint="--to")
    claims = Claims(
        use=use.value, to=to, from_user=from_, tenant=tenant, once=not reusable, variables=_variables(variable or [])
    )
    typer.echo(_tokens(gate).issue(claims, lives))


def _tokens(gate: GateSettings) -> Tokens:
    """Raises SettingsError without a secret; the settings have refused one that is too short."""
    secret, name = os.environ.get(gate.secret_env, ""), gate.secret_env
    if not secret:
        reason = f"the environment variable {name} is not set; give the server and this command the same secret"
        raise SettingsError(f"{reason}, e.g. of `openssl rand -hex 32`", key="gate.secret_env")
    return Tokens(secret.encode(), MemoryOnce(), lives_s=gate.token_s)


def _variables(given: list[str]) -> dict[str, str]:
    named = [each.partition("=") for each in given]
    if wrong := [name for name, equals, _ in named if not (name and equals)]:
        raise typer.BadParameter(f"{wrong[0] or '='} is not NAME=VALUE", param_hint="--variable")
    return {name: value for name, _, value in named}
