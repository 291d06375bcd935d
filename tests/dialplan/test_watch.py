"""Hot reload: a changed file is noticed, a bad one changes nothing, running calls keep their plan."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sipserver.dialplan.book import Book
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.plan import Plan
from sipserver.dialplan.watch import Watcher, merge, snapshot
from sipserver.errors import ConfigError, DialplanError
from tests.fakes.dialplans import plan, written

NOW = datetime(2026, 11, 23, tzinfo=UTC)
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Put a tenant's file into place at once, as editors that rename do."""

    def put(name: str, flows: str, tenant: str = "") -> None:
        hidden = tmp_path / f".{name}"
        hidden.write_text(written(flows, tenant=tenant or name.partition(".")[0]))
        hidden.rename(tmp_path / name)

    return put


class Seen:
    """What the watcher told, to be awaited."""

    def __init__(self) -> None:
        self.books: asyncio.Queue[Book] = asyncio.Queue()
        self.problems: asyncio.Queue[ConfigError] = asyncio.Queue()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def watcher(tmp_path: Path, write: Write, seen: Seen) -> AsyncIterator[Watcher]:
    write("acme.yaml", "main: [answer]")
    made = Watcher(tmp_path, on_change=seen.books.put_nowait, on_problem=seen.problems.put_nowait, interval_s=0.01)
    await made.start()
    yield made
    await made.stop()


def first_steps(book: Book) -> dict[str, str]:
    return {plan.tenant: plan.flows["main"].steps[0].word for plan in book.plans}


async def test_a_changed_file_makes_a_new_book(watcher: Watcher, write: Write, seen: Seen) -> None:
    running = watcher.book.route(CallFacts("1"), NOW)
    write("acme.yaml", "main: [early, answer]")
    renewed = await asyncio.wait_for(seen.books.get(), 10)
    assert watcher.book is renewed
    assert first_steps(renewed) == {"acme": "early"}
    assert running is not None
    assert running.flow.steps[0].word == "answer"


async def test_a_bad_file_changes_nothing_and_is_reported(watcher: Watcher, write: Write, seen: Seen) -> None:
    before = watcher.book
    write("acme.yaml", "main: [answr]")
    problem = await asyncio.wait_for(seen.problems.get(), 10)
    assert (Path(problem.file).name, problem.line) == ("acme.yaml", 3)
    assert watcher.book is before
    write("beta.yaml", "main: [early]")
    renewed = await asyncio.wait_for(seen.books.get(), 10)
    assert first_steps(renewed) == {"acme": "answer", "beta": "early"}
    assert seen.problems.empty()


async def test_a_dialplan_with_more_agents_than_its_tenant_may_have_changes_nothing(
    tmp_path: Path, write: Write, seen: Seen
) -> None:
    def put(*names: str, tenant: str = "acme") -> None:
        agents = "".join(f"\n  {name}: {{prompt: x}}" for name in names)
        hidden = tmp_path / ".hidden"
        hidden.write_text(written("main: [answer]", head=f"agents:{agents}", tenant=tenant))
        hidden.rename(tmp_path / f"{tenant}.yaml")

    put("a", "b")
    watcher = Watcher(
        tmp_path,
        on_change=seen.books.put_nowait,
        on_problem=seen.problems.put_nowait,
        interval_s=0.01,
        most_agents={"acme": 2, "free": 0},
    )
    before = await watcher.start()
    put("a", "b", "c", "d")
    problem = await asyncio.wait_for(seen.problems.get(), 10)
    assert (Path(problem.file).name, problem.line, problem.key) == ("acme.yaml", 5, "agents.c")
    assert "4 agents, and the tenant acme may have 2 (`tenants.acme.agents`" in problem.reason
    assert watcher.book is before
    put("a", "b", "c", tenant="free")
    put("a", "b", "c", tenant="unnamed")
    while {plan.tenant for plan in watcher.book.plans} != {"acme", "free", "unnamed"}:
        await asyncio.wait_for(seen.books.get(), 10)
    put("c")
    await asyncio.wait_for(seen.books.get(), 10)
    assert next(list(plan.agents) for plan in watcher.book.plans if plan.tenant == "acme") == ["c"]
    await watcher.stop()
    put("a", "b", "c")
    with pytest.raises(DialplanError, match="3 agents"):
        await Watcher(tmp_path, most_agents={"acme": 2}).start()
    assert [plan.tenant for plan in snapshot(tmp_path, strict=False, most_agents={"acme": 2}).book.plans] == [
        "free",
        "unnamed",
    ]


