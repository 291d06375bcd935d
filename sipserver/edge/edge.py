"""The edge as the supervisor sees it: Kamailio with its cells, and whether it takes calls.

Owns the order of things: render, check, start or adopt, tell the cells, drain, look again. Refuses to own the media
relay's process (rtpengine.py).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipserver.edge import cells as cell_list
from sipserver.edge import kamailio, outside, render, rpc
from sipserver.edge.cells import AnyCell, CellAddress, Entry
from sipserver.edge.settings import EdgeSettings
from sipserver.log import logger
from sipserver.trunks.settings import TrunkSettings


@dataclass(frozen=True, slots=True)
class CellState:
    """state: `active`, `trying` (missed a probe), `inactive` (dead), `disabled` (draining). calls: by our count."""

    name: str
    uri: str
    state: str
    calls: int
    calls_at_most: int


@dataclass(frozen=True, slots=True)
class EdgeState:
    """cells: see CellState. draining: new calls get 503. counters: Kamailio's own, `group.name` -> value."""

    cells: tuple[CellState, ...]
    draining: bool
    uptime_s: int
    counters: Mapping[str, int]


_NO_CELLS = "No Destination Sets"
"""How Kamailio says that its list is empty."""
_STATES = {"A": "active", "T": "trying", "I": "inactive", "D": "disabled"}
_GROUPS = ("core:", "shmem:", "tmx:", "sl:", "dialog:")


