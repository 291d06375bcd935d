"""The supervisor as a program: signals, and what its death means for its children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sipserver import settings
from sipserver.errors import InternalError
from sipserver.fleet import admin
from tests.fleet.conftest import until
from tests.fleet.kinds import set_mood, tell

Program = Callable[[Path], AbstractContextManager["Running"]]


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, runtime: Path, reap: Callable[[int], None]) -> None:
        self.process, self._log, self._runtime, self._reap = process, log, runtime, reap

    def told(self, *events: str) -> list[str]:
        """Those of these events that are in the log, in order."""
        whole = self._log.read_text().split("\n")[:-1]  # the last one may be half written
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line["event"] for line in lines if line["process"] == "supervisor" and line["event"] in events]

    async def status(self) -> dict[str, Any]:
        """Once it serves."""
        while True:
            with contextlib.suppress(InternalError):
                answer = await admin.ask(self._runtime, "status")
                for pid in (answer["warm_parent"], *(child["pid"] for child in answer["children"])):
                    self._reap(pid)
                if answer["state"] != "starting":
                    return answer
            assert self.process.poll() is None, self._log.read_text()
            await asyncio.sleep(0.02)

    async def cells(self) -> list[dict[str, Any]]:
        return [child for child in (await self.status())["children"] if child["kind"] == "cell"]

    async def end(self) -> int:
        await until(lambda: self.process.poll() is not None, "the supervisor does not end")
        return int(self.process.returncode)


@pytest.fixture
def program(reap: Callable[[int], None], tmp_path: Path) -> Program:
    @contextlib.contextmanager
    def start(file: Path) -> Iterator[Running]:
        log = tmp_path / "supervisor.log"
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", "tests.fleet.fakes", str(file)], stderr=out)
        try:
            yield Running(process, log, settings.load(file).fleet.runtime, reap)
        finally:
            process.kill()
            process.wait()

    return start


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_nothing_is_left(
    program: Program, settings_file: Callable[..., Path], number: signal.Signals
) -> None:
    with program(settings_file()) as one:
        status = await one.status()
        one.process.send_signal(number)
        assert await one.end() == 0
        assert not any(alive(child["pid"]) for child in status["children"])
        assert not alive(status["warm_parent"])
        assert one.told("draining", "drained") == ["draining", "drained"]


async def test_a_second_signal_does_not_wait_for_calls(program: Program, settings_file: Callable[..., Path]) -> None:
    with program(settings_file()) as one:
        busy = (await one.cells())[0]
        tell(busy["port"], "calls 1")

        async def has_it() -> bool:
            return bool((await one.cells())[0]["calls"])

        await until(has_it)
        one.process.send_signal(signal.SIGTERM)
        await until(lambda: one.told("draining") != [])
        assert alive(busy["pid"])
        one.process.send_signal(signal.SIGTERM)
        assert await one.end() == 0
        assert not alive(busy["pid"])


async def test_a_signal_during_the_start_ends_it(program: Program, settings_file: Callable[..., Path]) -> None:
    with program(settings_file()) as one:
        await until(lambda: one.told("warm parent ready") != [])
        one.process.send_signal(signal.SIGTERM)
        assert await one.end() == 0


async def test_children_outlive_a_killed_supervisor_and_the_next_one_replaces_them(
    program: Program, settings_file: Callable[..., Path]
) -> None:
    file = settings_file(orphan_s=0.5)
    with program(file) as one:
        old = await one.cells()
        warm_parent = (await one.status())["warm_parent"]
        tell(old[0]["port"], "calls 1")
        one.process.kill()
        await one.end()
    await until(lambda: not alive(warm_parent))
    with program(file) as two:
        status = await two.status()
        fresh = [child for child in status["children"] if child["kind"] == "cell"]
        orphans = {orphan["pid"] for orphan in status["orphans"]}
        assert old[0]["pid"] in orphans  # its call goes on
        assert len(fresh) == len(old)
        assert {child["port"] for child in fresh}.isdisjoint(child["port"] for child in old if alive(child["pid"]))
        await until(lambda: not alive(old[1]["pid"]), "an idle orphan did not end")
        assert alive(old[0]["pid"])
        tell(old[0]["port"], "calls 0")
        await until(lambda: not alive(old[0]["pid"]), "an orphan did not end after its call")

        async def no_orphans() -> bool:
            return not (await two.status())["orphans"]

        await until(no_orphans)
        two.process.send_signal(signal.SIGTERM)
        assert await two.end() == 0
    lives = settings.load(file).fleet.runtime / "lives"
    assert list(lives.iterdir()) == []


async def test_a_signal_while_cells_start_ends_it(program: Program, settings_file: Callable[..., Path]) -> None:
    file = settings_file(calls=60, ports=40)
    set_mood(settings.load(file).fleet.runtime, "slow")
    with program(file) as one:
        await until(lambda: len(one.told("ready")) >= 4)  # the helpers and a first cell
        one.process.send_signal(signal.SIGTERM)
        assert await one.end() == 0
    assert list((settings.load(file).fleet.runtime / "lives").iterdir()) == []
