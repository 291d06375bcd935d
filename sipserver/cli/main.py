"""The `sipserver` command: its tree of commands, and how an error looks to the person who typed it.

Owns no work: every command lives in its own module, which is imported only when that command was asked for, so that
`sipserver --help` needs neither speech engines nor a database.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from sipserver import __version__
from sipserver.errors import ConfigError, SipServerError

GROUPS = {
    "dialplan": ("sipserver.cli.dialplan", "Check, explain and describe dialplan files."),
    "models": ("sipserver.cli.models", "List, verify and install speech and language models."),
    "calls": ("sipserver.cli.calls", "Show the records of calls."),
    "recordings": ("sipserver.cli.recordings", "Change the keys of encrypted recordings; decrypt a file."),
    "webhooks": ("sipserver.cli.webhooks", "Try webhooks out: a receiver on this machine."),
    "keys": ("sipserver.cli.keys", "Make, list and revoke API keys."),
    "users": ("sipserver.cli.users", "Make, list and change users: who logs in, with which role."),
    "usage": ("sipserver.cli.usage", "Export what tenants used, and what it costs."),
    "retention": ("sipserver.cli.retention", "Delete what is too old, or say what that would be."),
    "privacy": ("sipserver.cli.privacy", "Give or erase what is kept about a person."),
    "audit": ("sipserver.cli.audit", "Verify, list and export the audit log."),
    "conference": ("sipserver.cli.conference", "Look at conference rooms, mute and remove members."),
    "fleet": ("sipserver.cli.fleet", "Look at a running fleet, drain it, renew it."),
    "edge": ("sipserver.cli.edge", "Render, check, start and look at the edge: Kamailio."),
}
"""Commands with sub-commands. The module has `app`, a `typer.Typer`."""

COMMANDS = {
    "call": ("sipserver.cli.call", "Place a call, say something, print what was said and how fast."),
    "dial": ("sipserver.cli.dial", "Have the running server call somebody and run a flow of its dialplan."),
    "trunks": ("sipserver.cli.trunks", "Show the state of a single server's trunks."),
    "token": ("sipserver.cli.token", "Make a token for a call by WebSocket or browser, or for a tenant's events."),
    "doctor": ("sipserver.cli.doctor", "Check this machine and the settings, and say what to do."),
}
"""Single commands. The module has a function of the command's name."""

EXIT_FAILED = 1
EXIT_CONFIG = 2


def run(
    config: Annotated[Path, typer.Option(help="The settings file.", metavar="FILE")] = Path("etc/sipserver.yaml"),
) -> None:
    """Start the server and stay in the foreground until SIGINT or SIGTERM, which let running calls end first."""
    from sipserver.app import run as serve

    raise typer.Exit(serve(config))


def build(wanted: str = "") -> typer.Typer:
    """The command tree. Only the module behind `wanted` is imported; the others appear with their help line alone."""
    tree = typer.Typer(
        name="sipserver",
        help="A self-hosted voice server for telephone calls.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    tree.callback()(_options)
    tree.command("run")(run)
    for name, (module, text) in COMMANDS.items():
        tree.command(name, help=text)(_function(module, name) if name == wanted else _not_loaded)
    for name, (module, text) in GROUPS.items():
        tree.add_typer(import_module(module).app if name == wanted else typer.Typer(), name=name, help=text)
    return tree


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Exits 0, 1 (it failed) or 2 (a file or an option is wrong); errors of ours are one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    wanted = next((word for word in words if not word.startswith("-")), "")
    if wanted in GROUPS or wanted in COMMANDS:
        import_module("sipserver.log").setup("warning", "console")
    try:
        build(wanted)(args=words, prog_name="sipserver")
    except SipServerError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(EXIT_CONFIG if isinstance(problem, ConfigError) else EXIT_FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sipserver {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """What stands before the name of a command."""


def _function(module: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _not_loaded() -> None:
    """Stands in the help text for a command that was not asked for; it is never called."""