class Edge:
    """One Kamailio and its cells. All methods: loop thread; safe to cancel unless they say otherwise.

    cell_codecs: `sip.codecs`. passwords: environment variables by name.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        trunks: Sequence[TrunkSettings],
        cell_codecs: Sequence[str],
        passwords: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings, self._trunks, self._codecs, self._passwords = settings, trunks, cell_codecs, passwords
        self._kamailio = kamailio.Kamailio(settings)
        self._draining = False
        self._telling = asyncio.Lock()
        self._loaded_at = 0.0
        self._log = logger("edge")

    @property
    def settings(self) -> EdgeSettings:
        return self._settings

    @property
    def pid(self) -> int | None:
        return self._kamailio.pid

    @property
    def adopted(self) -> bool:
        """start() found a running one."""
        return self._kamailio.adopted

    def render(self) -> dict[str, str]:
        """File name -> text. Blocks for a small file. Raises SettingsError."""
        return render.render(
            self._settings,
            self._trunks,
            self._codecs,
            places=self._kamailio.places,
            secrets=self._kamailio.secrets(),
            passwords=self._passwords,
        )

    def write(self, texts: Mapping[str, str], folder: Path) -> None:
        """Blocks for small files; each is replaced at once, readable by this user alone."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            kamailio.write(folder / name, text)

    async def check(self) -> None:
        """Raises SettingsError with Kamailio's words and the line of the rendered file."""
        await self._kamailio.check(self.render())

    async def adopt(self) -> bool:
        """Take over a running one as it is, to ask or to tell it something; `start` does more."""
        return await self._kamailio.adopt()

    async def start(self, cells: Sequence[AnyCell] | None = None) -> None:
        """Adopt a running one with the same configuration, or check and start one. It takes calls when this returns.

        cells: at once. None: those that the folder's list names, so that an edge that died and is started again has
        what it had, its draining too. Dialogs go on in any case. Raises SettingsError.
        """
        texts = self.render()
        if self._kamailio.pid is None:
            await self._kamailio.adopt()
        if await self.alive():
            self._draining = await self._asked_drain()
            if await self._asked("configuration") != render.fingerprint(texts):
                self._log.info("the configuration has changed: the edge is started anew; dialogs go on")
                await self._kamailio.stop()
        if not await self.alive():
            await self._kamailio.stop()
            await self._kamailio.check(texts)
            self._kamailio.write(texts)
            if cells is not None or not self._kamailio.places.cells.exists():
                wanted = [CellAddress.of(cell) for cell in cells or ()]
                self._kamailio.write(
                    {self._kamailio.places.cells.name: self._list(cell_list.merge(wanted, {}, _token))}
                )
            await self._kamailio.start()
            self._loaded_at = time.monotonic()
            if self._draining:
                await self.drain(True)
        if cells is not None:
            await self.set_cells(cells)

    async def set_cells(self, cells: Sequence[AnyCell]) -> None:
        """Tell which cells there are. Calls meanwhile are counted on. Requests of running dialogs also reach cells that
        are no longer named. Raises RpcError, SettingsError.
        """
        wanted = [CellAddress.of(cell) for cell in cells]
        async with self._telling:
            known = {
                cell.uri: Entry(cell.name, cell.uri, cell.calls_at_most, cell.state) for cell in await self._listed()
            }
            entries = cell_list.merge(wanted, known, _token)
            if {entry.uri: entry for entry in entries} == known:
                return
            self._kamailio.write({self._kamailio.places.cells.name: self._list(entries)})
            # Kamailio keeps the list before the last for whoever reads it; loading again too soon would free it.
            await asyncio.sleep(max(0.0, self._loaded_at + render.RELOAD_S + 0.1 - time.monotonic()))
            await self._kamailio.ask("dispatcher.reload")
            self._loaded_at = time.monotonic()

    def _list(self, entries: Sequence[Entry]) -> str:
        return cell_list.render(entries, f"udp:{outside.host(self._settings.inside)}:{self._settings.inside_port}")

    async def drain(self, on: bool) -> None:
        """New calls get 503 with Retry-After; running ones go on. Raises RpcError."""
        await self._kamailio.ask("htable.seti", "edge", "drain", int(on))
        self._draining = on

    async def _asked_drain(self) -> bool:
        return int(await self._asked("drain")) == 1

    async def _asked(self, name: str) -> str:
        """A value of Kamailio's table `edge`. Raises RpcError."""
        return str((await self._kamailio.ask("htable.get", "edge", name))["item"]["value"])

    async def alive(self, timeout_s: float = 1.0) -> bool:
        """It answers."""
        return self._kamailio.pid is not None and await self._kamailio.alive(timeout_s)

    async def exited(self) -> None:
        """Returns when Kamailio is gone (at once when none was started or adopted)."""
        await self._kamailio.exited()

    async def stop(self) -> None:
        """End Kamailio. Calls go on, but their ends find nobody until it is back. Idempotent."""
        await self._kamailio.stop()

    async def kill(self) -> None:
        """End a Kamailio that hangs, all its processes, at once."""
        await self._kamailio.kill()

    async def leave(self) -> None:
        """Let it run; the next supervisor adopts it."""
        await self._kamailio.leave()

    async def stats(self) -> dict[str, Any]:
        """The state in a few numbers. Raises RpcError."""
        state = await self.state()
        living = [cell for cell in state.cells if cell.state in ("active", "trying")]
        return {
            "draining": state.draining,
            "uptime_s": state.uptime_s,
            "calls": sum(cell.calls for cell in state.cells),
            "cells_living": len(living),
            "cells_dead": sum(cell.state == "inactive" for cell in state.cells),
            "room": sum(max(0, cell.calls_at_most - cell.calls) for cell in living),
            **state.counters,
        }

    async def state(self) -> EdgeState:
        """Raises RpcError."""
        uptime = await self._kamailio.ask("core.uptime")
        statistics = await self._kamailio.ask("stats.get_statistics", "all")
        counters = {}
        for line in statistics:
            name, _, value = line.partition(" = ")
            if name.startswith(_GROUPS):
                counters[name.replace(":", ".")] = int(value)
        return EdgeState(await self._listed(), await self._asked_drain(), int(uptime["uptime"]), counters)

    async def _listed(self) -> tuple[CellState, ...]:
        """Names and room from our file, states and counts from Kamailio: its full list of some hundred cells is more
        than it can answer in a datagram. Raises RpcError.
        """
        try:
            listed = await self._kamailio.ask("dispatcher.list", "short")
        except rpc.RpcError as problem:
            if _NO_CELLS in str(problem):
                return ()
            raise
        states = {
            destination["DEST"]["URI"]: _STATES.get(destination["DEST"]["FLAGS"][:1], "inactive")
            for record in listed.get("RECORDS", ())
            for destination in record["SET"]["TARGETS"]
        }
        loads = {
            item["name"]: int(item["value"])
            for slot in await self._kamailio.ask("htable.dump", "load")
            for item in slot["slot"]
        }
        try:
            entries = cell_list.parse(self._kamailio.places.cells.read_text())
        except OSError:
            entries = []
        return tuple(
            CellState(entry.name, entry.uri, states[entry.uri], loads.get(entry.name, 0), entry.calls)
            for entry in entries
            if entry.uri in states
        )


def _token() -> str:
    return secrets.token_hex(3)
