"""Where calls may be sent to, whatever a caller or a header says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.dialplan.targets import Callee, allowed, allows_target, parse
from tests.fakes.dialplans import plan

BRIDGE = "bridge: {{to: '{to}', on: {{failed: end}}}}"


@pytest.mark.parametrize(
    ("text", "callee"),
    [
        ("100", Callee("100")),
        ("+49 (30) 123-4/5", Callee("+493012345")),
        ("tel:+49-30-1234", Callee("+49301234")),
        ("*21#", Callee("*21#")),
        ("anna.b", Callee("anna.b")),
        ("sip:100@PBX.example", Callee("100", "pbx.example")),
        ("sips:100@pbx.example:5071;transport=tls", Callee("100", "pbx.example:5071")),
        ("100@[2001:db8::1]:5060", Callee("100", "[2001:db8::1]:5060")),
        ("sip:%2B4930@pbx;user=phone", Callee("+4930", "pbx")),
        (" 100 ", Callee("100")),
    ],
)
def test_numbers_users_and_uris_are_targets(text: str, callee: Callee) -> None:
    assert parse(text) == callee


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip:pbx.example",
        "tel:+4930@pbx",
        "tel:+4930;phone-context=evil.example",
        "sip:100@pbx;maddr=192.0.2.66",
        "sip:100@pbx?Route=%3Csip:192.0.2.66%3E",
        "sip:100;x=1@pbx",
        "sip:100:password@pbx",
        "<sip:100@pbx>",
        "sip:100@pbx, sip:200@pbx",
        "sip:evil%40other@pbx",
        "sip:100%0d%0aVia@pbx",
        "100\r\nVia: x",
        "a b",
        "http://pbx/100",
        "sip:100@pbx:5060:1",
    ],
)
def test_what_is_none_or_leads_elsewhere_is_refused(text: str) -> None:
    assert parse(text) is None
    assert not allowed(("*", "*@*"), text)


@pytest.mark.parametrize(
    ("globs", "to", "may"),
    [
        (("+49*",), "+4930123", True),
        (("+49*",), "+49 30 123", True),
        (("+49*",), "004930123", False),
        (("+49*",), "sip:+4930@evil.example", False),
        (("*",), "sip:100@evil.example", False),
        (("*@pbx",), "100", False),
        (("*@pbx",), "sip:100@PBX", True),
        (("*@PBX",), "sip:100@pbx", True),
        (("*@pbx",), "sip:100@pbx.evil.example", False),
        (("*@pbx",), "sip:100@pbx:5070", False),
        (("*@pbx:*",), "sip:100@pbx:5070", True),
        (("1??@pbx",), "sip:200@pbx", False),
        (("+49*", "!+49900*"), "+49900123", False),
        (("*@*", "!+49900*"), "sip:+49900123@pbx", False),
        (("*@*", "!*@evil.example"), "sip:1@evil.example", False),
        (("*@*", "!*@evil.example"), "sip:1@pbx", True),
        (("a@*",), "a", False),
    ],
)
def test_globs_allow_and_bar(globs: tuple[str, ...], to: str, may: bool) -> None:
    assert allowed(globs, to) is may


def test_a_plan_with_targets_allows_those() -> None:
    found = plan(f"main: [{BRIDGE.format(to='100')}]", head="targets: [1*]")
    assert [allows_target(found, to) for to in ("100", "101", "200", "sip:100@pbx")] == [True, True, False, False]


def test_a_plan_without_targets_allows_what_stands_in_it() -> None:
    steps = [BRIDGE.format(to="+49 30 1"), BRIDGE.format(to="sip:7@pbx").replace("bridge", "transfer")]
    queue = "queue: {name: sales, on: {failed: end}}"
    found = plan(f"main: [{steps[0]}, {steps[1]}, {queue}]", head="queues: {sales: {agents: [201]}}")
    assert all(allows_target(found, to) for to in ("+49301", "7@PBX", "201"))
    assert not any(allows_target(found, to) for to in ("+49302", "7", "sip:7@pbx:99", "202", ""))


def test_a_plan_that_calls_nobody_allows_nobody() -> None:
    assert not allows_target(plan("main: [answer]"), "100")


@given(st.text(max_size=40))
def test_a_user_never_holds_what_begins_another_part_of_a_uri(text: str) -> None:
    for to in (text, f"sip:{text}@pbx", f"sip:1@{text}"):
        callee = parse(to)
        if callee is not None:
            assert not set(callee.user) & set("@;?:<> \r\n")
            assert not set(callee.host) & set("@;?<> \r\n")
            assert callee.user
