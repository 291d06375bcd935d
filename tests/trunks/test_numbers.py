from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.errors import NotAllowed
from sipserver.trunks import numbers
from tests.trunks.make import trunk


@pytest.mark.parametrize(
    ("to", "facts", "dialled"),
    [
        ("+49 30 12345-6", {}, "+4930123456"),
        ("tel:+4930123456;phone-context=x", {}, "+4930123456"),
        ("(030) 123/456", {"country": "DE"}, "+4930123456"),
        ("0049 30 123456", {"country": "DE"}, "+4930123456"),
        ("030123456", {"country": "DE", "number_format": "e164"}, "4930123456"),
        ("+4930123456", {"country": "DE", "number_format": "national"}, "030123456"),
        ("+33123456789", {"country": "DE", "number_format": "national"}, "0033123456789"),
        ("+390612345678", {"country": "IT", "number_format": "national"}, "0612345678"),
        ("030 123456", {"country": "DE", "number_format": "as_is"}, "030123456"),
        ("200", {"number_format": "as_is"}, "200"),
        ("*21#", {"number_format": "as_is"}, "*21#"),
        ("bob.smith", {"number_format": "as_is"}, "bob.smith"),
        ("112", {"country": "DE", "allow": ["112"]}, "112"),
        ("112", {"country": "DE", "allow": ["112"], "number_format": "national"}, "112"),
        ("116117", {"country": "DE", "allow": ["116117", "+49"]}, "116117"),
        ("+18005551212", {}, "+18005551212"),
        ("+4930123456", {"allow": ["+4930"], "deny": ["+49"]}, "+4930123456"),
        ("+499001123456", {"premium": True}, "+499001123456"),
        ("+499001123456", {"allow": ["+49900"]}, "+499001123456"),
        ("+881612345678", {"allow": ["+881"]}, "+881612345678"),
    ],
)
def test_a_number_is_dialled_as_the_peer_wants_it(to: str, facts: dict[str, Any], dialled: str) -> None:
    assert numbers.dialled(to, trunk(**facts)) == dialled


@pytest.mark.parametrize(
    ("to", "facts", "why"),
    [
        ("030123456", {}, "international form"),
        ("somebody", {}, "neither"),
        ("+1800FLOWERS", {}, "neither"),
        ("", {}, "neither"),
        ("+4", {}, "international form"),
        ("200", {"country": "DE"}, "short ones only"),
        ("*21#", {"country": "DE"}, "short ones only"),
        ("112", {"country": "DE"}, "emergency"),
        ("112", {"country": "DE", "number_format": "as_is"}, "emergency"),
        ("110", {"country": "DE", "allow": ["112"]}, "emergency"),
        ("+49112", {"country": "DE"}, "short ones only"),
        ("11833", {"country": "DE"}, "short ones only"),
        ("+4911833", {}, "short ones only"),
        ("+49112", {"number_format": "as_is"}, "impossible length"),
        ("201", {"number_format": "as_is", "allow": ["200"]}, "no `allow`"),
        ("200", {"number_format": "as_is", "deny": ["20"]}, "a `deny`"),
        ("+4930123456", {"deny": ["+4930"], "allow": ["+49"]}, "a `deny`"),
        ("+4930123456", {"deny": ["+49"], "allow": ["+49"]}, "a `deny`"),
        ("+33123456789", {"allow": ["+49"]}, "no `allow`"),
        ("+499001123456", {"allow": ["+49"]}, "premium-rate"),
        ("0900 1 123456", {"country": "DE"}, "premium-rate"),
        ("+4990012", {}, "premium-rate"),  # too short, and a carrier might put it through all the same
        ("+4990011234567890", {}, "premium-rate"),
        ("+491801234567", {}, "shared-cost"),
        ("+979123456789", {}, "premium-rate"),
        ("+80812345678", {}, "shared-cost"),
        ("+881612345678", {"allow": ["+8"]}, "satellite"),
        ("+8821612345678", {}, "satellite"),
        ("+870773111632", {}, "satellite"),
        ("+883510012345", {}, "satellite"),
        ("+19005551212", {"allow": ["+1"]}, "premium-rate"),
    ],
)
def test_a_number_is_refused_with_the_rule_and_without_the_number(to: str, facts: dict[str, Any], why: str) -> None:
    with pytest.raises(NotAllowed, match=why) as refusal:
        numbers.dialled(to, trunk(**facts))
    assert refusal.value.sip_code == 403
    assert not to[4:] or to not in str(refusal.value)


@given(st.text(max_size=30))
def test_any_text_is_dialled_or_refused(to: str) -> None:
    try:
        dialled = numbers.dialled(to, trunk(country="DE"))
    except NotAllowed:
        return
    assert set(dialled) <= set("+0123456789")


def test_the_number_in_an_address_is_checked_and_a_name_is_not() -> None:
    carrier = trunk(country="DE")
    for user in ("alice", "200", "+4930123456", "anna.lena"):
        numbers.check(user, carrier)
    for user in ("+499001123456", "09001123456", "112"):
        with pytest.raises(NotAllowed):
            numbers.check(user, carrier)


def test_a_callers_number_is_shown_in_the_form_of_the_peer() -> None:
    assert numbers.shown("+4930123456", trunk(country="DE", number_format="national")) == "030123456"
    assert numbers.shown("030123456", trunk(country="DE")) == "+4930123456"
    assert numbers.shown("alice", trunk(country="DE")) == "alice"
    assert numbers.shown("200", trunk(country="DE")) == "200"
    assert numbers.shown("030 123", trunk(number_format="as_is")) == "030 123"
