"""The catalogue of events: every kind is there, described, with a schema that its events keep; the page is its page."""

from __future__ import annotations

import json

import jsonschema
import pytest

from sipserver import events
from sipserver.events import Event, catalogue
from tools.events_document import DOCUMENT


def test_the_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == catalogue.page(), "run: python -m tools.events_document"


def test_every_kind_is_there_once_and_in_order() -> None:
    told = json.loads(json.dumps(catalogue.document()))
    assert [each["kind"] for each in told["events"]] == sorted(events.KINDS)
    jsonschema.Draft202012Validator.check_schema(told["message"])


@pytest.mark.parametrize("made", events.KINDS.values(), ids=lambda made: str(made.kind))
def test_a_kind_is_described_and_its_example_is_one(made: type[Event]) -> None:
    told = catalogue.entry(made)
    assert told["version"] >= 1
    assert not told["description"].startswith(f"{made.__name__}("), "a class without words gets its signature"
    jsonschema.Draft202012Validator.check_schema(told["schema"])
    jsonschema.validate(told["example"], told["schema"])
    assert events.restore(made.kind, told["example"]) is not None
    assert set(told["private"]) <= set(told["schema"]["properties"])


def test_what_is_no_message_does_not_pass() -> None:
    event = {"kind": "call.ended", "seq": 3, "at_ms": 20, "fields": {"reason": "busy"}}
    jsonschema.validate(event, catalogue.message_schema())
    wrong = [{name: event[name] for name in event if name != missing} for missing in ("kind", "at_ms", "fields")]
    wrong += [{"kind": "call.ended", "tenant": "acme", "cursor": "e1.0"}, {"kind": "events.lost"}]
    for each in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(each, catalogue.message_schema())


def test_what_is_no_such_event_does_not_pass() -> None:
    schema = catalogue.fields_schema(events.CallEnded)
    for wrong in ({}, {"reason": 7}, {"reason": "busy", "sip_code": "486"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    jsonschema.validate({"reason": "busy", "of a later version": 1}, schema)
