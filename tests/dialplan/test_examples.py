"""The examples in `dialplans/examples` have no mistakes, and route calls as they say."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from jsonschema import Draft202012Validator

from sipserver import yaml_file
from sipserver.dialplan import load
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.plan import Plan
from sipserver.dialplan.schema import schema
from sipserver.dialplan.targets import allows_target

FOLDER = Path(__file__).parents[2] / "dialplans" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_no_mistakes_and_no_advice(file: Path) -> None:
    found = load.check(file)
    assert [str(problem) for problem in found.errors + found.warnings] == []
    assert Draft202012Validator(schema()).is_valid(yaml_file.parse(file).value)


@pytest.fixture
def pbx() -> Plan:
    return load.load(FOLDER / "pbx.yaml")


@pytest.mark.parametrize(
    ("trunk", "to", "at", "flow"),
    [
        ("carrier", "+493012340", datetime(2026, 11, 23, 10, tzinfo=BERLIN), "main"),
        ("carrier", "+493012340", datetime(2026, 11, 23, 18, tzinfo=BERLIN), "closed"),
        ("carrier", "+493012340", datetime(2026, 12, 25, 10, tzinfo=BERLIN), "closed"),
        ("carrier", "+493012340", datetime(2027, 3, 8, 10, tzinfo=BERLIN), "closed"),
        ("carrier", "201", datetime(2026, 11, 23, 10, tzinfo=BERLIN), ""),
        ("phones", "201", datetime(2026, 11, 23, 3, tzinfo=BERLIN), "extension"),
        ("phones", "299", datetime(2026, 11, 23, 3, tzinfo=BERLIN), "agent"),
        ("phones", "+49891234", datetime(2026, 11, 23, 3, tzinfo=BERLIN), "outside"),
        ("", "201", datetime(2026, 11, 23, 3, tzinfo=BERLIN), ""),
    ],
)
def test_the_pbx_routes_by_trunk_hours_and_holidays(pbx: Plan, trunk: str, to: str, at: datetime, flow: str) -> None:
    index = pbx.route(CallFacts(to, trunk=trunk), at)
    assert ("" if index is None else pbx.routes[index].flow) == flow


def test_nobody_dials_a_premium_number_through_the_pbx(pbx: Plan) -> None:
    numbers = ("+49891234", "211", "+49900123", "+1900123", "sip:201@192.0.2.66")
    assert [allows_target(pbx, number) for number in numbers] == [True, True, False, False, False]
