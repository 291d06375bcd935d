"""Small processes for a supervisor: each binds the port it was given and does what datagrams tell it.

Words to a cell's port: `crash` (SIGSEGV), `exit 3`, `block` (its loop), `sip 9000` (age of the sip thread in ms),
`calls 2`. What a file `mood` in the runtime folder says at the start of a cell: `broken`, `silent` (never ready),
`slow` (half a second).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from sipserver.dialplan import watch
from sipserver.dialplan.watch import Snapshot
from sipserver.errors import InternalError
from sipserver.fleet.control import Control
from sipserver.fleet.process import ChildSpec, Kind
from sipserver.settings import Settings


def preload(settings: Settings, strict: bool) -> Snapshot:
    return watch.snapshot(settings.dialplans, strict=strict)


class Cell(asyncio.DatagramProtocol):
    def __init__(self, control: Control, tenants: int) -> None:
        self.control, self.sip_age_ms, self.calls, self.tenants = control, 0, 0, tenants
        self.idle, self.hurry = asyncio.Event(), asyncio.Event()
        self.reloads = 0
        self.idle.set()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        word, _, argument = data.decode().partition(" ")
        match word:
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(int(argument))
            case "block":
                time.sleep(60)
            case "sip":
                self.sip_age_ms = int(argument)
            case "calls":
                self.calls = int(argument)
                (self.idle.clear if self.calls else self.idle.set)()

    def facts(self) -> dict[str, Any]:
        more = {"reloads": self.reloads, "tenants": self.tenants, "random": NUMBERS.pop() if NUMBERS else None}
        return {"calls": self.calls, "sip_age_ms": self.sip_age_ms, "media_age_ms": None, **more}

    async def drain(self, within_s: float) -> None:
        waits = [asyncio.ensure_future(self.idle.wait()), asyncio.ensure_future(self.hurry.wait())]
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def reload(self) -> None:
        self.reloads += 1


NUMBERS: list[float] = []


async def cell(spec: ChildSpec, control: Control) -> None:
    file = spec.settings.fleet.runtime / "mood"
    mood = file.read_text() if file.exists() else ""
    if mood == "broken":
        raise InternalError("as told")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sip:
        sip.bind((spec.host, spec.sip_port))
        transport, one = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Cell(control, len(spec.warm.book.plans)), sock=sip
        )
        control.beat_with(one.facts)
        if mood == "silent":
            await asyncio.Event().wait()
        if mood == "slow":
            await asyncio.sleep(0.5)
        await control.ready(sip_port=spec.sip_port)
        await control.obey(drain=one.drain, hurry=one.hurry.set, reload=one.reload)
        transport.close()


async def helper(_spec: ChildSpec, control: Control) -> None:
    """A gateway, a writer, a speech worker: there, and away when told."""
    await control.ready()
    await control.obey(drain=_at_once)


async def probe(_spec: ChildSpec, control: Control) -> None:
    await control.ready(capacity=4)
    await control.obey(drain=_at_once)


async def _at_once(_within_s: float) -> None:
    return


def leave_a_thread(_settings: Settings, _strict: bool) -> None:
    import threading

    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def tell(port: int, words: str) -> None:
    """Say something to a cell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(words.encode(), ("127.0.0.1", port))


def set_mood(runtime: Path, mood: str) -> None:
    runtime.mkdir(parents=True, exist_ok=True)
    (runtime / "mood").write_text(mood)


_HERE = "tests.fleet.kinds"
KINDS = {
    "cell": Kind(f"{_HERE}:cell", preload=f"{_HERE}:preload"),
    "gateway": Kind(f"{_HERE}:helper"),
    "writer": Kind(f"{_HERE}:helper", warm=False, overlap=False),
    "speech": Kind(f"{_HERE}:helper", warm=False),
    "probe": Kind(f"{_HERE}:probe"),
}
MISSING = {**KINDS, "cell": Kind("tests.fleet.nowhere:main")}
THREADED = {**KINDS, "speech": Kind(f"{_HERE}:helper", preload=f"{_HERE}:leave_a_thread")}
