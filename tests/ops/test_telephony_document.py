"""docs/telephony.md names a test for each feature; the tests are there."""

from __future__ import annotations

import re

import pytest

from tests.harness.server import ROOT

NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/telephony.md").read_text())


def test_every_row_of_the_table_names_one() -> None:
    table = (ROOT / "docs/telephony.md").read_text().partition("## Features")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert not [row for row in rows if "`tests/" not in row]


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_it_is_there(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M)
