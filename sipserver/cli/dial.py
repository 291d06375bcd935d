"""`sipserver dial`: have the running server call somebody, and tell what becomes of it.

Owns the words on the terminal. The call lives in the server: in a single one, which is asked through its console, or in
a cell of the fleet, which is asked over the bus. What happens is read from the call's record.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sipserver import settings
from sipserver.asking import Asking
from sipserver.calls import timeline
from sipserver.cli import tenants
from sipserver.cli.call_source import running
from sipserver.cli.operator_audit import opened
from sipserver.errors import RemoteError, SipServerError
from sipserver.settings import Settings
from sipserver.store.reader import EventRow, Reader, open_reader

LOOK_S = 0.2
SILENT_S = 5.0
"""Without news for so long, the server is asked whether the call still lives."""

LAST_WORD_S = 15.0
"""How long the record of a call that lives no longer may take to be closed."""


class Unreachable(SipServerError):
    """Nobody who could place the call answers."""


def dial(
    to: Annotated[str, typer.Argument(metavar="TO", help="A number or SIP URI that `targets` allows.")],
    trunk: Annotated[str, typer.Option(help="The trunk to call by; otherwise the first that carries the number.")] = "",
    flow: Annotated[str, typer.Option(help="The flow to run; otherwise that of the route for this number.")] = "",
    tenant: Annotated[str, typer.Option(help="Whose dialplan; not needed where there is one tenant.")] = "",
    from_: Annotated[str, typer.Option("--from", help="The number to show, if the trunk allows it.")] = "",
    display: Annotated[str, typer.Option(help="The name to show.")] = "",
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A SIP header to send; may be given more than once.")
    ] = None,
    amd: Annotated[
        bool, typer.Option("--amd", help="Find out first who answered: the flow has it as {answerer}.")
    ] = False,
    ring_s: Annotated[float, typer.Option("--ring-s", help="How long it may ring, over all trunks.")] = 30,
    config: Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")] = (
        settings.DEFAULT_FILE
    ),
) -> None:
    """Have the running server call somebody and run a flow once they answer. Exits 0 only if they did.

    Ctrl-C hangs the call up.
    """
    loaded = settings.load(config)
    wanted: dict[str, Any] = {
        "to": to,
        "trunk": trunk,
        "flow": flow,
        "tenant": tenant,
        "from_user": from_,
        "from_display": display,
    }
    wanted |= {"headers": _headers(header or []), "ring_s": ring_s}
    if amd:
        wanted["amd"] = {}
    answered = asyncio.run(_dial(loaded, wanted, typer.echo))
    if not answered:
        raise typer.Exit(1)


def _headers(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{pair!r}: write --header NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


async def _dial(loaded: Settings, wanted: Mapping[str, Any], tell: Callable[[str], None]) -> bool:
    """Whether the call was answered. Raises SipServerError for what cannot begin."""
    async with running(loaded) as server:
        await server.live()  # a server that does not run is the first thing to say
        tenant = await asyncio.to_thread(tenants.of_dialplans, loaded, str(wanted["tenant"]))
        order = {**wanted, "tenant": tenant}
        detail = {name: wanted[name] for name in ("flow", "trunk") if wanted[name]}
        with _interruptible() as interrupted:
            try:
                async with opened(loaded) as audit:
                    call_id = await audit.do(tenant, "call.created", lambda: server.originate(order), detail=detail)
            except RemoteError as refusal:
                raise SipServerError(refusal.text) from None
            tell(f"calling {timeline.clean(str(wanted['to']))}, call {call_id}")
            async with open_reader(loaded.store) as reader:
                return await _follow(server, reader, call_id, interrupted, tell)


async def _follow(
    server: Asking, reader: Reader, call_id: str, interrupted: asyncio.Event, tell: Callable[[str], None]
) -> bool:
    loop = asyncio.get_running_loop()
    seen, answered_ms, news_s, give_up_s = -1, None, loop.time(), None
    while True:
        for event in await reader.events(call_id, after_seq=seen):
            seen, news_s = event.seq, loop.time()
            line = _words(event, answered_ms)
            if event.kind == "call.state" and event.fields.get("new") == "answered":
                answered_ms = event.at_ms
            if line:
                tell(timeline.clean(line))
            if event.kind == "call.ended":
                return answered_ms is not None
        if interrupted.is_set():
            interrupted.clear()
            await _quietly(server.ask(call_id, "hangup", detail="sipserver dial"))
        if give_up_s is None and loop.time() - news_s > SILENT_S:
            news_s = loop.time()
            give_up_s = None if await _quietly(server.ask(call_id, "status")) else loop.time() + LAST_WORD_S
        if give_up_s is not None and loop.time() > give_up_s:
            raise Unreachable(f"the call {call_id} lives no longer, and its record does not say how it ended")
        await asyncio.sleep(LOOK_S)


def _words(event: EventRow, answered_ms: int | None) -> str:
    """What the terminal shows of an event; empty: nothing."""
    fields, at, words = event.fields, f"{event.at_ms / 1000:.1f} s", ""
    match event.kind:
        case "leg.progress":
            what = "early media" if fields.get("media") else "ringing" if fields.get("code") == 180 else "progress"
            words = f"{what} ({fields.get('code')}) after {at}"
        case "call.state" if fields.get("new") == "answered":
            words = f"answered after {at}"
        case "amd.decided":
            words = f"who answered: {fields.get('answerer')}, known {fields.get('after_ms')} ms after the answer"
        case "fault.other" | "fault.provider" | "fault.watchdog":
            where = fields.get("where") or fields.get("part") or fields.get("watchdog")
            words = f"fault: {where}: {fields.get('error') or fields.get('action')}"
        case "call.limited":
            words = f"no place left in {fields.get('scope')}, which has {fields.get('limit')}"
        case "call.ended":
            lasted = "" if answered_ms is None else f", {(event.at_ms - answered_ms) / 1000:.1f} s after the answer"
            detail = f": {fields['detail']}" if fields.get("detail") else ""
            words = f"ended: {fields.get('reason')} ({fields.get('sip_code')}){detail}{lasted}"
    return words


@contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """Set by Ctrl-C, which then does nothing else; the second one ends the command."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def ask() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        asked.set()

    loop.add_signal_handler(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _quietly(asking: Awaitable[object]) -> bool:
    """Whether somebody answered."""
    try:
        await asking
    except SipServerError:
        return False
    return True
