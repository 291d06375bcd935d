"""All kinds of events, told to programs: description, JSON Schema and example of each, made of the events' classes.

Owns the form in which the kinds are told, as JSON and as a page of the documentation. Refuses to know who asks.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from sipserver.events import KINDS
from sipserver.events.base import Event

VERSION = 1
"""Of the catalogue: of what stands around the kinds."""

CALL_ID = "5f0c7a52-8f0e-4a52-9d3e-0d6a3b1c2e4f"
_NOT_ALWAYS = "Not there for who has a token, on a single server."
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_SAMPLES: Mapping[type, Any] = {str: "", int: 1, float: 0.5, bool: True}
_EXAMPLES: Mapping[str, Any] = {
    "agent": "sip:201@192.0.2.10",
    "answerer": "human",
    "arguments": '{"order": 7}',
    "audio_ms": 2100,
    "bit_rate": 24000,
    "box": "sales",
    "by": "party",
    "call": "c2d7f3a4-1b56-4c0f-8d1e-7a9b0c1d2e3f",
    "cause": "Normal call clearing",
    "clock_hz": 8000,
    "code": 200,
    "codec": "PCMU",
    "confidence": 0.93,
    "decision": "speech",
    "digit": "5",
    "digits": "123#",
    "direction": "inbound",
    "duration_ms": 160,
    "ended_by": "hangup",
    "engine": "whisper",
    "error": "no answer in 3 s",
    "flow": "main",
    "from_uri": "sip:+493012345@192.0.2.7",
    "heard": "We are open from nine to five.",
    "how": "refer",
    "jitter_ms": 0.4,
    "language": "en",
    "limit": 10,
    "line": 7,
    "method": "rfc4733",
    "mode": "attended",
    "mos": 4.4,
    "name": "order",
    "new": "answered",
    "next": "openai",
    "old": "ringing",
    "outcome": "answered",
    "pair": "host-relay",
    "part": "stt",
    "party": "party-1",
    "path": "/var/lib/sipserver/recordings/acme/2026-11-28/5f0c7a52.wav",
    "payload_type": 0,
    "peer": "192.0.2.7:5060",
    "probability": 0.97,
    "protocol": "voice",
    "queue": "support",
    "reason": "caller_hangup",
    "remote": "192.0.2.7:20000",
    "result": '{"state": "shipped"}',
    "room": "weekly",
    "round_trip_ms": 24.0,
    "route": 0,
    "scope": "tenant/acme",
    "sip_call_id": "a84b4c76e66710@192.0.2.7",
    "sip_code": 200,
    "source": "192.0.2.7:5060",
    "state": "connected",
    "step": "agent",
    "summary": "200 OK (INVITE)",
    "target": "sip:300@192.0.2.7",
    "telephone_event": 101,
    "text": "We are open from nine to five.",
    "to": "+493067890",
    "to_uri": "sip:100@192.0.2.1",
    "took_ms": 180,
    "trunk": "pbx",
    "uri": "sip:300@192.0.2.7",
    "url": "wss://bot.example.com/voice",
    "value": "7",
    "voice": "en-amy",
    "waited_ms": 12400,
    "watchdog": "agent_silent",
    "action": "retry",
    "where": "voicemail",
    "why": "to 100",
}
"""By the field's name; others have an example of their type."""


def document() -> dict[str, Any]:
    """The whole catalogue; JSON-able. `events` are in the order of their kinds."""
    return {"version": VERSION, "message": message_schema(), "events": list(map(entry, _in_order()))}


def entry(made: type[Event]) -> dict[str, Any]:
    """One kind. schema, example: of its `fields`. private: those that hold speech, digits or numbers."""
    return {
        "kind": made.kind,
        "version": made.version,
        "description": _description(made),
        "private": [each.name for each in dataclasses.fields(made) if each.metadata.get("private")],
        "schema": fields_schema(made),
        "example": example(made),
    }


