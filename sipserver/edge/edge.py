"""The edge as the supervisor sees it: Kamailio with its cells, and whether it takes calls.

Owns the order of things: render, check, start or adopt, tell the cells, drain, look again. Refuses to own the media
relay's process (rtpengine.py).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipserver.edge import cells as cell_list
from sipserver.edge import kamailio, render, rpc
from sipserver.edge.cells import CellAddress
from sipserver.edge.settings import EdgeSettings, TrunkSettings
from sipserver.log import logger


@dataclass(frozen=True, slots=True)
class CellState:
    """state: `active`, `trying` (missed a probe), `inactive` (dead), `disabled` (draining). calls: on it, by our count."""

    name: str
    uri: str
    state: str
    calls: int
    maxload: int


@dataclass(frozen=True, slots=True)
class EdgeState:
    """cells: see CellState. draining: new calls get 503. counters: Kamailio's own, `group.name` -> value."""

    cells: tuple[CellState, ...]
    draining: bool
    uptime_s: int
    counters: Mapping[str, int]


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
        self._cells: tuple[CellAddress, ...] = ()
        self._draining = False
        self._reload = asyncio.Lock()
        self._loaded_at = 0.0
        self._log = logger("edge")

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
        texts = self.render()
        texts[self._kamailio.places.cells.name] = self._list()
        await self._kamailio.check(texts)

    async def start(self, cells: Sequence[CellAddress] | None = None) -> None:
        """Adopt a running one with the same configuration, or check and start one. It takes calls when this returns.

        cells: at once; None leaves the list that the folder has (an edge that died and comes back knows its cells).
        Raises SettingsError.
        """
        texts = self.render()
        if await self._kamailio.adopt():
            if self._differs(texts):
                self._log.info("the edge's configuration has changed: it is started anew; dialogs go on")
                await self._kamailio.stop()
            else:
                self._draining = await self._asked_drain()
        if self._kamailio.pid is None:
            await self._kamailio.check(texts)
            self._kamailio.write(texts)
            if cells is not None or not self._kamailio.places.cells.exists():
                self._cells = tuple(cells or ())
                self._kamailio.write({self._kamailio.places.cells.name: self._list()})
            await self._kamailio.start()
            self._loaded_at = time.monotonic()
            if self._draining:
                await self.drain(True)
        if cells is not None and tuple(cells) != self._cells:
            await self.set_cells(cells)

    async def adopt(self) -> bool:
        """Take over a running one as it is, to ask or to tell it something; `start` does more."""
        return await self._kamailio.adopt()

    def _differs(self, texts: Mapping[str, str]) -> bool:
        try:
            return any((self._settings.folder / name).read_text() != text for name, text in texts.items())
        except OSError:
            return True

    async def restart(self) -> None:
        """Stop what is left of it and start it with what it knew: cells and draining. Running dialogs go on."""
        await self._kamailio.stop()
        await self.start()

    async def set_cells(self, cells: Sequence[CellAddress]) -> None:
        """Tell which cells there are. Calls meanwhile are counted on. A cell that drains stays in the list until its
        calls are over, or their requests will not find it. Raises RpcError; the file is written all the same.
        """
        async with self._reload:
            self._cells = tuple(cells)
            dead = await self._dead()
            self._kamailio.write({self._kamailio.places.cells.name: self._list(dead)})
            # Kamailio keeps the list before the last for whoever reads it; loading again too soon would free it.
            await asyncio.sleep(max(0.0, self._loaded_at + render.RELOAD_S + 0.1 - time.monotonic()))
            await self._kamailio.ask("dispatcher.reload")
            self._loaded_at = time.monotonic()

    def _list(self, dead: Sequence[str] = ()) -> str:
        socket = f"udp:{render.host(self._settings.inside)}:{self._settings.inside_port}"
        return cell_list.render(self._cells, socket, dead)

    async def _dead(self) -> list[str]:
        """Those that do not answer now, so that loading the list does not send calls to them. A new run is not dead."""
        try:
            known = await self._listed()
        except rpc.RpcError:
            return []
        names = {cell.name for cell in self._cells}
        return [cell.uri for cell in known if cell.state in ("inactive", "trying") and cell.name in names]

    async def drain(self, on: bool) -> None:
        """New calls get 503 with Retry-After; running ones go on. Raises RpcError."""
        await self._kamailio.ask("htable.seti", "edge", "drain", int(on))
        self._draining = on

    async def _asked_drain(self) -> bool:
        found = await self._kamailio.ask("htable.get", "edge", "drain")
        return bool(found) and int(found["item"]["value"]) == 1

    async def alive(self, timeout_s: float = 1.0) -> bool:
        """It answers."""
        return self._kamailio.pid is not None and await self._kamailio.alive(timeout_s)

    async def exited(self) -> None:
        """Returns when Kamailio is gone (at once when none was started or adopted)."""
        await self._kamailio.exited()

    async def stop(self) -> None:
        """End Kamailio. Calls go on, but nobody hears their ends: drain first."""
        await self._kamailio.stop()

    async def leave(self) -> None:
        """Let it run; the next supervisor adopts it."""
        await self._kamailio.leave()

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
        listed = await self._kamailio.ask("dispatcher.list")
        loads = {}
        for slot in await self._kamailio.ask("htable.dump", "load"):
            for item in slot["slot"]:
                loads[item["name"]] = int(item["value"])
        return tuple(
            _cell(destination["DEST"], loads)
            for record in listed["RECORDS"]
            for destination in record["SET"]["TARGETS"]
        )


def _cell(destination: dict[str, Any], loads: Mapping[str, int]) -> CellState:
    attributes = destination["ATTRS"]
    return CellState(
        name=attributes["DUID"],
        uri=destination["URI"],
        state=_STATES.get(destination["FLAGS"][:1], "inactive"),
        calls=loads.get(attributes["DUID"], 0),
        maxload=int(attributes["MAXLOAD"]),
    )
