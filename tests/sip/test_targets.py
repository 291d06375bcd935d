"""Whom a trunk may have us call: what Refer-To says, as PJSIP reads it."""

from __future__ import annotations

import pytest

from sipserver.sip.targets import allowed

REPLACES = "Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2"


@pytest.mark.parametrize(
    "target",
    [
        "sip:200@pbx",
        "<sip:200@PBX>",
        '"Anna \\"the boss\\" <sales>" <SIP:200@pbx;transport=tcp;user=phone>',
        "Anna Lovelace <sip:200@pbx>",
        f"<sip:200@pbx?{REPLACES}>",
        f"<sip:200@pbx?{REPLACES}&Require=replaces>",
        "<sip:%32%30%30@pbx>",
    ],
)
@pytest.mark.parametrize("glob", ["200", "2??", "200@pbx", "*@pbx"])
def test_whom_the_list_names(target: str, glob: str) -> None:
    assert allowed((glob,), target)


def test_numbers_ports_and_addresses() -> None:
    assert allowed(("+49*",), "<tel:+49-30-1;phone-context=x>")
    assert allowed(("*@10.0.0.5:5070",), "<sip:x@10.0.0.5:5070>")
    assert allowed(("*@[[]2001:db8::1]",), "<sip:x@[2001:DB8::1]>")
    assert not allowed(("*@10.0.0.5",), "<sip:x@10.0.0.5:5070>")
    assert not allowed((), "<sip:200@pbx>")


@pytest.mark.parametrize(
    "target",
    [
        '"x <sip:200@pbx>" <sip:+1900@evil>',
        '"x \\" <sip:200@pbx>" <sip:+1900@evil>',
        '"x" sip:+1900@evil <sip:200@pbx>',
        "sip:+1900@evil <sip:200@pbx>",
        '"x <sip:200@pbx>',
        "<sip:+1900@evil>;x=<sip:200@pbx>",
    ],
)
def test_only_the_address_itself_counts(target: str) -> None:
    assert not allowed(("200", "*@pbx"), target)


@pytest.mark.parametrize(
    "uri",
    [
        "sip:pbx?x@evil",
        "sip:pbx;x@evil",
        'sip:+1900@evil;y="@pbx;"',
        "sip:+1900@evil;y=@pbx",
        "sip:200%40pbx@evil",
        "sip:200;rn=+1900@pbx",
        "sip:200:secret@pbx",
        "sip:200@pbx;maddr=192.0.2.66",
        "sip:200@pbx;x;MADDR=192.0.2.66",
        "sip:200@pbx;m%61ddr=192.0.2.66",
        "sip:200@pbx?Route=%3Csip:192.0.2.66%3E",
        f"sip:200@pbx?{REPLACES}&Route=%3Csip:192.0.2.66%3E",
        "mailto:200@pbx",
        "",
    ],
)
def test_what_could_lead_elsewhere_is_on_no_list(uri: str) -> None:
    for target in (uri, f"<{uri}>", f'"Anna" <{uri}>'):
        assert not allowed(("200", "200@*", "*@pbx"), target)
