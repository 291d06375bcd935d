"""Which calls a match takes, and what it says about those that it does not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from sipserver.dialplan.calendars import Calendar
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.match import Match, Setting, draw

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)  # a Monday
CALL = CallFacts.of(
    "sip:+4930123@pbx.example.com",
    "sip:ada@there",
    "192.0.2.7:5060",
    "udp",
    {"X-Account": "Gold-1", "Diversion": "<sip:100@pbx>"},
)


def match(**keys: Any) -> Match:
    return Match.model_validate({key.removesuffix("_"): value for key, value in keys.items()})


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"to": "+4930123"},
        {"to": "+4930*"},
        {"to": ["100", "+49*"]},
        {"from_": "a?a"},
        {"to_host": "PBX.*"},
        {"headers": {"x-account": "gold-*"}},
        {"headers": {"X-ACCOUNT": ["silver*", "gold*"], "diversion": "*"}},
        {"source": "192.0.2.0/24"},
        {"source": ["198.51.100.1", "192.0.2.7"]},
        {"transport": ["tcp", "udp"]},
        {"hours": "mon 10:00-11:00"},
        {"hours": ["weekends", "weekdays"]},
        {"to": "+49*", "from_": "ada", "source": "192.0.2.7", "hours": "weekdays"},
    ],
)
def test_all_keys_hold(keys: dict[str, Any]) -> None:
    assert match(**keys).miss(CALL, Setting(NOW)) == ""


@pytest.mark.parametrize(
    ("keys", "miss"),
    [
        ({"to": "+4930"}, "to +4930 does not match +4930123"),
        ({"from_": ["bob", "eve"]}, "from bob or eve does not match ada"),
        ({"from_": "ADA"}, "from ADA does not match ada"),
        ({"to_host": "other"}, "to_host other does not match pbx.example.com"),
        ({"headers": {"X-Account": "silver*"}}, "header X-Account silver* does not match Gold-1"),
        ({"headers": {"X-None": "*"}}, "header X-None * does not match nothing"),
        ({"source": "192.0.2.8/32"}, "source 192.0.2.8/32 does not match 192.0.2.7"),
        ({"source": "::/0"}, "source ::/0 does not match 192.0.2.7"),
        ({"transport": "tls"}, "transport tls does not match udp"),
        ({"hours": "weekends"}, "hours weekends does not match mon 10:30 UTC"),
        ({"to": "+49*", "hours": "weekends"}, "hours weekends does not match mon 10:30 UTC"),
    ],
)
def test_the_first_key_that_fails_is_named(keys: dict[str, Any], miss: str) -> None:
    assert match(**keys).miss(CALL, Setting(NOW)) == miss


def test_a_peer_without_an_address_is_in_no_network() -> None:
    assert match(source="0.0.0.0/0").miss(CallFacts("a", source="unix"), Setting(NOW))


def test_an_ipv4_peer_on_an_ipv6_socket_is_ipv4() -> None:
    assert match(source="192.0.2.0/24").miss(CallFacts("a", source="[::ffff:192.0.2.7]:5060"), Setting(NOW)) == ""


def test_the_match_in_one_line() -> None:
    assert match().why() == "always"
    assert match(to=["a", "b"], headers={"X-A": "1"}, hours="weekdays").why() == "to=a|b headers.X-A=1 hours=weekdays"


@pytest.mark.parametrize(
    "keys",
    [{"tos": "a"}, {"to": []}, {"to": ""}, {"source": "example.com"}, {"transport": "sctp"}, {"hours": "noon"}],
)
def test_what_cannot_match_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        match(**keys)


@pytest.mark.parametrize(
    ("keys", "facts", "miss"),
    [
        ({"trunk": "carrier*"}, {"trunk": "Carrier-1"}, ""),
        ({"trunk": "*"}, {"trunk": "a"}, ""),
        ({"trunk": "*"}, {}, "trunk * does not match nothing"),
        ({"trunk": "!a"}, {}, ""),
        ({"trunk": "!a"}, {"trunk": "a"}, "trunk !a does not match a"),
        ({"direction": "inbound"}, {}, ""),
        ({"direction": "outbound"}, {}, "direction outbound does not match inbound"),
        ({"direction": ["outbound", "inbound"]}, {"direction": "outbound"}, ""),
        ({"load": "< 80"}, {"load": 79.5}, ""),
        ({"load": "< 80"}, {"load": 80.0}, "load < 80 does not match 80 %"),
        ({"load": "<=80 %"}, {"load": 80.0}, ""),
        ({"load": "> 0"}, {}, "load > 0 does not match 0 %"),
        ({"load": ">= 33.5"}, {"load": 33.5}, ""),
    ],
)
def test_trunk_direction_and_load(keys: dict[str, Any], facts: dict[str, Any], miss: str) -> None:
    assert match(**keys).miss(CallFacts("100", **facts), Setting(NOW)) == miss


@pytest.mark.parametrize(
    ("keys", "miss"),
    [
        ({"to": ["+49*", "!+4989*"]}, ""),
        ({"to": ["+49*", "!+4930*"]}, "to +49* or !+4930* does not match +4930123"),
        ({"from_": "!bob"}, ""),
        ({"from_": "!a*"}, "from !a* does not match ada"),
        ({"to_host": "!PBX.*"}, "to_host !PBX.* does not match pbx.example.com"),
        ({"headers": {"X-Account": "!gold*"}}, "header X-Account !gold* does not match Gold-1"),
        ({"headers": {"X-None": "!*"}}, ""),
        ({"headers": {"Diversion": "!*"}}, "header Diversion !* does not match <sip:100@pbx>"),
        ({"source": ["192.0.2.0/24", "!192.0.2.7"]}, "source 192.0.2.0/24 or !192.0.2.7 does not match 192.0.2.7"),
        ({"source": "!198.51.100.0/24"}, ""),
        ({"hours": "!weekends"}, ""),
        (
            {"hours": ["weekdays", "!mon 10:00-11:00"]},
            "hours weekdays or !mon 10:00-11:00 does not match mon 10:30 UTC",
        ),
    ],
)
def test_what_an_exclamation_mark_leaves_out(keys: dict[str, Any], miss: str) -> None:
    assert match(**keys).miss(CALL, Setting(NOW)) == miss


@pytest.mark.parametrize(
    ("names", "day", "miss"),
    [
        ("festive", 24, ""),
        ("festive", 23, "calendar festive does not match 2026-12-23"),
        ("!festive", 23, ""),
        ("!festive", 24, "calendar !festive does not match 2026-12-24 (12-24)"),
        (["festive", "stock"], 30, ""),
        (
            ["stock", "!festive"],
            24,
            "calendar stock or !festive does not match 2026-12-24 (2026-12-20..2026-12-31, 12-24)",
        ),
        (["stock", "!festive"], 30, ""),
    ],
)
def test_days_of_calendars(names: Any, day: int, miss: str) -> None:
    calendars = {"festive": Calendar(dates=("12-24",)), "stock": Calendar(dates=("2026-12-20..2026-12-31",))}
    setting = Setting(datetime(2026, 12, day, 12, 0, tzinfo=UTC), calendars)
    assert match(calendar=names).miss(CALL, setting) == miss


def test_a_share_of_the_callers_is_the_share_that_it_says() -> None:
    taken = sum(not match(percent=20).miss(CallFacts("1", from_user=f"+4930{n}"), Setting(NOW)) for n in range(5_000))
    assert 900 < taken < 1_100
    assert match(percent=0).miss(CALL, Setting(NOW))
    assert not match(percent=100).miss(CALL, Setting(NOW))


def test_one_caller_always_gets_the_same_and_stays_when_the_share_grows() -> None:
    callers = [CallFacts("1", from_user=f"+4930{n}") for n in range(500)]

    def taken(percent: float, rollout: str = "acme/new") -> set[str]:
        setting = Setting(NOW, rollout=rollout)
        return {caller.from_user for caller in callers if not match(percent=percent).miss(caller, setting)}

    assert taken(20) == taken(20)
    assert taken(20) < taken(50)
    assert taken(20) != taken(20, "acme/other")


def test_the_place_of_a_caller_is_told() -> None:
    place = draw("acme/new", "ada")
    assert place == draw("acme/new", "ada")
    setting = Setting(NOW, rollout="acme/new")
    assert match(percent=place).miss(CALL, setting) == f"percent {place:g} does not match this caller's place {place:g}"


def test_the_new_keys_in_one_line() -> None:
    keys: dict[str, Any] = {"trunk": "a", "direction": "inbound", "calendar": "!b", "percent": 12.5, "load": "< 80"}
    assert match(**keys).why() == "trunk=a direction=inbound calendar=!b percent=12.5 load=< 80"
    assert match(percent=0).why() == "percent=0"


@pytest.mark.parametrize(
    "keys",
    [
        {"to": "!"},
        {"source": "!example.com"},
        {"hours": "!noon"},
        {"direction": "sideways"},
        {"percent": 101},
        {"percent": -1},
        {"load": 80},
        {"load": "80 %"},
        {"load": "< 120"},
        {"calendar": []},
    ],
)
def test_new_keys_that_cannot_match_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        match(**keys)
