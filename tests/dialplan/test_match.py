"""Which calls a match takes, and what it says about those that it does not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.match import Match, Setting

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
