"""The states of a call as a table, and the names of its endings. Pure; refuses to know legs, tasks and clocks.

ringing ──early──▶ early ──answer──▶ answered
   │ └────────────answer───────────────▲ │
   └──────end──────┬──end──┘  ┌───end────┘
                   ▼          ▼
                 ending ────close───▶ ended
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sipserver.calls.outbound import Outcome, outcome_of
from sipserver.errors import InternalError


class State(enum.StrEnum):
    RINGING = "ringing"
    EARLY = "early"
    ANSWERED = "answered"
    ENDING = "ending"
    ENDED = "ended"


class Change(enum.StrEnum):
    """What moves a call from one state to the next."""

    EARLY = "early"
    ANSWER = "answer"
    END = "end"
    CLOSE = "close"


TABLE: dict[tuple[State, Change], State] = {
    (State.RINGING, Change.EARLY): State.EARLY,
    (State.RINGING, Change.ANSWER): State.ANSWERED,
    (State.RINGING, Change.END): State.ENDING,
    (State.EARLY, Change.ANSWER): State.ANSWERED,
    (State.EARLY, Change.END): State.ENDING,
    (State.ANSWERED, Change.END): State.ENDING,
    (State.ENDING, Change.CLOSE): State.ENDED,
}


def after(state: State, change: Change) -> State:
    """The state that follows. Raises InternalError for a change that the table does not know."""
    try:
        return TABLE[state, change]
    except KeyError:
        raise InternalError(f"a call that is {state} cannot {change}") from None


class EndReason(enum.StrEnum):
    """Every ending has a name; it stands in the call's record and in the metrics. Of calls that we place: whom we
    called hung up (callee_hangup), was busy, did not answer, declined, or could not be reached (carrier_failed).
    """

    CALLER_HANGUP = "caller_hangup"
    CALLEE_HANGUP = "callee_hangup"
    CANCELLED = "cancelled"
    DIALPLAN_HANGUP = "dialplan_hangup"
    OPERATOR_HANGUP = "operator_hangup"
    TRANSFERRED = "transferred"
    NO_ROUTE = "no_route"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    DECLINED = "declined"
    CARRIER_FAILED = "carrier_failed"
    REJECTED = "rejected"
    LIMIT = "limit"
    PROVIDER_FAILED = "provider_failed"
    SILENCE_WATCHDOG = "silence_watchdog"
    MAX_DURATION = "max_duration"
    MEDIA_TIMEOUT = "media_timeout"
    LEG_LOST = "leg_lost"
    DRAIN = "drain"
    CRASH = "crash"
    INTERNAL_ERROR = "internal_error"


SIP_CODES: dict[EndReason, int] = {
    EndReason.CALLER_HANGUP: 487,
    EndReason.CALLEE_HANGUP: 487,
    EndReason.CANCELLED: 487,
    EndReason.DIALPLAN_HANGUP: 603,
    EndReason.OPERATOR_HANGUP: 480,
    EndReason.TRANSFERRED: 603,
    EndReason.NO_ROUTE: 404,
    EndReason.BUSY: 486,
    EndReason.NO_ANSWER: 408,
    EndReason.DECLINED: 603,
    EndReason.CARRIER_FAILED: 503,
    EndReason.REJECTED: 603,
    EndReason.LIMIT: 486,
    EndReason.PROVIDER_FAILED: 503,
    EndReason.SILENCE_WATCHDOG: 480,
    EndReason.MAX_DURATION: 480,
    EndReason.MEDIA_TIMEOUT: 480,
    EndReason.LEG_LOST: 480,
    EndReason.DRAIN: 503,
    EndReason.CRASH: 500,
    EndReason.INTERNAL_ERROR: 500,
}
"""The final answer to an INVITE when the call ends for this reason before it was answered (RFC 3261, section 21). Of a
call that we place it stands in the record where the far end has given no other.
"""

_UNANSWERED: dict[Outcome, EndReason] = {
    Outcome.BUSY: EndReason.BUSY,
    Outcome.NO_ANSWER: EndReason.NO_ANSWER,
    Outcome.DECLINED: EndReason.DECLINED,
}


def unanswered(status: int) -> EndReason:
    """Why a call that we placed came to nothing, by the last final answer to its INVITE (0: there was none)."""
    return _UNANSWERED.get(outcome_of(status), EndReason.CARRIER_FAILED)


RETRY_AFTER_S = 5
_RETRY_LATER = frozenset({EndReason.LIMIT, EndReason.DRAIN})


@dataclass(frozen=True, slots=True)
class Ending:
    """code, phrase and headers: the final answer to the INVITE if there was none yet. refusal: why this cell does not
    take the call although another may (`full`); empty where no cell would. retry_after_s: of such that may be gone in a
    moment; 0: this one will not.
    """

    reason: EndReason
    detail: str
    code: int
    phrase: str
    refusal: str = ""
    retry_after_s: int = RETRY_AFTER_S

    @property
    def headers(self) -> dict[str, str] | None:
        """Retry-After for what may be gone in a moment (RFC 3261, section 20.33), and whether another cell may
        take the call, for the edge.
        """
        if self.reason not in _RETRY_LATER:
            return None
        refusal = self.refusal or ("draining" if self.reason is EndReason.DRAIN else "")
        later = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else {}
        return {**later, **({"X-Sipserver-Refusal": refusal} if refusal else {})}
