"""The whole way in real time: a server that checks signatures, tasks that start and stop, a process that is killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from sipserver.store.database import Database
from sipserver.store.settings import StoreSettings
from sipserver.store.webhook_queue import WebhookQueue
from sipserver.store.webhook_rows import State
from sipserver.webhooks import outgoing
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.settings import WebhookSettings
from tests.fakes.until import until
from tests.webhooks.rig import Receivers, Site, event

HERE = WebhookSettings(allow_private=True, timeout_s=2)


class Ahead:
    """The time of day, and what the test adds to it."""

    by = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.by


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site().serving() as serving:
        yield serving


async def _endpoint(hooks: Outgoing, site: Site) -> str:
    endpoint = await hooks.endpoints.create("acme", site.url)
    site.secret = endpoint.secret
    return endpoint.id


async def test_events_arrive_signed_and_in_order_while_it_runs(database: Database, site: Site) -> None:
    clock = Ahead()
    hooks = Outgoing(database, HERE, clock=clock)
    endpoint_id = await _endpoint(hooks, site)
    site.statuses = [200, 503]
    hooks.start()
    try:
        await hooks.publish([event("c1", seq) for seq in range(3)])
        await until(lambda: len(site.got) == 2, "a refusal")
        assert [got.seq for got in site.got] == [0, 1]
        clock.by = timedelta(seconds=10)
        await until(lambda: len(site.got) == 4, "the same again, and the next")
        assert [got.seq for got in site.got] == [0, 1, 1, 2]
        assert site.got[1].id == site.got[2].id
        assert (await hooks.test(endpoint_id)).status == 200
    finally:
        await hooks.stop()
    listed = await hooks.deliveries(endpoint_id)
    assert [(each.status, each.answer) for each in listed] == [(200, "received")] * 3 + [
        (503, "received"),
        (200, "received"),
    ]


async def test_a_receiver_with_another_secret_refuses_what_comes(database: Database, site: Site) -> None:
    hooks = Outgoing(database, HERE)
    endpoint_id = await _endpoint(hooks, site)
    site.secret = "whsec_" + "A" * 32
    assert (await hooks.test(endpoint_id)).status == 500
    assert site.got == []
    await hooks.stop()


async def test_a_stop_waits_for_attempts_under_way_and_leaves_the_rest(database: Database) -> None:
    slow = Receivers(gate=asyncio.Event())
    hooks = Outgoing(database, HERE, post=slow)
    endpoint = await hooks.endpoints.create("acme", "https://hooks.example.com/")
    hooks.start()
    await hooks.publish([event("c1", 0), event("c1", 1)])
    await slow.arrived.wait()
    stopping = asyncio.create_task(hooks.stop())
    slow.gate.set()
    await stopping
    await hooks.stop()
    assert slow.seqs() == {"c1": [0]}
    assert len(await hooks.messages(endpoint.id, State.DELIVERED)) == 1
    after = Receivers()
    heir = Outgoing(database, HERE, post=after)
    assert await heir.delivery.deliver_due() == 1, "at once: the lane was given back"
    assert after.seqs() == {"c1": [1]}


async def test_a_stop_that_cannot_wait_gives_the_lane_back(database: Database) -> None:
    slow = Receivers(gate=asyncio.Event())
    hooks = Outgoing(database, HERE, post=slow)
    await hooks.endpoints.create("acme", "https://hooks.example.com/")
    hooks.start()
    await hooks.publish([event("c1", 0)])
    await slow.arrived.wait()
    await hooks.stop(within_s=0)
    after = Receivers()
    assert await Outgoing(database, HERE, post=after).delivery.deliver_due() == 1
    assert after.got[0].id == slow.got[0].id


async def test_a_database_that_is_away_for_a_moment_is_survived(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    receivers = Receivers()
    hooks = Outgoing(database, HERE, post=receivers)
    await hooks.endpoints.create("acme", "https://hooks.example.com/")
    claim, failed = WebhookQueue.claim, asyncio.Event()

    async def away(*_args: object, **_options: object) -> list[object]:
        failed.set()
        raise OSError("away")

    monkeypatch.setattr(WebhookQueue, "claim", away)
    hooks.start()
    await hooks.publish([event("c1", 0)])
    await failed.wait()
    monkeypatch.setattr(WebhookQueue, "claim", claim)
    await receivers.arrived.wait()
    await hooks.stop()
    assert receivers.seqs() == {"c1": [0]}


async def test_what_cannot_be_written_down_is_sent_again_when_the_lease_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    receivers, clock = Receivers(), Ahead()
    hooks = Outgoing(database, HERE, post=receivers, clock=clock)
    await hooks.endpoints.create("acme", "https://hooks.example.com/")
    await hooks.publish([event("c1", 0)])
    settle = WebhookQueue.settle

    async def away(*_args: object, **_options: object) -> None:
        raise OSError("away")

    monkeypatch.setattr(WebhookQueue, "settle", away)
    await hooks.delivery.deliver_due()
    monkeypatch.setattr(WebhookQueue, "settle", settle)
    assert await hooks.delivery.deliver_due() == 0
    clock.by = timedelta(minutes=2)
    assert await hooks.delivery.deliver_due() == 1
    assert receivers.seqs() == {"c1": [0, 0]}
    assert len({got.id for got in receivers.got}) == 1


async def test_old_messages_are_forgotten_while_it_runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "TIDY_EVERY_S", 0.01)
    clock = Ahead()
    hooks = Outgoing(database, HERE, post=Receivers(), clock=clock)
    endpoint = await hooks.endpoints.create("acme", "https://hooks.example.com/")
    await hooks.test(endpoint.id)
    hooks.start()
    clock.by = timedelta(days=31)
    async with asyncio.timeout(10):
        while await hooks.deliveries(endpoint.id):
            pass
    await hooks.stop()


# --- kill -9 ----------------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from sipserver.store.database import Database
from sipserver.store.settings import StoreSettings
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.settings import WebhookSettings
from tests.webhooks.rig import event

async def main():
    database = Database(StoreSettings(url=sys.argv[1]))
    await database.open()
    hooks = Outgoing(database, WebhookSettings(allow_private=True, timeout_s=60))
    await hooks.publish([event(f"c{call}", seq) for seq in range(6) for call in range(3)])
    hooks.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_is_lost_when_the_process_is_killed(
    database: Database, store_settings: StoreSettings, site: Site
) -> None:
    """The receiver holds three answers back while the process dies: these alone come again, with the same ids."""
    clock = Ahead()
    hooks = Outgoing(database, HERE, clock=clock)
    endpoint_id = await _endpoint(hooks, site)
    site.hold_from(7)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, store_settings.url)
    try:
        async with asyncio.timeout(30):
            await site.held.wait()
    finally:
        child.kill()
        await child.wait()
    before = list(site.got)
    site.let_go()
    clock.by = timedelta(minutes=3)
    await hooks.delivery.deliver_due()
    await hooks.stop()
    again = [got for got in site.got[len(before) :] if got.id in {each.id for each in before}]
    assert 1 <= len(again) <= 3
    assert len({got.id for got in site.got}) == 18
    for call in ("c0", "c1", "c2"):
        seqs = [got.seq for got in site.got if got.call_id == call]
        assert seqs == sorted(seqs)
        assert set(seqs) == set(range(6))
    assert len(await hooks.messages(endpoint_id, State.DELIVERED)) == 18


@pytest.mark.parametrize("bounds", [{"per_tenant": 1}, {"connections": 1}, {"per_tenant": 3}])
async def test_what_a_bound_kept_waiting_is_sent_as_soon_as_there_is_room(
    database: Database, site: Site, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, int]
) -> None:
    """Without a look at the clock: nobody polls within the time of a test."""
    monkeypatch.setattr("sipserver.webhooks.delivery.POLL_S", 3600.0)
    monkeypatch.setattr("sipserver.webhooks.delivery.MOST_IN_A_ROW", 2)
    hooks = Outgoing(database, HERE.model_copy(update=bounds))
    await _endpoint(hooks, site)
    hooks.start()
    try:
        await hooks.publish([event(f"c{call}", seq) for call in range(7) for seq in range(3)])
        await until(lambda: len(site.got) == 21, "all of them")
        await hooks.publish([event("c0", 3)])
        await until(lambda: len(site.got) == 22, "one that comes when all is quiet")
    finally:
        await hooks.stop()
