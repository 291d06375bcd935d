"""How many of what: from the settings and from what one PJSIP holds to cells and their ports. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sipserver.errors import SettingsError
from sipserver.settings import Settings

SPARE_CELLS = 1
"""At least one more place than cells, so that a cell can be replaced before the old one goes."""
MOST_SLOTS_A_CELL = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where a cell can live. rtp_ports: first (even) and last (odd), inclusive; no two slots share one."""

    index: int
    sip_port: int
    rtp_ports: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """inbound_calls: taken by a cell at a time; capacity: what its PJSIP holds, second legs included.
    slots: more than cells, for replacements, for places that something else has, and one for each gateway that takes
    calls: it calls telephones for them."""

    cells: int
    inbound_calls: int
    capacity: int
    slots: tuple[Slot, ...]
    gateways: int
    speech_workers: int

    @property
    def calls(self) -> int:
        return self.cells * self.inbound_calls


def make(settings: Settings, capacity: int, cores: int) -> Plan:
    """capacity: calls that one PJSIP holds. Raises SettingsError where a range of ports cannot hold the cells.

    Ranges are cut so that a whole second set of cells fits beside the first if there is room, and every cell gets up to
    twice the ports that its calls need: a port may still be held by a call that has just ended.
    """
    fleet, sip = settings.fleet, settings.sip
    inbound = min(sip.inbound_calls or max(1, capacity - 1), capacity)
    cells = -(-fleet.calls // inbound)
    gateways = fleet.gateways or cores
    homes = cells + (gateways if settings.calls_by_http else 0)
    needed = homes + SPARE_CELLS
    sip_ports = range(fleet.sip_ports[0], fleet.sip_ports[1] + 1)
    if len(sip_ports) < needed:
        raise SettingsError(
            f"{cells} cells for {fleet.calls} calls need {needed} ports (one more, so that a cell can be replaced, and "
            "one for each gateway that takes calls); "
            f"the range has {len(sip_ports)}",
            key="fleet.sip_ports",
        )
    first = sip.rtp_ports[0] + sip.rtp_ports[0] % 2
    pairs = max(0, (sip.rtp_ports[1] + 1 - first) // 2)
    if pairs < needed * capacity:
        raise SettingsError(
            f"{cells} cells of {capacity} calls need {needed * capacity * 2} ports, two a call (and one cell more, so "
            f"that a cell can be replaced); the range has {pairs * 2}",
            key="sip.rtp_ports",
        )
    width = min(max(capacity, pairs // (2 * homes)), 2 * capacity)
    if pairs // width < needed:
        width = capacity
    count = min(pairs // width, len(sip_ports), MOST_SLOTS_A_CELL * homes)
    slots = tuple(
        Slot(index, sip_ports[index], (first + 2 * width * index, first + 2 * width * (index + 1) - 1))
        for index in range(count)
    )
    return Plan(cells, inbound, capacity, slots, gateways, fleet.speech_workers)
