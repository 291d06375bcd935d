"""Who may call now: source networks, the limit of inbound calls, draining. Pure.

`decide` is asked on the sip thread and `draining` is set on the loop; each reads or writes one word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

REFUSAL_HEADER = "X-Sipserver-Refusal"
"""Tells the edge that this cell refused, and not the dialplan of the call."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """code: 0 for no answer at all. why: source | challenge | codec | trunk_pace | limit | draining | pace | ports |
    files, the key under which it is counted. kind: what the edge reads in `X-Sipserver-Refusal`, so that it tries
    another cell; empty where no cell would take the call. Those that have a kind pass and carry `Retry-After`. extra:
    more headers, a name as often as needed.
    """

    code: int
    why: str
    kind: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    def headers(self, retry_after_s: int) -> dict[str, str]:
        return {"Retry-After": str(retry_after_s), REFUSAL_HEADER: self.kind} if self.kind else {}


SOURCE = Refusal(403, "source")
SILENCE = Refusal(0, "source")
TRUNK_PACE = Refusal(503, "trunk_pace", extra=(("Retry-After", "1"),))
LIMIT = Refusal(486, "limit", "full")
DRAINING = Refusal(503, "draining", "draining")
PACE = Refusal(503, "pace", "full")
NO_PORTS = Refusal(503, "ports", "full")
NO_FILES = Refusal(503, "files", "full")


class Admission:
    """allow: networks that may call, empty for all. limit: inbound calls at a time."""

    def __init__(self, allow: Iterable[str], limit: int) -> None:
        self._networks = tuple(ip_network(network) for network in allow)
        self.limit = limit
        self.draining = False
        self.refused: Counter[str] = Counter()

    def decide(self, source: str, inbound: int) -> Refusal | None:
        """None to let the call in. source: host:port of the peer. inbound: calls that already are in. Counts
        refusals.
        """
        if not self._known(source):
            return self.counted(SOURCE)
        return self.crowded(inbound)

    def crowded(self, inbound: int, *, full: bool = False) -> Refusal | None:
        """The same without a look at the source. full: PJSIP has no slot left, whoever took it."""
        if self.draining:
            return self.counted(DRAINING)
        return self.counted(LIMIT) if full or inbound >= self.limit else None

    def counted(self, refusal: Refusal) -> Refusal:
        """Count a refusal that goes out."""
        self.refused[refusal.why] += 1
        return refusal

    def _known(self, source: str) -> bool:
        if not self._networks:
            return True
        try:
            address = ip_address(source.rpartition(":")[0].strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in self._networks)
