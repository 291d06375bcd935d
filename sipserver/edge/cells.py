"""The list of cells that Kamailio's dispatcher reads, and the names by which their calls are counted.

Owns one line a cell, their order, and what becomes of a cell that is no longer wanted: its dialogs go on, so it stays
in the list and takes no new call. Pure. Source: the dispatcher module's documentation, "Destination List File".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import zip_longest
from typing import Protocol

from sipserver.errors import SettingsError

SET = 1
"""The dispatcher's number for the set of all cells."""

INACTIVE, DISABLED, PROBED = 1, 4, 8
"""Flags of a destination: did not answer; takes no new call by our order; is asked by OPTIONS."""

_LINE = re.compile(r"^\d+ (?P<uri>\S+) \d+ \d+ duid=(?P<name>[^;]+);maxload=(?P<calls>\d+);")
_RUN = re.compile(r"[A-Za-z0-9_-]*")


class AnyCell(Protocol):
    """What a list of cells is made of: CellAddress, or what the supervisor has."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def calls(self) -> int: ...


@dataclass(frozen=True, slots=True)
class CellAddress:
    """One cell of any machine. calls: how many it takes at a time. draining: no new ones, but its dialogs go on.

    run: names the life of the process, so that the calls of one that died are not counted against its successor at the
    same address. Empty: a cell that was away from the list and comes back counts as a new one.
    """

    host: str
    port: int
    calls: int
    draining: bool = False
    run: str = ""

    def __post_init__(self) -> None:
        try:
            ip_address(self.host)
        except ValueError:
            raise SettingsError(f"{self.host!r} is no address of a cell") from None
        if not 1 <= self.port <= 65_535 or self.calls < 0:
            raise SettingsError(f"{self.host}:{self.port} with room for {self.calls} is no cell")
        if not _RUN.fullmatch(self.run):
            raise SettingsError(f"{self.run!r} is no name of a run")

    @classmethod
    def of(cls, cell: AnyCell) -> CellAddress:
        """Raises SettingsError."""
        return cls(cell.host, cell.port, cell.calls, getattr(cell, "draining", False), getattr(cell, "run", ""))

    @property
    def uri(self) -> str:
        return f"sip:[{self.host}]:{self.port}" if ":" in self.host else f"sip:{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list. name: the key of its count of calls (`duid`). state: as Kamailio has it (CellState)."""

    name: str
    uri: str
    calls: int
    state: str = "active"

    @property
    def flags(self) -> int:
        return {"disabled": DISABLED, "inactive": INACTIVE | PROBED}.get(self.state, PROBED)


def merge(wanted: Iterable[CellAddress], known: Mapping[str, Entry], token: Callable[[], str]) -> list[Entry]:
    """The new list from what is wanted and what Kamailio has (by URI). token: names a life that has no name.

    A known cell keeps its name, and with it its count, and stays dead if it is; one that is not wanted any more is
    kept, disabled, since requests from outside reach no address that is not in the list.

    The cells of several machines come in turn: they are filled in this order, so the load is shared, and the cell that
    is tried after a silent one is another machine's.
    """
    entries: dict[str, Entry] = {}
    for cell in wanted:
        before = known.get(cell.uri)
        same = before is not None and before.state != "disabled" and cell.run in ("", _run_of(before.name))
        if before is not None and (same or cell.draining):
            name = before.name
        else:
            name = f"{cell.host.replace(':', '_')}:{cell.port}:{cell.run or token()}"
        state = "disabled" if cell.draining else before.state if before is not None and same else "active"
        entries[cell.uri] = Entry(name, cell.uri, cell.calls, state)
    for uri, before in known.items():
        if uri not in entries:
            entries[uri] = Entry(before.name, uri, before.calls, "disabled")
    return _in_turn(entries.values())


def _in_turn(entries: Iterable[Entry]) -> list[Entry]:
    """The first of each host, then the second of each, and so on; hosts in the order of their first cells."""
    hosts: dict[str, list[Entry]] = {}
    for entry in entries:
        hosts.setdefault(entry.uri.rpartition(":")[0], []).append(entry)
    return [entry for row in zip_longest(*hosts.values()) for entry in row if entry is not None]


def _run_of(name: str) -> str:
    return name.rpartition(":")[2]


def render(entries: Iterable[Entry], socket: str) -> str:
    """The text of the list, the first with the highest priority. socket: ours towards cells, `udp:host:port`."""
    listed = list(entries)
    lines = [
        f"{SET} {entry.uri} {entry.flags} {priority} duid={entry.name};maxload={entry.calls};socket={socket}"
        for priority, entry in zip(range(len(listed), 0, -1), listed, strict=True)
    ]
    return "\n".join(("# Written by sipserver; changes here are lost.", *lines, ""))


def parse(text: str) -> list[Entry]:
    """What `render` wrote, without the states, which only Kamailio knows."""
    found = (_LINE.match(line) for line in text.splitlines())
    return [Entry(match["name"], match["uri"], int(match["calls"])) for match in found if match]
