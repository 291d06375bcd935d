"""What becomes of a key when nobody can say how its request ended: with the rows of a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import BaseModel

from sipserver.api.rest import idempotency
from sipserver.api.rest.idempotency import LEASE, LEASE_OF_CALLS, SWEEP_PAUSE_S, SWEEP_S, Idempotency, Rows
from sipserver.api.rest.operations import Answered, Asked, Operation, answer_of
from sipserver.errors import BusDown, CapacityError, InternalError
from sipserver.store.database import Database
from sipserver.store.idempotency import IdempotencyRows
from sipserver.store.settings import StoreSettings
from sipserver.tenants import principal
from sipserver.tenants.keys import Scope
from tests.fakes.until import eventually, until


class Made(BaseModel):
    id: str


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Bench:
    """One operation, and what its work does. tried: how often it was begun."""

    def __init__(self, once: Idempotency) -> None:
        self._once = once
        self.tried: list[str] = []
        self.problem: BaseException | None = None
        self.found: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._operation = Operation(
            "make", "POST", "/things", Scope.CALLS_WRITE, self._never, "", answer=Made, status=201, finds=self._finds
        )

    async def ask(self) -> tuple[int, str]:
        """Status, and id of what was made."""
        request = make_mocked_request("POST", "/things", headers={"Idempotency-Key": "k"})
        who = principal.of_system("acme")
        answer = await self._once(self._operation, Asked(who, {}, None, None, request), self._work)
        assert isinstance(answer, web.Response)
        return answer.status, json.loads(answer.text or "").get("id", "")

    async def _never(self, _asked: Asked) -> Answered:
        raise NotImplementedError

    async def _finds(self, _asked: Asked, call_id: str) -> Answered | None:
        return Answered(Made(id=call_id)) if call_id == self.found else None

    async def _work(self, asked: Asked) -> web.StreamResponse:
        self.tried.append(asked.call_id)
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return answer_of(Answered(Made(id=asked.call_id), 201))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/records.db"))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bench(database: Database, clock: Clock) -> Bench:
    return Bench(Idempotency(IdempotencyRows(database), clock))


async def test_a_refusal_gives_the_key_back_but_not_a_bus_that_may_have_carried_the_order(
    bench: Bench, clock: Clock
) -> None:
    bench.problem = CapacityError("full")
    for _ in range(2):
        with pytest.raises(CapacityError):
            await bench.ask()
    bench.problem = BusDown("Redis is away")
    with pytest.raises(BusDown):
        await bench.ask()
    bench.problem = None
    assert (await bench.ask())[0] == 409
    bench.found = bench.tried[-1]
    assert await bench.ask() == (200, bench.found), "the order had arrived"
    assert len(bench.tried) == 3
    bench.found, clock.now = None, clock.now + LEASE
    assert (await bench.ask())[0] == 409, "a writer that is behind may still have its record"
    clock.now += LEASE_OF_CALLS - LEASE
    status, made = await bench.ask()
    assert (status, made) == (201, bench.tried[-1])
    assert await bench.ask() == (200, made)
    assert len(set(bench.tried)) == 4, "no id comes twice"


@pytest.mark.parametrize("problem", [ZeroDivisionError(), InternalError("it was done, and not noted"), OSError()])
async def test_what_breaks_may_have_been_done(bench: Bench, problem: Exception) -> None:
    bench.problem = problem
    with pytest.raises(type(problem)):
        await bench.ask()
    assert (await bench.ask())[0] == 409


async def test_what_is_cancelled_may_have_been_done(bench: Bench) -> None:
    bench.gate.clear()
    first = asyncio.create_task(bench.ask())
    await until(lambda: bool(bench.tried), "the first one")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (await bench.ask())[0] == 409


async def test_while_the_first_one_is_under_way_the_second_one_waits_its_turn(bench: Bench) -> None:
    bench.gate.clear()
    first = asyncio.create_task(bench.ask())
    await until(lambda: bool(bench.tried), "the first one")
    assert (await bench.ask())[0] == 409
    bench.gate.set()
    status, made = await first
    assert (status, await bench.ask()) == (201, (200, made))


async def test_one_that_was_taken_for_dead_does_not_change_the_answer_of_the_next_one(
    bench: Bench, clock: Clock
) -> None:
    bench.gate.clear()
    late = asyncio.create_task(bench.ask())
    await until(lambda: len(bench.tried) == 1, "the first one")
    clock.now += LEASE_OF_CALLS
    following = asyncio.create_task(bench.ask())
    await until(lambda: len(bench.tried) == 2, "the next one")
    bench.gate.set()
    assert [await late, await following] == [(201, made) for made in bench.tried]
    assert await bench.ask() == (200, bench.tried[1])


async def test_what_was_done_is_answered_though_the_database_is_away_by_then(database: Database, clock: Clock) -> None:
    class Away(IdempotencyRows):
        async def settle(self, *_arguments: object) -> None:
            raise OSError

    bench = Bench(Idempotency(Away(database), clock))
    assert (await bench.ask())[0] == 201


async def test_old_keys_are_swept(
    database: Database, clock: Clock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "SWEEP_S", 0.01)
    rows = IdempotencyRows(database)
    _, made = await bench.ask()
    sweeping = asyncio.create_task(Idempotency(rows, clock).sweep())
    await asyncio.sleep(0.05)
    assert await bench.ask() == (200, made)
    clock.now += timedelta(days=1)
    await eventually(lambda: _count(database), lambda count: count == 0, "an empty table")
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


async def test_all_that_is_over_goes_at_one_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    left, slept = [1000, 300, 0], list[float]()

    class Many:
        async def sweep(self, _now: datetime) -> int:
            return left.pop(0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if not left:
            raise asyncio.CancelledError

    monkeypatch.setattr("sipserver.api.rest.idempotency.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await Idempotency(cast(Rows, Many())).sweep()
    assert slept == [SWEEP_S, SWEEP_PAUSE_S, SWEEP_PAUSE_S, SWEEP_S]


async def _count(database: Database) -> int:
    async with database.engine.connect() as connection:
        return int((await connection.exec_driver_sql("SELECT count(*) FROM idempotency_keys")).scalar_one())
