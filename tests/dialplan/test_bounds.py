"""What is narrower than something, and what only looks so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.dialplan import globs
from sipserver.dialplan.bounds import Allowed, beyond, narrower, within
from sipserver.dialplan.match import Match
from tests.fakes.dialplans import plan

GLOB = st.text("ab*?", min_size=1, max_size=5)
LISTS = st.lists(
    st.builds(lambda bar, glob: f"{'!' if bar else ''}{glob}", st.booleans(), GLOB), min_size=1, max_size=3
)


@given(LISTS, LISTS, st.lists(st.text("abc", max_size=5), max_size=30))
def test_what_is_within_takes_nothing_else(inner: list[str], outer: list[str], values: list[str]) -> None:
    if within(inner, outer):
        for value in values:
            assert not globs.takes(tuple(inner), value) or globs.takes(tuple(outer), value), value


@pytest.mark.parametrize(
    ("inner", "outer", "is_so"),
    [
        (["+4930*"], ["+49*"], True),
        (["+49*"], ["+4930*"], False),
        (["+49301"], ["+49*", "+43*"], True),
        (["+49301", "+431"], ["+49*"], False),
        (["1?"], ["1*"], True),
        (["1*"], ["1?"], False),
        (None, ["1*"], False),
        (None, ["*"], True),
        (["!2"], ["1*"], False),
        (["1*"], ["1*", "!19"], False),
        (["1*", "!19", "!18"], ["1*", "!19"], True),
        (["[12]"], ["1*"], False),
        (["[12]"], ["[12]"], True),
        (["A"], ["a"], False),
    ],
)
def test_lists(inner: list[str] | None, outer: list[str], is_so: bool) -> None:
    assert within(inner, outer) is is_so


@pytest.mark.parametrize(
    ("match", "than", "is_so"),
    [
        ({"to": "1"}, {}, True),
        ({}, {"to": "1"}, False),
        ({"to": "1"}, {"to": "1", "trunk": "acme"}, False),
        ({"to": "1", "trunk": "acme"}, {"trunk": "acme"}, True),
        ({"to_host": "SIP.acme.example"}, {"to_host": "*.acme.example"}, True),
        ({"headers": {"X-Acme": "1"}}, {"headers": {"X-Acme": "*"}}, True),
        ({"headers": {"X-Other": "1"}}, {"headers": {"X-Acme": "*"}}, False),
        ({"headers": {"X-Acme": "!1"}}, {"headers": {"X-Acme": "*"}}, False),
        ({}, {"trunk": "*"}, False),
        ({"trunk": "ACME"}, {"trunk": "acme*"}, True),
        ({"source": "10.0.0.5"}, {"source": ["10.0.0.5", "10.0.0.6"]}, True),
        ({"source": "10.0.0.7"}, {"source": "10.0.0.5"}, False),
        ({"to": "1"}, {"to": "1", "hours": "weekdays"}, True),
    ],
)
def test_matches(match: dict[str, object], than: dict[str, object], is_so: bool) -> None:
    assert narrower(Match.model_validate(match), Match.model_validate(than)) is is_so


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://api.acme.example/x", True),
        ("https://API.acme.example:8443/x", True),
        ("https://acme.example.evil.example/", False),
        ("https://api.acme.example@evil.example/", False),
        ("https://evil.example/?api.acme.example", False),
        ("https://evil.example\\@api.acme.example/", False),
        ("https://{caller}.acme.example/", False),
        ("https://api.acme.example%2eevil.example/", False),
        ("http://127.0.0.1:6379/", False),
        ("http://[::1]/", False),
    ],
)
def test_servers(url: str, is_allowed: bool) -> None:
    tool = f"agents: {{a: {{prompt: p, http_tools: [{{name: t, description: d, url: '{url}'}}]}}}}"
    made = plan(
        "main: [{agent: {use: a, on: {failed: end}}}]", routes="- {match: {direction: outbound}, flow: main}", head=tool
    )
    errors = beyond(made, Allowed(hosts=("*.acme.example",)), None)
    assert [error.key for error in errors] == ([] if is_allowed else ["agents.a.http_tools[0].url"])


def test_a_tenant_of_whom_the_operator_says_nothing_gets_and_calls_nobody() -> None:
    made = plan("main: [{bridge: {to: '+4930', on: {failed: end}}}]", routes="- {match: {to: 1}, flow: main}")
    assert [error.key for error in beyond(made, Allowed(), None)] == ["routes[0].match", "flows.main[0].bridge.to"]
    assert beyond(made, Allowed(), made) == []
    assert beyond(made, Allowed(("1*",), ("+49*",)), None) == []


def test_an_environment_variable_goes_to_no_other_server() -> None:
    def streamed(host: str, name: str) -> str:
        return f"main: [{{stream: {{url: 'wss://{host}/', headers_env: {{X: {name}}}, on: {{failed: end}}}}}}]"

    def decided(host: str, name: str) -> str:
        return f"main: [{{decide: {{url: 'https://{host}/', secret_env: {name}, on: {{a: end, failed: end}}}}}}]"

    before = plan(decided("a.example", "TOKEN"))
    for host, name, count in (("a.example", "TOKEN", 0), ("a.example", "OTHER", 1), ("b.example", "TOKEN", 1)):
        assert len(beyond(plan(decided(host, name)), Allowed(hosts=("*",)), before)) == count
    assert beyond(plan(decided("b.example", "TOKEN")), Allowed(), before)
    before = plan(streamed("a.example", "TOKEN"))
    for host, name, count in (("a.example", "TOKEN", 0), ("a.example", "OTHER", 1), ("b.example", "TOKEN", 1)):
        assert len(beyond(plan(streamed(host, name)), Allowed(hosts=("*",)), before)) == count
