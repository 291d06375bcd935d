"""Calling somebody else: what the calls of a process need of whoever places calls, and what may come of it.

Declares the contract and maps answers to outcomes; refuses to know trunks, numbers and SIP.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sipserver.calls.leg import Leg


class Outcome(enum.StrEnum):
    """What became of an attempt to reach somebody. Steps branch on it; each is verified by what the far end said."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    DECLINED = "declined"
    FAILED = "failed"
    CALLER_GONE = "caller_gone"


@dataclass(frozen=True, slots=True)
class Order:
    """Whom to call. to: a number or a SIP URI. trunk: by name; empty: the first one that carries the number.

    from_user, from_display: who the far end shall see; what the trunk does not allow is replaced by its own. headers:
    those that the trunk lets out are sent. ring_s: how long it may ring, over all trunks together.
    """

    to: str
    trunk: str = ""
    from_user: str = ""
    from_display: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    ring_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """One INVITE that can be sent for an order. uri: its request URI. trunk: empty when it goes by none."""

    uri: str
    trunk: str = ""
    from_uri: str = ""
    from_display: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Outbound(Protocol):
    """Loop thread."""

    def ways(self, order: Order, tenant: str) -> Sequence[Way]:
        """The ways to carry the order, the preferred one first; never none. Raises CallerError (403) with the reason
        when the number is not allowed or no trunk carries it.
        """
        ...

    async def dial(self, way: Way, *, timeout_s: float) -> Leg:
        """Send the INVITE. Returns the leg at once: attach to it, then `await leg.answer()`. Without an answer it is
        cancelled after timeout_s and ends with 408. Raises CapacityError (no free leg in this cell), Draining,
        CarrierError.
        """
        ...


_BUSY = frozenset({486, 600})
_NO_ANSWER = frozenset({408, 480, 487})
_DECLINED = frozenset({401, 402, 403, 405, 406, 407, 433, 603, 607, 608})


def outcome_of(status: int) -> Outcome:
    """What a final SIP status means for whoever wanted to reach somebody (RFC 3261, section 21; RFC 8197, 8688)."""
    if 200 <= status < 300:
        return Outcome.ANSWERED
    if status in _BUSY:
        return Outcome.BUSY
    if status in _NO_ANSWER:
        return Outcome.NO_ANSWER
    return Outcome.DECLINED if status in _DECLINED else Outcome.FAILED


def tries_next(status: int) -> bool:
    """Whether the next trunk may carry what this one did not: transport failures (0), 408 from the network, 5xx."""
    return status in (0, 408) or 500 <= status < 600


_OURS_ALONE = frozenset({401, 407, 412, 420, 421, 422, 423, 428, 429, 436, 437, 438, 469, 470, 481, 489, 491, 493, 494})
"""What the far end said about our own request, or about a dialog that the caller has no part in."""


def answer_for(outcome: Outcome, status: int) -> int:
    """The final answer for a caller who waits for somebody who did not answer: status, where it tells the caller
    something (RFC 3261, section 21), otherwise what belongs to the outcome. 0 for one who was answered.
    """
    if outcome is Outcome.ANSWERED:
        return 0
    if outcome is Outcome.NO_ANSWER:
        return 480
    if 400 <= status < 700 and status not in _OURS_ALONE:
        return status
    return {Outcome.BUSY: 486, Outcome.DECLINED: 603}.get(outcome, 503 if status == 0 else 500)
