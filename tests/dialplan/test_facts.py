"""Users and hosts out of URIs, and the variables of a new call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.dialplan.facts import BUILT_IN, CallFacts, split_uri


@pytest.mark.parametrize(
    ("uri", "user", "host"),
    [
        ("sip:demo@127.0.0.1:5060;transport=udp", "demo", "127.0.0.1"),
        ('"Ada Lovelace" <sip:+4930123@Example.COM>;tag=1', "+4930123", "example.com"),
        ('"Bank <sip:1@bank>" <sip:2@carrier>;tag=1', "2", "carrier"),
        ('sip:2"<sip:1@bank>@carrier', '2"<sip', "bank"),
        ('"Bank \\" <sip:1@bank>" <sip:2@carrier>', "2", "carrier"),
        ("sips:100@[2001:db8::1]:5061", "100", "2001:db8::1"),
        ("sip:ada:secret@pbx", "ada", "pbx"),
        ("sip:+4930;phone-context=x@pbx;user=phone", "+4930", "pbx"),
        ("sip:a%20b@pbx", "a b", "pbx"),
        ("sip:pbx.example.com", "", "pbx.example.com"),
        ("tel:+4930123;phone-context=example.com", "+4930123", ""),
        ("demo", "demo", ""),
        ("+4930123", "+4930123", ""),
        ("", "", ""),
    ],
)
def test_uris(uri: str, user: str, host: str) -> None:
    assert split_uri(uri) == (user, host)


@given(st.text())
def test_no_uri_raises(uri: str) -> None:
    facts = CallFacts.of(uri, uri, uri)
    assert facts.variables()["source"] == facts.source_host


@pytest.mark.parametrize(
    ("source", "host"),
    [("192.0.2.1:5060", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("[::1]:5060", "::1"), ("::1", "::1"), ("", "")],
)
def test_the_source_without_its_port(source: str, host: str) -> None:
    assert CallFacts("a", source=source).source_host == host


def test_a_call_knows_its_parties_and_headers() -> None:
    facts = CallFacts.of("sip:demo@here", "sip:ada@there", "192.0.2.1:5060", "TCP", {"X-Account": "42"})
    variables = facts.variables()
    assert variables == {
        "from": "ada",
        "from_host": "there",
        "to": "demo",
        "to_host": "here",
        "source": "192.0.2.1",
        "transport": "tcp",
        "trunk": "",
        "direction": "inbound",
        "header.x-account": "42",
    }
    assert variables.keys() - {"header.x-account"} <= BUILT_IN
