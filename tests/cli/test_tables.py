"""Tables: whole in a pipe, folded on a terminal, and ids never cut."""

from __future__ import annotations

import io
import sys

import pytest

from sipserver.cli import tables

ID, LONG = "0198d1f2-0000-7000-8000-000000000000", "a name of many words " * 20
ROWS = [(ID, LONG.strip(), "7", "x" * 200), ("short", "red\x1b[31m", "12345", "")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(columns: tuple[str, ...] = ("id", "name", "count", "detail")) -> None:
    tables.show(columns, ROWS, whole=("id", "count"), right=("count",))


def test_a_pipe_has_a_line_a_row_and_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    show()
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["id", "name", "count", "detail"]
    assert first.startswith(f"{ID}  {LONG.strip()} ")
    assert first.endswith(f"     7  {'x' * 200}")
    assert second.endswith(" 12345"), "without spaces at the end"
    assert "\x1b" not in second


def test_without_rows_there_is_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(("id", "name"), [], whole=("id",))
    assert capsys.readouterr().out.split() == ["id", "name"]


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_has_ids_and_numbers_whole_and_the_rest_folded(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    show()
    told = terminal.getvalue()
    assert "…" not in told
    assert f"{ID} " in told
    assert " 12345" in told
    assert told.count("x") == 200
    assert "".join(told.split()).count("name") > 0
    if width == 80:
        assert max(map(len, told.splitlines())) <= width
