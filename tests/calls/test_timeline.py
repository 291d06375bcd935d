"""A call on a time line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sipserver import events
from sipserver.calls import timeline
from sipserver.events import Event
from tests.calls.conftest import Stage

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    id: str = "0190"
    tenant: str | None = "acme"
    direction: str = "inbound"
    from_uri: str = "sip:alice@example.org"
    to_uri: str = "sip:demo@127.0.0.1"
    source: str = "127.0.0.1:5070"
    started_at: datetime = BEGAN
    answered_at: datetime | None = BEGAN + timedelta(milliseconds=300)
    ended_at: datetime | None = BEGAN + timedelta(seconds=12)
    end_reason: str | None = "caller_hangup"
    sip_code: int | None = 200
    recording_path: str | None = None
    recording_status: str | None = None


@dataclass(frozen=True)
class Happened:
    at_ms: int
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, at_ms: int, event: Event) -> Happened:
        return cls(at_ms, event.kind, event.fields())


def draw(*happened: Happened, private: bool = False) -> list[str]:
    return timeline.draw(Row(), happened, private=private)[4:]


def test_the_head_tells_the_call() -> None:
    assert timeline.head(Row(recording_path="/r/a.wav", recording_status="complete")) == [
        "call    0190  acme  inbound  2026-01-02 03:04:05",
        "from    sip:alice@example.org  to sip:demo@127.0.0.1  by 127.0.0.1:5070",
        "ended   caller_hangup (200), answered after 0.3 s, 12.0 s",
        "record  /r/a.wav (complete)",
    ]


def test_the_head_of_a_call_that_is_not_over() -> None:
    row = Row(tenant="", answered_at=None, ended_at=None, end_reason=None, sip_code=None)
    assert timeline.head(row)[0].split()[2:4] == ["no", "tenant"]
    assert timeline.head(row)[2] == "ended   no ending yet, not answered, still running or not closed"


def test_what_is_not_known_is_left_out() -> None:
    """By REST nobody tells a tenant, nor by what a call came."""
    assert timeline.head(Row(tenant=None, source=""))[:2] == [
        "call    0190  inbound  2026-01-02 03:04:05",
        "from    sip:alice@example.org  to sip:demo@127.0.0.1",
    ]
    assert [
        line[19:]
        for line in draw(
            Happened.of(0, events.CallStarted("outbound", "a", "b")),
            Happened.of(1, events.CallCarried("")),
            Happened.of(2, events.CallCarried("pbx")),
            Happened.of(3, events.PartyDialed("party-1", "200")),
            Happened.of(4, events.PartyDialed("party-1", "200", "pbx", 2)),
        )
    ] == [
        "outbound from a to b",
        "answered",
        "answered by pbx",
        "party-1: calling 200 (attempt 1)",
        "party-1: calling 200 by pbx (attempt 2)",
    ]


def test_events_stand_in_the_order_of_the_clock_with_steps_indented() -> None:
    assert draw(
        Happened.of(0, events.CallStarted("inbound", "a", "b", "c")),
        Happened.of(40, events.StepLeft("main", 0, "say", "done", 39)),
        Happened.of(1, events.StepEntered("main", 0, "say", 7)),
        Happened.of(20, events.Spoken("Hello you.", "Hello", 300, 700, False)),
        Happened.of(12_345, events.CallEnded("caller_hangup", 200)),
    ) == [
        "    0.000  call    inbound from a to b by c",
        "    0.001  step    main[0] say (line 7)",
        "    0.020  agent     “Hello” and no more of “Hello you.”  [300 of 700 ms]",
        "    0.040  step    main[0] say: done after 39 ms",
        "   12.345  call    ended: caller_hangup (200)",
    ]


def test_digits_are_masked_unless_asked_for() -> None:
    happened = (
        Happened.of(0, events.DigitReceived("4", "info")),
        Happened.of(1, events.DigitsSent("99")),
        Happened.of(2, events.VariableSet("digits", "4711")),
    )
    assert [line[19:] for line in draw(*happened)] == [
        "pressed * (info)",
        "sent the digits **",
        "digits = ****",
    ]
    assert [line[19:] for line in draw(*happened, private=True)] == [
        "pressed 4 (info)",
        "sent the digits 99",
        "digits = 4711",
    ]


def test_a_turn_and_its_latency() -> None:
    assert draw(
        Happened.of(0, events.Transcript("what time is it", True, "whisper", "en", 1600, 2, 61)),
        Happened.of(1, events.ClauseSynthesised("It is noon.", "piper", "joe", False, 64, 90, 800)),
        Happened.of(2, events.TurnLatency(608, 512, 91, 79, 181, 12, True)),
        Happened.of(3, events.Spoken("It is noon.", "It is noon.", 800, 800)),
    ) == [
        "    0.000  caller  “what time is it”  [whisper 2+61 ms for 1600 ms of speech]",
        "    0.001  agent   made “It is noon.”  [piper joe, first sound 64 ms, 800 ms of sound]",
        "    0.002  turn    first sound 608 ms after the caller"
        "  [endpoint 512, stt 91, llm 79, tts 181, playout 12, speculative]",
        "    0.003  agent   “It is noon.”  [heard, 800 ms]",
    ]


def test_what_a_stranger_sent_does_not_steer_the_terminal() -> None:
    (line,) = draw(Happened.of(0, events.Fault("sip", "evil\x1b]0;title\x07\r\nCSeq: 1")))
    assert line == "    0.000  FAULT   sip: evil·]0;title···CSeq: 1"


def test_kinds_and_fields_of_another_version_are_shown_as_they_are() -> None:
    assert draw(Happened(0, "future.thing", {"colour": "blue", "none": None}), Happened(1, "step.entered", {})) == [
        "    0.000  future  future.thing  colour=blue",
        "    0.001  step    ?[?] ? (line ?)",
    ]


@pytest.mark.parametrize("kind", events.KINDS.values(), ids=lambda each: each.__name__)
def test_every_event_has_words_of_its_own(kind: type[Event]) -> None:
    values: dict[str, Any] = {
        each.name: {"int": 7, "float": 1.5, "bool": True}.get(str(each.type).split(" |")[0], "word")
        for each in dataclasses.fields(kind)
    }
    (line,) = draw(Happened.of(0, kind(**values)), private=True)
    assert kind.kind in timeline.KINDS
    assert "?" not in line
    assert kind.kind not in line


async def test_a_real_call_can_be_drawn(stage: Stage) -> None:
    leg, _ = stage.call(
        "  main: [{say: Hello there.}, {collect: {timeout_s: 0.01, on: {none: bye, other: end}}}]\n  bye: [hangup]"
    )
    await stage.ended(leg)
    drawn = draw(*(Happened.of(stamped.at_ms, stamped.event) for stamped in stage.records.stamped))
    assert len(drawn) == len(stage.records.stamped)
    assert drawn[0].endswith("inbound from sip:alice@example.org to sip:demo@127.0.0.1 by 127.0.0.1:5070")
    assert drawn[-1].endswith("ended: dialplan_hangup (200)")
    assert not [line for line in drawn if "?" in line]
