from __future__ import annotations

import pytest

from sipserver.sip.admission import Admission


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("192.0.2.7:5060", True),
        ("192.0.3.7:5060", False),
        ("[2001:db8::1]:5060", True),
        ("nonsense", False),
        ("", False),
    ],
)
def test_only_known_networks_may_call(source: str, allowed: bool) -> None:
    admission = Admission(("192.0.2.0/24", "2001:db8::/32"), 1)
    refusal = admission.decide(source, 0)
    assert (refusal is None) is allowed
    if refusal is not None:
        assert (refusal.code, refusal.why, refusal.headers(5)) == (403, "source", {})


def test_without_networks_anyone_may() -> None:
    assert Admission((), 1).decide("anything", 0) is None


def test_limit_and_draining_are_counted() -> None:
    admission = Admission((), 2)
    assert admission.decide("x", 1) is None
    busy = admission.decide("x", 2)
    admission.draining = True
    draining = admission.decide("x", 0)
    assert busy is not None
    assert draining is not None
    assert (busy.code, busy.headers(5)) == (486, {"Retry-After": "5", "X-Sipserver-Refusal": "full"})
    assert (draining.code, draining.headers(7)) == (503, {"Retry-After": "7", "X-Sipserver-Refusal": "draining"})
    assert admission.refused == {"limit": 1, "draining": 1}
