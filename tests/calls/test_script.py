"""Which flow runs on a call that we place."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sipserver.calls.outbound import Order
from sipserver.calls.script import Script, script
from sipserver.dialplan.book import Book
from sipserver.errors import CallerError, NoRoute, NotAllowed, NotFound
from sipserver.events import CallRouted
from tests.fakes.dialplans import plan

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ORDER = Order("+4930123", from_user="100", headers={"X-Case": "7"})
ROUTES = "- {match: {to: '+4930*', headers: {x-case: '7'}}, flow: berlin}\n- {match: {to: '200'}, flow: desk}"
HEAD = "targets: ['+49*', '20?', '*@pbx.example:5070']\nvariables: {greeting: Hello}"
FLOWS = "berlin: [{say: Hello from Berlin.}]\ndesk: [hangup]\nspare: [hangup]"


def book(*more: Book) -> Book:
    plans = [plan(FLOWS, routes=ROUTES, head=HEAD)]
    return Book((*plans, *(each for book in more for each in book.plans)))


def wanted(order: Order = ORDER, tenant: str = "acme", flow: str = "", **variables: str) -> Script:
    return script(book(), NOW, order, tenant=tenant, flow=flow, variables=variables)


def test_the_route_that_takes_calls_to_the_number() -> None:
    found = wanted()
    assert found.flow.name == "berlin"
    assert found.routed == CallRouted(route=0, flow="berlin", why="to=+4930* headers.x-case=7")


def test_the_flow_that_was_named() -> None:
    found = wanted(flow="spare", reason="recall")
    assert (found.flow.name, found.routed.route) == ("spare", -1)
    variables = found.variables("c1")
    asked = {"to": "+4930123", "from": "100", "header.x-case": "7", "reason": "recall", "tenant": "acme"}
    assert asked.items() <= variables.items()
    assert (variables["greeting"], variables["call_id"]) == ("Hello", "c1")


def test_the_only_tenant_need_not_be_named() -> None:
    assert wanted(tenant="").plan.tenant == "acme"


def test_the_user_of_a_sip_uri_is_routed() -> None:
    assert wanted(Order("sip:200@pbx.example:5070")).flow.name == "desk"


@pytest.mark.parametrize(
    ("order", "tenant", "flow", "problem", "says"),
    [
        (ORDER, "nobody", "", NotFound, "no dialplan is for the tenant 'nobody'"),
        (ORDER, "acme", "main", NotFound, "no flow 'main'; there are berlin, desk, spare"),
        (Order("+4940"), "acme", "", NoRoute, "name a flow"),
    ],
    ids=["tenant", "flow", "route"],
)
def test_what_is_not_there(order: Order, tenant: str, flow: str, problem: type[CallerError], says: str) -> None:
    with pytest.raises(problem, match=says):
        wanted(order, tenant, flow)


@pytest.mark.parametrize("flow", ["", "desk"], ids=["routed", "named"])
@pytest.mark.parametrize(
    "to",
    ["+1900123", "0049301", "210", "sip:+4930123@192.0.2.66:80", "sip:200@pbx.example", "sip:200@pbx.example:5070?X=y"],
)
def test_whom_the_targets_do_not_allow_is_not_called_whatever_flow_is_named(to: str, flow: str) -> None:
    with pytest.raises(NotAllowed, match="`targets`") as refused:
        wanted(Order(to, trunk="alpha"), flow=flow)
    assert to not in str(refused.value)


def test_without_targets_whom_the_plan_itself_calls_may_be_called() -> None:
    plans = Book((plan("main: [{bridge: {to: '+49 30 1', on: {failed: end}}}]\nspare: [hangup]"),))
    for to in ("+49301", "+49 30 1"):
        assert script(plans, NOW, Order(to), tenant="acme", flow="spare", variables={}).flow.name == "spare"
    for to in ("+49302", "sip:+49301@192.0.2.66"):
        with pytest.raises(NotAllowed):
            script(plans, NOW, Order(to), tenant="acme", flow="spare", variables={})


def test_of_several_tenants_one_must_be_named() -> None:
    other = Book((replace(book().plans[0], tenant="zeta"),))
    with pytest.raises(NotFound, match="name a tenant: acme, zeta"):
        script(book(other), NOW, ORDER, tenant="", variables={})


@pytest.mark.parametrize("name", ["to", "call_id", "header.x", "1st", "", "a b", "a\n"])
def test_variables_that_no_dialplan_could_set(name: str) -> None:
    with pytest.raises(CallerError, match="cannot be set"):
        script(book(), NOW, ORDER, tenant="acme", variables={name: "x"})


def test_routes_may_tell_calls_that_we_place_from_those_that_come() -> None:
    routes = "- {match: {direction: inbound}, flow: desk}\n- {match: {direction: outbound, trunk: a*}, flow: spare}"
    plans = Book((plan(FLOWS, routes=routes, head=HEAD),))
    order = Order("200", trunk="alpha")
    assert script(plans, NOW, order, tenant="acme", variables={}).flow.name == "spare"
    with pytest.raises(NoRoute):
        script(plans, NOW, Order("200", trunk="beta"), tenant="acme", variables={})
