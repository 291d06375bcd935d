"""Which events travel at once: who says so, who hears it, and for how long it is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sipserver.bus.contract import Json
from sipserver.bus.memory import MemoryBus
from sipserver.journal import Entry, Kind
from sipserver.store.database import Database
from sipserver.webhooks import wanted
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.settings import WebhookSettings
from sipserver.webhooks.wanted import GOOD_FOR_S, MOST, VERB, Wanted
from tests.fakes.until import until
from tests.webhooks.rig import URL


class Seconds:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def entry(tenant: str, kind: str, of: Kind = Kind.EVENT) -> Entry:
    return Entry(of, "one", "r1", "c1", 1.0, {"tenant": tenant, "kind": kind})


async def test_events_that_an_endpoint_wants_are_in_haste_and_no_others() -> None:
    clock = Seconds()
    known = Wanted(clock=clock)
    assert not known(entry("acme", "call.ended")), "nobody has said anything yet"
    await known.heed(VERB, wanted.told([("acme", ["call.*"]), ("acme", ["digit.received"]), ("zenith", [])]))
    assert known(entry("acme", "call.ended"))
    assert known(entry("acme", "digit.received"))
    assert not known(entry("acme", "turn.ended"))
    assert not known(entry("other", "call.ended"))
    assert known(entry("zenith", "turn.ended")), "no pattern means all kinds"
    assert not known(entry("zenith", "call.ended", Kind.OPENED))
    await known.heed("something.else", {})
    await known.heed(VERB, wanted.told([("zenith", ["call.*"])]))
    assert not known(entry("acme", "call.ended")), "what is said later replaces it"
    assert not known(entry("zenith", "turn.ended"))
    clock.now += GOOD_FOR_S + 1
    assert not known(entry("zenith", "call.ended")), "nobody has said so for long"


def test_an_announcement_has_a_bound() -> None:
    many = [(f"t{number:05}", ["call.*"]) for number in range(MOST + 5)]
    assert len(wanted.told(many)["tenants"]) == MOST


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    made = MemoryBus(node="one", run="r1")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def heard(bus: MemoryBus) -> AsyncIterator[list[Json]]:
    found: list[Json] = []

    async def heed(verb: str, arguments: Json) -> Json:
        assert verb == VERB
        found.append(arguments["tenants"])
        return {}

    serving = await bus.commands.serve("all", heed)
    yield found
    await serving.close()


async def test_all_hear_of_it_when_an_endpoint_is_made_changed_or_deleted(
    database: Database, bus: MemoryBus, heard: list[Json]
) -> None:
    hooks = Outgoing(database, WebhookSettings(), bus=bus)
    made = await hooks.endpoints.create("acme", URL, ["call.*"])
    await hooks.endpoints.change(made.id, kinds=["turn.*"])
    await hooks.endpoints.disable(made.id, "maintenance")
    await hooks.endpoints.enable(made.id)
    await hooks.endpoints.delete(made.id)
    await until(lambda: len(heard) == 5)
    assert heard == [{"acme": ["call.*"]}, {"acme": ["turn.*"]}, {}, {"acme": ["turn.*"]}, {}]


async def test_processes_that_begin_later_hear_of_it_too_from_one_of_those_that_deliver(
    database: Database, bus: MemoryBus, heard: list[Json]
) -> None:
    await Outgoing(database, WebhookSettings()).endpoints.create("acme", URL, ["call.*"])
    one, other = (Outgoing(database, WebhookSettings(), bus=bus) for _ in range(2))
    one.start()
    other.start()
    await until(lambda: len(heard) >= 1)
    await one.stop()
    await other.stop()
    assert heard == [{"acme": ["call.*"]}]
