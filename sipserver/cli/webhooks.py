"""`sipserver webhooks listen`: a receiver of signed webhooks on this machine, to see what comes.

Owns the endpoint, which is made by REST and deleted at the end, and the words on the terminal.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Annotated, Any

import typer

from sipserver.calls import timeline
from sipserver.cli.call_source import key_of_environment
from sipserver.client import Client
from sipserver.errors import SipServerError
from sipserver.webhooks.receiver import Receiver

app = typer.Typer(help="Try webhooks out.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `listen` a command of its own."""


@app.command()
def listen(
    kinds: Annotated[list[str] | None, typer.Option(help="Only these kinds, e.g. 'call.*'; may come again.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: any.", min=0, max=65535)] = 0,
    reach: Annotated[str, typer.Option(help="The URL by which the server reaches us, if another one.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print messages as they came.")] = False,
    url: Annotated[
        str, typer.Option("--url", envvar="SIPSERVER_URL", help="The server; the API key is in SIPSERVER_KEY.")
    ] = "http://127.0.0.1:8080",
) -> None:
    """Make an endpoint, print every message whose signature is good, and delete the endpoint at Ctrl-C.

    The server must be allowed to send to this machine: `webhooks.allow_private`.
    """
    asyncio.run(_listen(url, tuple(kinds or ()), host, port, reach, as_json))


async def _listen(url: str, kinds: tuple[str, ...], host: str, port: int, reach: str, as_json: bool) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    receiver = Receiver(lambda message: typer.echo(_line(message, as_json)))
    try:
        async with Client(url, key_of_environment()) as client, receiver.listening(host, port) as own:
            made = await client.create_webhook(reach or own, *kinds)
            receiver.secret = made.secret
            typer.echo(f"listening at {own} as {made.id}, until Ctrl-C", err=True)
            try:
                await over.wait()
            finally:
                await client.delete_webhook(made.id)
    except OSError as problem:
        raise SipServerError(f"cannot listen at {host}:{port}: {problem}") from None
    if receiver.refused:
        typer.echo(f"{receiver.refused} messages had a wrong signature", err=True)


def _line(message: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(message)
    data = message.get("data") or {}
    words = "  ".join(
        f"{name}={value}" for name, value in (data.get("fields") or {}).items() if value not in ("", None)
    )
    return timeline.clean(f"{str(data.get('call_id') or '')[-12:]:12}  {message.get('type')}  {words}")