async def test_files_come_and_go(watcher: Watcher, write: Write, seen: Seen, tmp_path: Path) -> None:
    write("beta.yaml", "main: [answer]")
    assert first_steps(await asyncio.wait_for(seen.books.get(), 10)).keys() == {"acme", "beta"}
    (tmp_path / "acme.yaml").unlink()
    assert first_steps(await asyncio.wait_for(seen.books.get(), 10)).keys() == {"beta"}


async def test_a_folder_that_vanishes_takes_no_plan_away(watcher: Watcher, seen: Seen, tmp_path: Path) -> None:
    before = watcher.book
    away = tmp_path.with_name(f"{tmp_path.name}-away")
    shutil.move(tmp_path, away)
    problem = await asyncio.wait_for(seen.problems.get(), 10)
    assert "No such file" in str(problem)
    assert watcher.book is before
    shutil.move(away, tmp_path)
    (tmp_path / "acme.yaml").write_text(written("main: [early]"))
    assert first_steps(await asyncio.wait_for(seen.books.get(), 10)) == {"acme": "early"}


async def test_reload_looks_again_at_what_did_not_change(watcher: Watcher, seen: Seen, tmp_path: Path) -> None:
    (tmp_path / ".acme").write_text(written("main:\n  - play: a.wav"))
    (tmp_path / ".acme").rename(tmp_path / "acme.yaml")
    await asyncio.wait_for(seen.problems.get(), 10)
    (tmp_path / "a.wav").touch()
    assert first_steps(await watcher.reload()) == {"acme": "play"}
    assert seen.books.get_nowait() is watcher.book


async def test_reload_reports_a_vanished_folder(watcher: Watcher, seen: Seen, tmp_path: Path) -> None:
    await watcher.stop()
    shutil.rmtree(tmp_path)
    before = watcher.book
    assert await watcher.reload() is before
    assert "No such file" in str(seen.problems.get_nowait())


async def test_a_server_does_not_start_with_a_bad_file(tmp_path: Path, write: Write) -> None:
    write("acme.yaml", "main: [answer]")
    write("beta.yaml", "main: [answr]")
    watcher = Watcher(tmp_path)
    with pytest.raises(DialplanError, match=r"beta\.yaml:3: .*unknown step `answr`"):
        await watcher.start()
    await watcher.stop()


async def test_a_server_does_not_start_without_any_dialplan(tmp_path: Path) -> None:
    with pytest.raises(DialplanError, match="no dialplan"):
        await Watcher(tmp_path).start()


def _plan(name: str, tenant: str, word: str = "answer") -> Plan:
    made = plan(f"main: [{word}]", file=Path(name))
    return Plan(**{**made.__dict__, "tenant": tenant})


A, B, C = Path("a.yaml"), Path("b.yaml"), Path("c.yaml")


def tenants(book: Book) -> list[tuple[str, str]]:
    return [(plan.file.name, plan.tenant) for plan in book.plans]


def test_a_new_file_cannot_take_a_tenant_that_has_calls() -> None:
    old = Book((_plan("b.yaml", "acme"),))
    renewed, clashes = merge(old, [A, B], {A: _plan("a.yaml", "acme", "early")})
    assert tenants(renewed) == [("b.yaml", "acme")]
    assert [str(clash) for clash in clashes] == ["a.yaml:1: tenant: the tenant `acme` stands in b.yaml already"]


def test_a_changed_file_that_takes_a_foreign_tenant_keeps_its_old_plan() -> None:
    old = Book((_plan("a.yaml", "acme"), _plan("b.yaml", "beta")))
    renewed, clashes = merge(old, [A, B], {B: _plan("b.yaml", "acme", "early")})
    assert renewed == old
    assert len(clashes) == 1


def test_a_renamed_file_keeps_its_tenant() -> None:
    old = Book((_plan("a.yaml", "acme"),))
    renewed, clashes = merge(old, [C], {C: _plan("c.yaml", "acme")})
    assert tenants(renewed) == [("c.yaml", "acme")]
    assert clashes == []


def test_two_files_may_swap_their_tenants() -> None:
    old = Book((_plan("a.yaml", "acme"), _plan("b.yaml", "beta")))
    renewed, clashes = merge(old, [A, B], {A: _plan("a.yaml", "beta"), B: _plan("b.yaml", "acme")})
    assert tenants(renewed) == [("a.yaml", "beta"), ("b.yaml", "acme")]
    assert clashes == []