def message_schema() -> dict[str, Any]:
    """Of what the event WebSocket sends, its words about itself included, and `GET /calls/{id}/events` lists (without
    call_id, tenant and cursor).
    """
    return {
        "$schema": _DIALECT,
        "type": "object",
        "properties": {
            "kind": {
                "type": "string",
                "description": "A kind of this catalogue; or `events.live`, `events.cursor` or `events.lost`, which "
                "are about the WebSocket and no events.",
            },
            "call_id": {"type": "string", "description": "Empty: it belongs to no call; seq and at_ms are 0 then."},
            "tenant": {"type": "string"},
            "seq": {
                "type": "integer",
                "minimum": 0,
                "description": f"The number of the event in its call. {_NOT_ALWAYS}",
            },
            "at_ms": {"type": "integer", "minimum": 0, "description": "Milliseconds since the call began."},
            "timestamp": {"type": ["string", "null"], "format": "date-time", "description": _NOT_ALWAYS},
            "fields": {"type": "object"},
            "cursor": {"type": "string", "description": f"Where to go on after a break. {_NOT_ALWAYS}"},
            "count": {"type": "integer", "minimum": 1, "description": "Of `events.lost`: how many were missed."},
        },
        "required": ["kind"],
        "anyOf": [
            {"required": ["at_ms", "fields"]},
            {"properties": {"kind": {"enum": ["events.live", "events.cursor"]}}, "required": ["tenant", "cursor"]},
            {"properties": {"kind": {"const": "events.lost"}}, "required": ["count"]},
        ],
    }


def fields_schema(made: type[Event]) -> dict[str, Any]:
    """JSON Schema of `fields`. Further fields may come with a later version of the server."""
    hints = get_type_hints(made)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for each in dataclasses.fields(made):
        properties[each.name] = {"type": _type(hints[each.name])}
        if each.metadata.get("private"):
            properties[each.name]["x-private"] = True
        if each.default is dataclasses.MISSING:
            required.append(each.name)
        else:
            properties[each.name]["default"] = each.default
    return {"$schema": _DIALECT, "type": "object", "properties": properties, "required": required}


def example(made: type[Event]) -> dict[str, Any]:
    """The `fields` of an event that might be."""
    hints = get_type_hints(made)
    return made(**{each.name: _sample(each, hints[each.name]) for each in dataclasses.fields(made)}).fields()


def page() -> str:
    """docs/events.md."""
    return "\n".join([*_HEAD, *(line for made in _in_order() for line in _section(made))])


def _in_order() -> list[type[Event]]:
    return [KINDS[kind] for kind in sorted(KINDS)]


def _description(made: type[Event]) -> str:
    return " ".join(inspect.cleandoc(made.__doc__ or "").split())


def _type(hint: Any) -> str | list[str]:
    """Raises KeyError for a type that has no place in an event."""
    if get_origin(hint) in (Union, types.UnionType):
        return [_TYPES[each] for each in get_args(hint)]
    return _TYPES[hint]


def _sample(field: dataclasses.Field[Any], hint: Any) -> Any:
    plain = next(iter(get_args(hint)), hint)
    known = _EXAMPLES.get(field.name)
    if type(known) is plain:
        return known
    return _SAMPLES[plain] if field.default in (dataclasses.MISSING, None) else field.default


_HEAD = (
    "# Events",
    "",
    "Everything that happens in a call is an event. This page is made of their classes (`python -m "
    "tools.events_document`); a running server tells the same as JSON, with a schema and an example of each: "
    "`GET /api/v1/events/catalogue`, for which no key is needed.",
    "",
    "The same events come by three ways, with the same `fields`:",
    "",
    "| way | form |",
    "|---|---|",
    "| [WebSocket](websockets.md#live-events) | `kind`, `call_id`, `tenant`, `seq`, `at_ms`, `timestamp`, "
    "`fields`, `cursor` |",
    "| [webhooks](webhooks.md) | `type` is the kind, `timestamp`; `data` has `call_id`, `tenant`, `seq`, `at_ms`, "
    "`fields` |",
    "| [REST](api.md), `GET /calls/{id}/events` | `seq`, `at_ms`, `kind`, `timestamp`, `fields` of one call |",
    "",
    "`seq` numbers the events of a call from 0. `at_ms` counts from the call's beginning, on a clock that does not "
    "jump; `timestamp` is the time of day. What is marked private holds speech, digits or phone numbers.",
    "",
    "A kind keeps its name and its fields. Further fields and kinds may come with any version: ignore what you do not "
    "know. The `version` of a kind grows when a field goes or changes its meaning.",
    "",
)


def _section(made: type[Event]) -> Iterator[str]:
    told = entry(made)
    yield f"## {told['kind']}"
    yield ""
    yield f"{told['description']} (version {told['version']})"
    yield ""
    yield "| field | type | example |"
    yield "|---|---|---|"
    for name, schema in told["schema"]["properties"].items():
        kind = schema["type"] if isinstance(schema["type"], str) else " or ".join(schema["type"])
        marks = f"{kind}, private" if name in told["private"] else kind
        yield f"| `{name}` | {marks} | {_shown(told['example'].get(name))} |"
    yield ""


def _shown(value: Any) -> str:
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
