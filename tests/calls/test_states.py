"""The state table and the names of endings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sipserver.calls.states import SIP_CODES, TABLE, Change, EndReason, State, after, unanswered
from sipserver.errors import InternalError

ORDER = list(State)


@given(some.lists(some.sampled_from(Change), max_size=12))
def test_any_course_only_goes_forward_and_refuses_what_the_table_lacks(changes: list[Change]) -> None:
    state = State.RINGING
    for change in changes:
        if (state, change) not in TABLE:
            with pytest.raises(InternalError, match=f"{state} cannot {change}"):
                after(state, change)
            continue
        new = after(state, change)
        assert ORDER.index(new) > ORDER.index(state)
        assert state is not State.ENDED
        state = new


@pytest.mark.parametrize("state", [State.RINGING, State.EARLY, State.ANSWERED])
def test_every_living_state_leads_to_the_end(state: State) -> None:
    assert after(after(state, Change.END), Change.CLOSE) is State.ENDED


def test_every_reason_has_a_final_sip_answer() -> None:
    assert set(SIP_CODES) == set(EndReason)
    assert all(400 <= code <= 699 for code in SIP_CODES.values())


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (486, EndReason.BUSY),
        (600, EndReason.BUSY),
        (408, EndReason.NO_ANSWER),
        (480, EndReason.NO_ANSWER),
        (603, EndReason.DECLINED),
        (403, EndReason.DECLINED),
        (404, EndReason.CARRIER_FAILED),
        (302, EndReason.CARRIER_FAILED),
        (503, EndReason.CARRIER_FAILED),
        (0, EndReason.CARRIER_FAILED),
    ],
)
def test_a_call_that_nobody_answered_ends_for_what_the_far_end_said(status: int, reason: EndReason) -> None:
    assert unanswered(status) is reason
