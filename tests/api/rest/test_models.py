"""Moments and numbers that the API takes: their bounds, and that the document tells the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError

from sipserver.api.rest import openapi
from sipserver.api.rest.models import Moment, aware
from sipserver.api.rest.operations import Operation
from sipserver.tenants.bills import Month
from tools import api_document

MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)
MONTH_WRONG = ("0001-01", "1969-12", "9000-01", "9999-12", "10000-01")


def fits(value: str, schema: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    "text",
    ["1970-01-01T00:00:00+14:00", "8999-12-31T23:59:59.999999-14:00", "2026-11-28T12:00:00Z", "2026-11-28T12:00:00"],
)
def test_a_moment_within_the_bounds_is_one_in_every_zone(text: str) -> None:
    moment = aware(MOMENT.validate_python(text))
    assert moment is not None
    assert 1969 <= moment.astimezone(UTC).year <= 9000
    assert fits(text, MOMENT.json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-14:00",
        "9000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "1700000000",
        "-5",
        "yesterday",
        "",
    ],
)
def test_any_other_is_refused_and_the_document_says_so(text: str) -> None:
    with pytest.raises(ValidationError, match="in a year from 1970 to 8999"):
        MOMENT.validate_python(text)
    assert not fits(text, MOMENT.json_schema())


@pytest.fixture
async def operations() -> Sequence[Operation]:
    return await api_document.operations()


async def test_every_whole_number_has_an_end(operations: Sequence[Operation]) -> None:
    """What the database has no room for is no number of anything."""
    seen = 0
    for operation in operations:
        for model in filter(None, (operation.query, operation.body)):
            for name, field in model.model_json_schema().get("properties", {}).items():
                for form in field.get("anyOf", [field]):
                    if form.get("type") == "integer":
                        seen += 1
                        assert {"maximum", "exclusiveMaximum"} & set(form), (operation.name, name)
    assert seen > 10


async def test_a_month_is_bounded_as_moments_are(operations: Sequence[Operation]) -> None:
    parameters = openapi.document(operations)["paths"]["/api/v1/usage/export"]["get"]["parameters"]
    (schema,) = [each["schema"] for each in parameters if each["name"] == "month"]
    assert [fits(text, schema) for text in MONTH_WRONG] == [False] * len(MONTH_WRONG)
    for text in ("1970-01", "2026-11", "8999-12"):
        assert fits(text, schema)
        assert Month.of(text).text == text
