"""Events survive the way to another process."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_type_hints

import pytest

from sipserver import events
from sipserver.events import Event

SAMPLES: dict[Any, Any] = {
    int: 7,
    str: "x",
    bool: True,
    float: 0.5,
    int | None: None,
    float | None: 1.5,
    bool | None: False,
}


def _sample(made: type[Event]) -> Event:
    hints = get_type_hints(made)
    return made(**{field.name: SAMPLES[hints[field.name]] for field in dataclasses.fields(made)})


@pytest.mark.parametrize("made", events.KINDS.values(), ids=lambda made: str(made.kind))
def test_an_event_is_restored_from_its_json(made: type[Event]) -> None:
    event = _sample(made)
    assert events.restore(event.kind, json.loads(json.dumps(event.fields()))) == event


def test_kinds_are_unique() -> None:
    made = [each for each in vars(events).values() if isinstance(each, type) and issubclass(each, Event)]
    assert len(made) == len(events.KINDS) + 2  # Event and LegEvent themselves


def test_what_this_version_does_not_know_is_no_event() -> None:
    assert events.restore("call.from_the_future", {}) is None
    assert events.restore("call.ended", {"a_field_from_the_future": 1}) is None
