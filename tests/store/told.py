"""The journal of a few calls, as one or several processes would have told it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from sipserver import events
from sipserver.journal import Entry, Kind
from sipserver.store.journal_sink import JournalSink
from tests.fakes.told import start, tell


def clock(first: float = 1_790_000_000.25) -> Callable[[], float]:
    """A second later at every look."""
    moments = itertools.count(first)
    return lambda: next(moments)


def seconds() -> Callable[[], float]:
    """The same for how long a call is up: it is asked once for every entry."""
    return clock(0.0)


def one_call(call_id: str = "c1", *, node: str = "one", run: str = "r1", digits: int = 3) -> list[Entry]:
    """From its beginning to its end; `digits` + 5 events."""
    told: list[Entry] = []
    sink = JournalSink(node, run, told.append, now=clock(), clock=seconds())
    start(sink, call_id)
    tell(sink, events.CallStarted("inbound"), call_id)
    tell(sink, events.CallRouted(2, "main"), call_id, at_ms=1)
    sink.answered(call_id)
    tell(sink, events.CallStateChanged("ringing", "answered"), call_id, at_ms=2)
    sink.recording(call_id=call_id, path=f"/nowhere/{call_id}.wav", status="recording")
    for number in range(digits):
        tell(sink, events.DigitReceived(str(number % 10)), call_id, at_ms=100 + number)
    tell(sink, events.Fault("tape", "full"), call_id, at_ms=900)
    sink.recording(call_id=call_id, path=f"/nowhere/{call_id}.wav", status="complete")
    tell(sink, events.CallEnded("caller_hangup", 200), call_id, at_ms=1000)
    sink.ended(call_id=call_id, reason="caller_hangup", sip_code=200)
    return told


def unfinished(call_id: str = "c1", *, node: str = "one", run: str = "r1") -> list[Entry]:
    """The process died after the third digit, while it recorded."""
    told = one_call(call_id, node=node, run=run)
    return told[: [entry.fields.get("kind") for entry in told].index("fault.other")]


def gone(run: str = "r1", node: str = "one") -> Entry:
    return Entry(Kind.RUN_GONE, node, run, "", 1_790_000_100.0, {"detail": "SIGKILL"})


def mixed(*calls: Sequence[Entry]) -> list[Entry]:
    """Taken in turn, as processes that tell at the same time."""
    return [entry for turn in itertools.zip_longest(*calls) for entry in turn if entry is not None]
