"""What a caller may see of its call: the messages, and what is kept from it."""

from __future__ import annotations

import json

import pytest

from sipserver import events
from sipserver.api.showing import shown
from sipserver.events import Event, Stamped


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (events.CallStateChanged("ringing", "answered"), {"kind": "call.state", "state": "answered"}),
        (events.CallRouted(1, "echo", "to=echo"), {"kind": "call.routed", "flow": "echo"}),
        (events.Transcript("hello", engine="whisper"), {"kind": "transcript", "text": "hello", "final": True}),
        (
            events.Spoken("good bye now", heard="good bye", complete=False),
            {"kind": "spoken", "text": "good bye", "complete": False},
        ),
        (
            events.TurnLatency(600, 400, 90, 80, 70, 20, speculative=True),
            {
                "kind": "turn.latency",
                "total_ms": 600,
                "endpoint_ms": 400,
                "stt_ms": 90,
                "llm_ms": 80,
                "tts_ms": 70,
                "playout_ms": 20,
            },
        ),
        (events.DigitReceived("5"), {"kind": "digit", "digit": "5"}),
        (events.RecordingStarted("/srv/calls/1.wav"), {"kind": "recording", "state": "started"}),
        (events.RecordingStopped("/srv/calls/1.wav", 16_000), {"kind": "recording", "state": "stopped"}),
        (events.ProviderFailed("llm", "openai", "401 key sk-1"), {"kind": "fault", "what": "llm failed"}),
        (events.WatchdogFired("agent_silent", "retry"), {"kind": "fault", "what": "agent_silent"}),
        (events.CallEnded("dialplan_hangup", 200), {"kind": "hangup", "reason": "dialplan_hangup"}),
    ],
)
def test_an_event_becomes_a_small_message(event: Event, message: dict[str, object]) -> None:
    told = shown(Stamped("c1", "acme", 1234, event))
    assert told == {**message, "at_ms": 1234}
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    "event",
    [
        events.CallStarted("inbound", from_uri="sip:49301234@example.com", source="192.0.2.1:5060"),
        events.VariableSet("pin", "1234"),
        events.SipMessage("received", "INVITE", text="INVITE sip:a@b"),
        events.LegDisconnected(200, "hung up", by_peer=True),
    ],
    ids=lambda event: event.kind,
)
def test_what_is_not_for_the_caller_is_not_shown(event: Event) -> None:
    assert shown(Stamped("c1", "acme", 0, event)) is None
