"""A real server finds out whose a call is from its trunk, whatever other tenants' routes would take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness.phone import Phone
from tests.harness.records import ended
from tests.harness.server import ServerProcess

PLAN = "tenant: {tenant}\nflows:\n  main: [{{hangup: {code}}}]\nroutes: [{{flow: main}}]\n"
PLANS = {f"{name}.yaml": PLAN.format(tenant=name, code=code) for name, code in (("acme", 480), ("zenith", 486))}
HERE = {"name": "pbx", "sources": ["127.0.0.1/32"]}


@pytest.mark.parametrize(
    ("trunk", "numbers", "header", "code", "tenant"),
    [
        ({}, {}, "", 480, "acme"),
        ({"tenants": ["zenith"]}, {}, "", 486, "zenith"),
        ({}, {"zenith": {"numbers": ["2??"]}}, "", 486, "zenith"),
        ({"tenant_header": "X-Tenant"}, {}, "X-Tenant: zenith\r\n", 486, "zenith"),
        ({"tenant_header": "X-Tenant"}, {}, "", 404, ""),
        ({"tenants": ["nobody"]}, {}, "", 404, "nobody"),
    ],
)
def test_a_call_is_its_tenants(
    tmp_path: Path, trunk: dict[str, Any], numbers: dict[str, Any], header: str, code: int, tenant: str
) -> None:
    settings = {"trunks": [{**HERE, **trunk}], "tenants": numbers}
    with ServerProcess(tmp_path, PLANS, settings) as server, Phone(server.sip_port) as phone:
        assert phone.invite("200", header).code == code
        ended(server.database, phone.call_id)
        assert f'"tenant": "{tenant}"' in server.log()
