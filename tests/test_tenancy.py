"""Whose an arriving call is, and by which trunks whose calls leave."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from pydantic import ValidationError

from sipserver.calls.outbound import Order
from sipserver.dialplan.facts import CallFacts
from sipserver.errors import NotAllowed
from sipserver.outbound import TrunkOutbound
from sipserver.settings import Settings
from sipserver.tenancy import ANYBODY, NOBODY, Tenancy
from sipserver.trunks.settings import TrunkSettings
from tests.test_outbound import FakeCell

TRUNKS = (
    TrunkSettings(name="shared", sources=("192.0.2.1",), host="carrier.example"),
    TrunkSettings(name="acme-pbx", host="pbx.acme.example", tenants=("acme",)),
    TrunkSettings(name="two", sources=("192.0.2.2",), host="two.example", tenants=("acme", "zenith")),
    TrunkSettings(name="hosted", sources=("192.0.2.3",), tenants=("acme", "zenith"), tenant_header="X-Tenant"),
    TrunkSettings(name="vouches", sources=("192.0.2.4",), tenant_header="X-Tenant"),
)
TENANCY = Tenancy(TRUNKS, {"acme": ["+4930123", "+49301234*"], "zenith": ["+4940"], "other": ["support"]})


@pytest.mark.parametrize(
    ("trunk", "to", "header", "whose"),
    [
        ("", "100", "", ANYBODY),
        ("shared", "100", "", ANYBODY),
        ("shared", "+4930123", "", {"acme"}),
        ("shared", "+493012345", "", {"acme"}),
        ("shared", "+4940", "zenith", {"zenith"}),
        ("unknown", "support", "", {"other"}),
        ("acme-pbx", "100", "", {"acme"}),
        ("acme-pbx", "+4940", "", {"acme"}),
        ("two", "100", "", {"acme", "zenith"}),
        ("two", "+4940", "", {"zenith"}),
        ("two", "support", "", NOBODY),
        ("hosted", "+4940", "acme", {"acme"}),
        ("hosted", "100", "other", NOBODY),
        ("hosted", "100", "", NOBODY),
        ("vouches", "100", "other", {"other"}),
        ("vouches", "100", "", NOBODY),
    ],
)
def test_whose_a_call_is(trunk: str, to: str, header: str, whose: Collection[str]) -> None:
    facts = CallFacts(to, trunk=trunk, headers={"x-tenant": header} if header else {})
    assert TENANCY.of(facts) == whose


def test_two_tenants_cannot_have_one_number() -> None:
    with pytest.raises(ValidationError, match=r"both acme and zenith have the number \+4930"):
        Settings.model_validate({"tenants": {"acme": {"numbers": ["+4930"]}, "zenith": {"numbers": ["+4930"]}}})


def ways(to: str, tenant: str, trunk: str = "") -> list[str]:
    outbound = TrunkOutbound(FakeCell(), TRUNKS, "us", own_address=lambda: "192.0.2.9")
    return [way.trunk for way in outbound.ways(Order(to, trunk=trunk), tenant)]


def test_calls_leave_by_trunks_that_serve_the_tenant() -> None:
    assert ways("+4930123", "other") == ["shared"]
    assert ways("+4930123", "acme", "acme-pbx") == ["acme-pbx"]
    assert ways("sip:1@pbx.acme.example", "acme") == ["acme-pbx"]
    assert ways("sip:1@elsewhere.example", "other") == [""]


@pytest.mark.parametrize(
    ("to", "trunk"), [("+4930123", "acme-pbx"), ("sip:1@pbx.acme.example", ""), ("sip:1@PBX.acme.example:5070", "")]
)
def test_nobody_calls_by_another_tenants_trunk(to: str, trunk: str) -> None:
    with pytest.raises(NotAllowed):
        ways(to, "other", trunk)
