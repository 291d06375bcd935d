"""Versions of dialplans and the files of several machines, with a database of either kind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sipserver.api import plans as module
from sipserver.api.plan_checks import Engines, PlanChecks
from sipserver.api.plans import Plans
from sipserver.dialplan.shelf import digest_of
from sipserver.errors import Conflict, DiskFull, NotFound, Outdated, SipServerError
from sipserver.store.database import Database
from sipserver.store.dialplans import VersionRows
from sipserver.store.settings import StoreSettings
from tests.store.conftest import store_settings
from tests.test_spool import small_disk

__all__ = ["store_settings"]

OTHER = "tenant: zenith\nflows: {main: [answer]}\nroutes: [{match: {to: z}, flow: main}]\n"


def text(mark: str) -> str:
    return f"tenant: acme\nflows: {{main: [answer]}}\nroutes: [{{match: {{to: a}}, flow: main}}]\n# {mark}\n"


class Machine:
    """One of a fleet: its folder, and what it noted."""

    def __init__(self, folder: Path, rows: VersionRows, **files: str) -> None:
        self.folder, self.noted = folder, list[tuple[str, str, str]]()
        folder.mkdir()
        for name, written in {"zenith": OTHER, **files}.items():
            self.writes(written, f"{name}.yaml")
        self.plans = Plans(rows, folder, PlanChecks(folder, {}, Engines()), self._note)

    async def _note(self, tenant: str, action: str, name: str) -> None:
        self.noted.append((tenant, action, name))

    def reads(self, name: str = "acme.yaml") -> str:
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def writes(self, written: str, name: str = "acme.yaml") -> None:
        """As an operator who did it a while ago."""
        (self.folder / name).write_text(written)
        os.utime(self.folder / name, (1, 1))

    async def put(self, mark: str, before: str) -> int:
        now, _ = await self.plans.put("acme", "acme", text(mark), "key:k", expects=[digest_of(text(before))])
        return now.number

    async def history(self) -> list[tuple[int, str]]:
        found = await self.plans.history("acme", "acme", before=None, limit=50)
        return [(head.number, head.actor) for head in found]


@pytest.fixture
async def rows(store_settings: StoreSettings) -> AsyncIterator[VersionRows]:
    database = Database(store_settings, connections=6)
    await database.open()
    yield VersionRows(database)
    await database.close()


async def test_all_machines_take_a_version(rows: VersionRows, tmp_path: Path) -> None:
    one, two = (Machine(tmp_path / name, rows, acme=text("0")) for name in ("one", "two"))
    late = Machine(tmp_path / "late", rows)
    await two.plans.look()
    assert await rows.heads() == [], "a dialplan that nobody changes by REST has no versions"
    assert await one.put("1", "0") == 2
    for machine in (two, late):
        await machine.plans.look()
        assert machine.reads() == text("1")
    assert await two.put("2", "1") == 3
    await one.plans.look()
    assert one.reads() == text("2")
    assert await one.history() == [(3, "key:k"), (2, "key:k"), (1, "operator")]
    assert one.reads("zenith.yaml") == OTHER


async def test_of_machines_that_change_it_at_once_one_wins(rows: VersionRows, tmp_path: Path) -> None:
    machines = [Machine(tmp_path / str(number), rows, acme=text("0")) for number in range(4)]
    for turn in range(3):
        before = str(turn)
        tries = [machine.put(f"{turn + 1}", before) for machine in machines[:1]]
        tries += [machine.put(f"{turn}-{at}", before) for at, machine in enumerate(machines[1:])]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert [type(result) for result in results if not isinstance(result, int)] == [Outdated] * 3
        winner = next(at for at, result in enumerate(results) if isinstance(result, int))
        for machine in machines:
            await machine.plans.look()
        assert len({machine.reads() for machine in machines}) == 1
        if winner:
            await machines[0].put(f"{turn + 1}", f"{turn}-{winner - 1}")
            for machine in machines:
                await machine.plans.look()


async def test_what_an_operator_does_on_one_machine_goes_to_all(
    rows: VersionRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (Machine(tmp_path / name, rows, acme=text("0")) for name in ("one", "two"))
    await one.put("1", "0")
    await two.plans.look()
    two.writes(text("by hand"))
    with pytest.raises(Outdated):
        await two.put("2", "1")
    await one.plans.look()
    assert one.reads() == text("by hand")
    one.writes(text("1"))
    await one.plans.look()
    assert one.reads() == text("1"), "an old text that comes back by hand is new"
    assert await two.history() == [(4, "operator"), (3, "operator"), (2, "key:k"), (1, "operator")]
    assert two.noted == [("acme", "dialplan.changed", "acme")]
    (one.folder / "acme.yaml").unlink()
    await one.plans.look()
    assert (await one.history())[0][0] == 4, "it may be gone for a moment alone"
    monkeypatch.setattr(module, "GONE_S", 0.0)
    await one.plans.look()
    await two.plans.look()
    assert two.reads() == ""
    assert await two.plans.current("acme") is None
    assert one.noted[-1] == ("acme", "dialplan.deleted", "acme")


async def test_half_a_file_is_no_version_and_is_not_written_over(
    rows: VersionRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Machine(tmp_path / "one", rows, acme=text("0"))
    await one.put("1", "0")
    for half in ("tenant: acme\nflows: {", text("1").replace("acme", "zenith")):
        one.writes(half)
        await one.plans.look()
        with pytest.raises(SipServerError):
            await one.put("2", "1")
        if "zenith" not in half:
            assert one.reads() == half
        assert (await one.history())[0] == (2, "key:k")
    (one.folder / "acme.yaml").write_text(text("now"))
    monkeypatch.setattr(module, "SETTLE_S", 3600.0)
    with pytest.raises(Conflict):
        await one.put("2", "1")


async def test_a_machine_whose_file_was_another_one_follows_and_its_file_is_kept(
    rows: VersionRows, tmp_path: Path
) -> None:
    one = Machine(tmp_path / "one", rows, acme=text("0"))
    two = Machine(tmp_path / "two", rows, acme=text("of its own"))
    await one.put("1", "0")
    await two.plans.look()
    await one.plans.look()
    assert one.reads() == two.reads() == text("1")
    assert await one.history() == [(4, "system"), (3, "operator"), (2, "key:k"), (1, "operator")]
    assert (await one.plans.version("acme", "acme", 3)).text == text("of its own")


async def test_a_full_disk_leaves_all_as_it_was(rows: VersionRows, tmp_path: Path) -> None:
    one = Machine(tmp_path / "one", rows, acme=text("0"))
    await one.put("1", "0")
    before = sorted(file.name for file in one.folder.iterdir())
    big = text("#" * 8000)
    with small_disk(), pytest.raises(DiskFull):
        await one.plans.put("acme", "acme", big, "key:k", expects=())
    assert one.reads() == text("1")
    assert sorted(file.name for file in one.folder.iterdir()) == before
    assert (await one.history())[0] == (2, "key:k")


async def test_a_link_is_replaced_and_what_it_leads_to_stays(rows: VersionRows, tmp_path: Path) -> None:
    (tmp_path / "shared.yaml").write_text(text("0"))
    one = Machine(tmp_path / "one", rows)
    (one.folder / "acme.yaml").symlink_to(tmp_path / "shared.yaml")
    await one.put("1", "0")
    assert one.reads() == text("1")
    assert (tmp_path / "shared.yaml").read_text() == text("0")


async def test_the_last_dialplan_of_a_server_stays(rows: VersionRows, tmp_path: Path) -> None:
    one = Machine(tmp_path / "one", rows, acme=text("0"))
    (one.folder / "zenith.yaml").unlink()
    with pytest.raises(Conflict):
        await one.plans.delete("acme", "acme", "key:k", ())
    with pytest.raises(NotFound):
        await one.plans.delete("zenith", "acme", "key:k", ())
