"""A growing log file is read line by line, across its being emptied and replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sipserver.edge.follow import Follower

MOST_BYTES = 2_000
Heard = tuple[Path, list[str], Callable[[str], None]]


@pytest.fixture
async def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Heard]:
    monkeypatch.setattr("sipserver.edge.follow.FOLLOW_S", 0.01)
    file, lines = tmp_path / "other.log", list[str]()
    file.write_text("before\n")

    def write(text: str) -> None:
        with file.open("a") as log:
            log.write(text)

    follower = Follower(file, lines.append, lambda size: lines.append(f"left out: {size}"), MOST_BYTES)
    follower.start()
    yield file, lines, write
    await follower.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  files tell nobody
            await asyncio.sleep(0.005)


async def test_whole_lines_are_told_once(heard: Heard) -> None:
    _, lines, write = heard
    write("one\ntw")
    await until(lambda: lines == ["one"])
    write("o\nthree\n")
    await until(lambda: lines == ["one", "two", "three"])


async def test_a_long_file_is_emptied_and_read_on(heard: Heard) -> None:
    file, lines, write = heard
    write("x" * MOST_BYTES + "\n")
    await until(lambda: file.stat().st_size == 0)
    write("after\n")
    await until(lambda: lines[-1] == "after")
    assert len(lines) == 2


async def test_what_is_too_much_at_once_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipserver.edge.follow.FOLLOW_S", 0.01)
    monkeypatch.setattr("sipserver.edge.follow.BEHIND_BYTES", 500)
    file, lines = tmp_path / "other.log", list[str]()
    follower = Follower(file, lines.append, lambda size: lines.append(f"left out: {size}"), MOST_BYTES)
    file.write_text("one\n" + "noise\n" * 100)
    follower.start(len("one\n"))
    await until(lambda: lines == ["left out: 600"])
    with file.open("a") as log:
        log.write("after\n")
    await until(lambda: lines == ["left out: 600", "after"])
    await follower.stop()


async def test_a_file_that_goes_away_is_waited_for(heard: Heard) -> None:
    file, lines, write = heard
    file.unlink()
    await asyncio.sleep(0.05)
    write("new\n")
    await until(lambda: lines == ["new"])
