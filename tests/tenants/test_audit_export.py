"""The audit log as text: exact where it is JSON, harmless where it is a table."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sipserver.tenants import audit_export
from sipserver.tenants.audit_entry import Entry
from sipserver.tenants.audit_export import COLUMNS, Form

NASTY = 'a\x1b[2J"\n,b\u202e'


def entry(**changes: Any) -> Entry:
    at = datetime(2026, 11, 28, tzinfo=UTC)
    facts = {"actor": NASTY, "subject": "call:1", "detail": {"x": NASTY}, "source": "::1", **changes}
    return Entry("acme", 12, at, action="call.created", previous="p", mac="m", **facts)


def cells(shown: Entry) -> dict[str, str]:
    text = audit_export.head(Form.CSV) + audit_export.line(shown, Form.CSV)
    assert text.count("\n") == 2
    (row,) = csv.DictReader(text.splitlines())
    return dict(row)


def test_a_line_of_json_has_everything_and_no_control_characters() -> None:
    text = audit_export.head(Form.JSONL) + audit_export.line(entry(), Form.JSONL)
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    found = json.loads(text)
    assert tuple(found) == COLUMNS
    assert (found["actor"], found["detail"], found["number"]) == (NASTY, {"x": NASTY}, 12)
    assert found["at"] == "2026-11-28T00:00:00.000000+00:00"


def test_a_line_of_csv_is_one_line_and_steers_no_terminal() -> None:
    row = cells(entry())
    assert row["actor"] == 'a·[2J"·,b·'
    assert json.loads(row["detail"]) == {"x": NASTY}
    assert (row["number"], row["previous"], row["mac"]) == ("12", "p", "m")


@pytest.mark.parametrize("formula", ["=1+1", "+49", "-2", "@x", " =1"])
def test_a_cell_is_no_formula(formula: str) -> None:
    assert cells(entry(subject=formula))["subject"] == f"'{formula}"
