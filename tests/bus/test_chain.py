"""Which event came before: of the same run and tenant, whatever else a process tells."""

from __future__ import annotations

from sipserver.bus.chain import Chain
from sipserver.journal import Entry, Kind


def entry(run: str, at: float, tenant: str = "acme", kind: Kind = Kind.EVENT) -> Entry:
    return Entry(kind, "one", run, "c1", at, {"tenant": tenant})


def test_events_of_a_run_and_of_what_belongs_to_no_call_do_not_wait_for_each_other() -> None:
    chain = Chain()
    assert chain.link(entry("calls", 1.0)) == ("acme", 0)
    assert chain.link(entry("beside", 2.0)) == ("acme", 0)
    assert chain.link(entry("calls", 3.0)) == ("acme", 1_000_000)
    assert chain.link(entry("calls", 3.5, "zenith")) == ("zenith", 0)
    assert chain.link(entry("beside", 4.0)) == ("acme", 2_000_000)
    assert chain.link(entry("calls", 5.0, kind=Kind.CLOSED)) is None
    assert chain.link(entry("calls", 6.0, "")) is None
