"""The JSON Schema is a valid one, takes what the loader takes and refuses what an editor should underline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sipserver import yaml_file
from sipserver.dialplan.schema import schema
from sipserver.dialplan.steps import STEPS
from tests.fakes.dialplans import report, written

DEMO = Path(__file__).parents[2] / "dialplans" / "demo.yaml"


def valid(value: Any) -> bool:
    return bool(Draft202012Validator(schema()).is_valid(value))


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_it_is_one_with_every_step() -> None:
    Draft202012Validator.check_schema(schema())


def test_the_demo_is_valid() -> None:
    assert valid(yaml_file.parse(DEMO).value)


@pytest.mark.parametrize(
    "step",
    [
        "answer",
        "answer:",
        "early",
        "say: Hello.",
        "say: 42",
        "say: {text: a, voice: b, interruptible: false, on: {failed: end}}",
        "collect: {digits: 2, on: {'42': end, none: end, other: next}}",
        "collect: {on: {none: end, other: next}}",
        "record",
        "record: pause",
        "record: {stereo: false}",
        "echo",
        "echo: 5",
        "set: {a: 1, b: text}",
        "when: {var: a, is: 1, then: end, else: next}",
        "when: {var: a, in: [1, b], then: end}",
        "when: {var: a, set: true, then: end}",
        "wait: 1.5",
        "hangup",
        "hangup: 486",
    ],
)
def test_what_loads_is_valid(step: str) -> None:
    text = written(f"main:\n  - {step}\n  - goto: end")
    assert report(text).errors == ()
    assert valid(yaml_file.parse_text(text, Path("x")).value)


@pytest.mark.parametrize(
    "step",
    [
        "answr",
        "say",
        "goto",
        "say: {txt: a}",
        "say: {text: a, on: {busy: end}}",
        "collect: {digits: 1}",
        "collect: {on: {none: end}}",
        "collect: {on: {none: end, other: end, done: end}}",
        "agent: ada",
        "record: begin",
        "hangup: {code: 486, on: {done: end}}",
        "{say: a, wait: 1}",
        "wait: long",
    ],
)
def test_what_an_editor_should_underline(step: str) -> None:
    assert not valid(yaml_file.parse_text(written(f"main:\n  - {step}"), Path("x")).value)


HEAD = (
    "agents: {ada: {prompt: x}}\ntargets: ['*']\nqueues: {sales: {agents: [201], strategy: all}}\n"
    "calendars: {x: {dates: 12-24}, y: {country: DE}}"
)


@pytest.mark.parametrize(
    "step",
    [
        "bridge: {to: +4930, from: '{from}', headers: {X-A: 1}, progress: local, on: {failed: end, answered: next}}",
        "transfer: {to: 100, mode: blind, on: {failed: end}}",
        "transfer: {to: 100, mode: warm, announce: a, accept: 1, on: {failed: end}}",
        "amd",
        "agent: {use: ada, transfer: {to: 100, keep: agent}, on: {failed: end}}",
        "transfer: {to: 100, mode: warm, announce: a, accept_by: voice, on: {failed: end}}",
        "amd: 3",
        "amd: {beep_s: 20, on: {beep: end}}",
        "conference: {room: a, pin: 4711, on: {failed: end}}",
        "queue: {name: sales, exit: '*', on: {failed: end, abandoned: end}}",
        "serve: sales",
        "voicemail: '{to}'",
        "voicemail: {box: a, transcript: false, on: {recorded: end}}",
        "stream: {url: 'wss://a.example/{to}', on: {failed: end}}",
        "stream: {url: ws://a, protocol: vonage, rate_hz: 8000, parameters: {a: 1}, on: {failed: end, silent: next}}",
        "stream: {url: ws://a, both: false, tracks: both, headers_env: {X-A: B}, on: {failed: end}}",
    ],
)
def test_steps_with_others_that_load_are_valid(step: str) -> None:
    text = written(f"main:\n  - {step}\n  - goto: end", head=HEAD)
    assert report(text).errors == ()
    assert valid(yaml_file.parse_text(text, Path("x")).value)


@pytest.mark.parametrize(
    "step",
    [
        "bridge",
        "bridge: +4930",
        "bridge: {to: 1, on: {failed: end, caller_gone: end}}",
        "bridge: {to: 1, progress: none, on: {failed: end}}",
        "transfer: {to: 1, mode: cold, on: {failed: end}}",
        "transfer: {to: 1, keep: agent, on: {failed: end}}",
        "transfer: {to: 1, mode: warm, announce: a, accept_by: nod, on: {failed: end}}",
        "amd: {on: {robot: end}}",
        "queue: {on: {failed: end}}",
        "stream: ws://a",
        "stream: {url: ws://a, protocol: sip, on: {failed: end}}",
        "stream: {url: ws://a, rate_hz: 11025, on: {failed: end}}",
        "voicemail",
    ],
)
def test_steps_with_others_that_an_editor_should_underline(step: str) -> None:
    assert not valid(yaml_file.parse_text(written(f"main:\n  - {step}"), Path("x")).value)


@pytest.mark.parametrize(
    "match",
    [
        "{to: '1*'}",
        "{to: [1, 2], hours: weekdays}",
        "{headers: {X-A: [a, b]}}",
        "{}",
        "{trunk: '!a', direction: inbound, percent: 20, load: < 80}",
    ],
)
def test_matches_are_one_value_or_a_list(match: str) -> None:
    text = written("main: [answer]", routes=f"- {{match: {match}, flow: main}}")
    assert report(text).errors == ()
    assert valid(yaml_file.parse_text(text, Path("x")).value)


@pytest.mark.parametrize(
    "match", ["{too: a}", "{to: []}", "{transport: sctp}", "a", "{percent: 101}", "{direction: up}"]
)
def test_other_matches_are_underlined(match: str) -> None:
    text = written("main: [answer]", routes=f"- {{match: {match}, flow: main}}")
    assert not valid(yaml_file.parse_text(text, Path("x")).value)


def test_every_step_is_described() -> None:
    definitions = schema()["$defs"]
    for word, step in STEPS.items():
        definition = definitions[f"step_{word}"]
        forms = definition.get("anyOf", [definition])
        assert all(form["description"] == " ".join((step.__doc__ or "").split()) for form in forms)
