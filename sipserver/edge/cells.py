"""The list of cells that Kamailio's dispatcher reads, and the names by which their calls are counted.

Source: the dispatcher module's documentation, "Destination List File".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from sipserver.errors import SettingsError

SET = 1
"""The dispatcher's number for the set of all cells."""

DISABLED = 4
PROBED = 8
INACTIVE = 1
"""Flags of a destination: takes no new call by our order; is asked by OPTIONS; did not answer."""


@dataclass(frozen=True, slots=True)
class CellAddress:
    """One cell of any machine. maxload: calls at a time. draining: no new calls, but its dialogs' requests still pass.

    run: names the life of the process, so that the calls of one that died are not counted against its successor at the
    same address.
    """

    host: str
    port: int
    maxload: int
    draining: bool = False
    run: str = ""

    def __post_init__(self) -> None:
        try:
            ip_address(self.host)
        except ValueError:
            raise SettingsError(f"{self.host!r} is no address of a cell") from None
        if not 1 <= self.port <= 65_535 or self.maxload < 0:
            raise SettingsError(f"{self.host}:{self.port} with room for {self.maxload} is no cell")
        if not all(letter.isalnum() or letter in "-_" for letter in self.run) or not self.run.isascii():
            raise SettingsError(f"{self.run!r} is no name of a run")

    @property
    def uri(self) -> str:
        return f"sip:{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """Its `duid` in the dispatcher and its key in the table of loads."""
        return f"{self.host}:{self.port}" + (f":{self.run}" if self.run else "")


def render(cells: Iterable[CellAddress], socket: str, inactive: Collection[str] = ()) -> str:
    """The text of the list. socket: ours towards cells, `udp:host:port`. inactive: URIs known to be dead, which the
    probe brings back; all others count as alive until they prove dead.
    """
    lines = ["# Written by sipserver; changes here are lost."]
    for cell in cells:
        flags = PROBED | (DISABLED if cell.draining or not cell.maxload else 0)
        if cell.uri in inactive:
            flags |= INACTIVE
        lines.append(f"{SET} {cell.uri} {flags} 0 duid={cell.name};maxload={cell.maxload};socket={socket}")
    return "\n".join(lines) + "\n"
