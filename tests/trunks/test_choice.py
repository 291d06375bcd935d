from __future__ import annotations

import pytest

from sipserver.errors import NotAllowed
from sipserver.trunks.choice import TrunkChoice
from tests.trunks.make import trunk

NUMBER = "+4930123456"


def _names(choice: TrunkChoice, to: str = NUMBER, **wish: object) -> list[str]:
    return [route.trunk for route in choice.routes(to, **wish)]  # type: ignore[arg-type]


def test_the_first_trunk_that_carries_the_number_and_then_its_failover() -> None:
    choice = TrunkChoice(
        (
            trunk("phones", host="", sources=["10.0.0.0/8"]),
            trunk("abroad", allow=["+33"]),
            trunk("main", failover=["second", "abroad", "main"]),
            trunk("second", failover=["third", "main"]),
            trunk("third"),
            trunk("other"),
        ),
        "sipserver",
    )
    assert _names(choice) == ["main", "second", "third"]
    assert _names(choice, "+33123456789") == ["abroad"]
    assert _names(choice, trunk="third") == ["third"]
    assert _names(choice, trunk="second") == ["second", "third", "main"]
    assert _names(choice, down={"main"}) == ["second", "third", "main"]
    assert _names(choice, down={"main", "second", "third"}) == ["main", "second", "third"]


def test_each_trunk_has_its_own_form_of_everything() -> None:
    choice = TrunkChoice(
        (
            trunk("a", host="a.example:5070", transport="tls", failover=["b"], caller={"user": "+49301"}),
            trunk("b", registrar="b.example", host="", country="DE", number_format="national", headers_out=[]),
        ),
        "sipserver",
    )
    first, second = choice.routes(NUMBER, from_user="030 999", from_display="Anna", headers={"X-Ticket": "7"})
    assert first.uri == "sip:+4930123456@a.example:5070;transport=tls"
    assert (first.from_uri, first.from_display, first.headers) == (
        "sip:030%20999@a.example",
        "Anna",
        {"X-Ticket": "7"},
    )
    assert second.uri == "sip:030123456@b.example"
    assert (second.from_uri, second.headers) == ("sip:030999@b.example", {})


def test_codes_of_a_pbx_are_escaped() -> None:
    choice = TrunkChoice((trunk("pbx", number_format="as_is"),), "sipserver")
    assert choice.routes("*21#")[0].uri == "sip:*21%23@pbx.example"


@pytest.mark.parametrize(
    ("to", "wish", "why"),
    [
        (NUMBER, {"trunk": "nobody"}, "no trunk is called nobody"),
        (NUMBER, {"trunk": "phones"}, "no host"),
        ("+499001123456", {}, "premium-rate"),
        ("+499001123456", {"trunk": "main"}, "premium-rate"),  # although its failover would carry it
        ("sip:+499001123456@main.example", {}, "premium-rate"),
        ("sip:%2B499001123456;x=y@main.example", {}, "premium-rate"),
        ("sip:+499001123456@192.0.2.1", {"trunk": "main"}, "premium-rate"),
        ("sip:a@b?Route=<sip:c>", {}, "URI headers"),
        ("sip:a@b;maddr=192.0.2.1", {}, "maddr"),
        ("sip:a@b\r\nRoute: x", {}, "only sip:user@host"),
        ("sips:a@b", {}, "only sip:user@host"),
    ],
)
def test_what_may_not_be_called_is_refused(to: str, wish: dict[str, str], why: str) -> None:
    choice = TrunkChoice(
        (
            trunk("phones", host="", sources=["10.0.0.0/8"]),
            trunk("main", failover=["dear"]),
            trunk("dear", allow=["+1"], premium=True),
        ),
        "sipserver",
    )
    with pytest.raises(NotAllowed, match=why):
        choice.routes(to, trunk=wish.get("trunk", ""))


def test_without_a_trunk_that_places_calls_only_addresses_can_be_called() -> None:
    choice = TrunkChoice((), "sipserver")
    with pytest.raises(NotAllowed, match="no trunk places calls"):
        choice.routes(NUMBER)
    (route,) = choice.routes("sip:echo@127.0.0.1:5080;transport=tcp", headers={"X-A": "1", "Route": "<sip:x>"})
    assert (route.uri, route.trunk, route.headers) == ("sip:echo@127.0.0.1:5080;transport=tcp", "", {"X-A": "1"})


def test_an_address_goes_by_the_trunk_that_owns_its_host() -> None:
    choice = TrunkChoice(
        (trunk("a", host="10.0.0.1:5070"), trunk("b", host="10.0.0.1:5071"), trunk("c", domain="acme.example")), "s"
    )
    assert _names(choice, "sip:200@10.0.0.1:5071") == ["b"]
    assert _names(choice, "sip:200@10.0.0.1") == ["a"]
    assert _names(choice, "sip:200@ACME.example") == ["c"]
    assert _names(choice, "sip:200@elsewhere.example") == [""]
    assert choice.routes("sip:200@elsewhere.example", trunk="b")[0].uri == "sip:200@elsewhere.example"
