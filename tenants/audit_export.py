"""The audit log as text for other programs: JSON lines, exact, and CSV, for tables.

Owns the two forms. What came from outside leaves neither as control characters nor as something that a spreadsheet
would run as a formula. Refuses to know where the text goes.
"""

from __future__ import annotations

import csv
import dataclasses
import enum
import io
import json
from datetime import UTC, datetime
from typing import Any

from sipserver.tenants.audit_entry import Entry

COLUMNS = tuple(field.name for field in dataclasses.fields(Entry))
_FORMULA = ("=", "+", "-", "@")
"""How a cell begins that spreadsheets calculate (OWASP, "CSV Injection")."""


class Form(enum.StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


def head(form: Form) -> str:
    """What stands before the first entry; with its line end."""
    return "" if form is Form.JSONL else _csv(COLUMNS)


def line(entry: Entry, form: Form) -> str:
    """With its line end."""
    fields = as_json(entry)
    if form is Form.JSONL:
        return json.dumps(fields) + "\n"
    fields["detail"] = json.dumps(entry.detail, sort_keys=True)
    return _csv([str(entry.number) if name == "number" else _cell(fields[name]) for name in COLUMNS])


def as_json(entry: Entry) -> dict[str, Any]:
    return {**dataclasses.asdict(entry), "at": moment(entry.at)}


def moment(at: datetime) -> str:
    """In UTC, to the microsecond, as it is sealed."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _csv(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(text: str) -> str:
    shown = "".join(character if character.isprintable() else "\N{MIDDLE DOT}" for character in text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
