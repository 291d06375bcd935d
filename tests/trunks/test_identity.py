from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sipserver.trunks.identity import address, identity, let_in, let_out
from tests.trunks.make import trunk


def test_without_a_wish_the_trunks_own_identity_is_shown() -> None:
    assert identity(trunk(), "sipserver").uri == "sip:sipserver@carrier.example"
    own = identity(trunk(caller={"user": "+4930123", "display": "Acme"}), "sipserver")
    assert (own.uri, own.display, own.headers) == ("sip:+4930123@carrier.example", "Acme", {})


def test_a_wish_is_granted_only_if_the_trunk_allows_it() -> None:
    carrier = trunk(country="DE", caller={"user": "+49301", "display": "Acme", "allow": ["+4930*", "reception"]})
    assert identity(carrier, "x", "030 123456", "Anna").uri == "sip:+4930123456@carrier.example"
    assert identity(carrier, "x", "reception").uri == "sip:reception@carrier.example"
    strange = identity(carrier, "x", "+4989123456", "The Bank")
    assert (strange.uri, strange.display) == ("sip:+49301@carrier.example", "Acme")


def test_the_domain_of_the_settings_wins_and_a_port_is_not_part_of_it() -> None:
    assert identity(trunk(host="pbx:5070"), "a").uri == "sip:a@pbx"
    assert identity(trunk(host="[::1]:5070"), "a").uri == "sip:a@[::1]"
    assert identity(trunk(host="[::1]"), "a").uri == "sip:a@[::1]"
    assert identity(trunk(host="pbx", domain="acme.example:5070"), "a").uri == "sip:a@acme.example:5070"


def test_a_hidden_caller_is_anonymous_and_known_only_to_a_peer_that_trusts_us() -> None:
    hidden = identity(trunk(caller={"user": "+4930123456", "privacy": "id", "display": "Acme"}), "x")
    assert (hidden.uri, hidden.display) == ("sip:anonymous@anonymous.invalid", "Anonymous")
    assert hidden.headers == {"Privacy": "id"}
    asserted = identity(trunk(caller={"user": "+4930123456", "asserted": True, "display": 'A "B"'}), "x", "anonymous")
    assert asserted.headers == {
        "P-Asserted-Identity": '"A \\"B\\"" <sip:+4930123456@carrier.example>',
        "Privacy": "id",
    }


@given(st.text(), st.text())
def test_no_wish_can_begin_a_header(user: str, display: str) -> None:
    shown = identity(trunk(caller={"asserted": True}), "x", user, display)
    for text in (shown.uri, shown.display, address(shown.uri, shown.display), *shown.headers.values()):
        assert not set(text) & set("\r\n\0")
    assert not set(shown.uri) & set(' <>"@') - {"@"}
    assert shown.uri.count("@") == 1


def test_only_listed_headers_go_out_and_never_those_of_the_dialog() -> None:
    asked = {
        "X-Ticket": "7",
        "User-to-User": "abc",
        "P-Asserted-Identity": "<sip:boss@acme>",
        "Route": "<sip:evil>",
        "X-Sipserver-Trunk": "other",
        "X-Bad\r\nRoute": "x",
        "X-Split": "a\r\nRoute: <sip:evil>",
        "X-Long": "y" * 5000,
    }
    sent = let_out(asked, ("*",))
    assert sent == {
        "X-Ticket": "7",
        "User-to-User": "abc",
        "X-Split": "a Route: <sip:evil>",
        "X-Long": "y" * 1024,
    }
    assert let_out(asked, ("x-t*",)) == {"X-Ticket": "7"}
    assert let_out(asked, ()) == {}


def test_only_listed_headers_come_in() -> None:
    told = {"diversion": "<sip:1>", "x-ticket": "7"}
    assert let_in(told, ("*",)) == told
    assert let_in(told, ("X-*",)) == {"x-ticket": "7"}
    assert let_in(told, ()) == {}
