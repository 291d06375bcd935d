"""What a call tells becomes entries of the journal: numbered, timed, and without a database in the process."""

from __future__ import annotations

import subprocess
import sys

from sipserver import events
from sipserver.calls.record import RecordSink
from sipserver.journal import Entry, Kind, micros
from sipserver.store.journal_sink import REMEMBERED, JournalSink
from tests.fakes.told import start, tell


class Journal:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.sink = JournalSink("here", "run1", self.entries.append, now=lambda: 100.5, clock=lambda: 7.0)


def test_a_call_is_told_in_order_with_numbers_of_its_own() -> None:
    journal = Journal()
    sink: RecordSink = journal.sink
    start(sink)
    start(sink, "c2")
    tell(sink, events.LegAnswered(), at_ms=5)
    sink.answered("c1")
    tell(sink, events.DigitReceived("1"), "c2", at_ms=6)
    tell(sink, events.DigitReceived("2"), at_ms=7)
    sink.recording(call_id="c1", path="/r/1.wav", status="recording")
    sink.ended(call_id="c1", reason="busy", sip_code=486)
    tell(sink, events.LegAnswered(), at_ms=9)
    assert [(entry.kind, entry.call_id, entry.fields.get("seq")) for entry in journal.entries] == [
        (Kind.OPENED, "c1", None),
        (Kind.OPENED, "c2", None),
        (Kind.EVENT, "c1", 0),
        (Kind.ANSWERED, "c1", None),
        (Kind.EVENT, "c2", 0),
        (Kind.EVENT, "c1", 1),
        (Kind.RECORDING, "c1", None),
        (Kind.CLOSED, "c1", None),
        (Kind.EVENT, "c1", 2),
    ]
    assert {(entry.node, entry.run) for entry in journal.entries} == {("here", "run1")}
    moments = [micros(entry.at) for entry in journal.entries if entry.kind is Kind.EVENT]
    assert moments == [100_500_000 + number for number in range(4)], "no two at the same moment"
    assert journal.entries[5].fields == {
        "tenant": "acme",
        "seq": 1,
        "at_ms": 7,
        "kind": "digit.received",
        "fields": {"digit": "2", "method": "rfc4733", "duration_ms": None},
    }
    assert journal.entries[7].fields == {"reason": "busy", "sip_code": 486}
    assert [Entry.decode(entry.encode()) for entry in journal.entries] == journal.entries


def test_what_is_told_of_unknown_or_long_ended_calls_is_counted() -> None:
    journal = Journal()
    sink = journal.sink
    sink.answered("nobody")
    sink.ended(call_id="nobody", reason="busy", sip_code=486)
    tell(sink, events.LegAnswered(), "nobody")
    start(sink, "c0")
    start(sink, "c0")
    assert (sink.strays, len(journal.entries)) == (4, 1)
    sink.ended(call_id="c0", reason="busy", sip_code=486)
    for number in range(1, REMEMBERED + 1):
        start(sink, f"c{number}")
        sink.ended(call_id=f"c{number}", reason="busy", sip_code=486)
    tell(sink, events.LegAnswered(), "c1")
    assert sink.strays == 4
    tell(sink, events.LegAnswered(), "c0")
    assert sink.strays == 5


def test_a_cell_gets_it_without_sqlalchemy() -> None:
    program = "import sys; import sipserver.store.journal_sink; print('sqlalchemy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "False"


def test_a_clock_that_is_set_back_ends_no_call_before_it_began() -> None:
    told: list[Entry] = []
    day, seconds = iter([1000.0, 400.0]), iter([50.0, 53.0])
    sink = JournalSink("here", "run1", told.append, now=lambda: next(day), clock=lambda: next(seconds))
    start(sink, "c1")
    sink.ended(call_id="c1", reason="caller_hangup", sip_code=200)
    assert [entry.at for entry in told] == [1000.0, 1003.0]
