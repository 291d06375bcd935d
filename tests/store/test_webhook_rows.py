"""Rows of webhooks have the columns of their tables."""

from __future__ import annotations

import dataclasses

import pytest
import sqlalchemy as sa

from sipserver.store import schema
from sipserver.store.webhook_rows import AttemptRow, EndpointRow, MessageRow


@pytest.mark.parametrize(
    ("row", "table"),
    [
        (EndpointRow, schema.webhook_endpoints),
        (MessageRow, schema.webhook_messages),
        (AttemptRow, schema.webhook_attempts),
    ],
)
def test_rows_have_the_columns(row: type, table: sa.Table) -> None:
    assert {field.name for field in dataclasses.fields(row)} == {column.name for column in table.columns}
