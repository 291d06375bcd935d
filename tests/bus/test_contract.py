"""What every backend promises, as long as nothing is away."""

from __future__ import annotations

import asyncio

import pytest

from sipserver.bus.contract import Bus, Full, Json
from sipserver.errors import BusDown, CapacityError, Fault, NotFound, RemoteError
from sipserver.journal import Entry, Kind
from tests.bus.conftest import MakeBus, until


@pytest.fixture
async def one(make_bus: MakeBus) -> Bus:
    bus = make_bus("r1")
    await bus.open()
    return bus


@pytest.fixture
async def two(make_bus: MakeBus) -> Bus:
    bus = make_bus("r2")
    await bus.open()
    return bus


def entry(bus: Bus, number: int) -> Entry:
    return Entry(Kind.EVENT, bus.node, bus.run, f"c{number}", 1.5, {"seq": number, "text": "Grüße"})


# --- the journal ------------------------------------------------------------------------------------------------------


async def read(bus: Bus, node: str, count: int, *, done: bool = True) -> list[Entry]:
    """So many entries or more, in order."""
    found: list[Entry] = []
    reader = bus.journal.read(node)
    async with asyncio.timeout(10):
        while len(found) < count:
            delivery = await anext(reader)
            found += delivery.entries
            if done:
                await delivery.done()
    await reader.aclose()
    return found


async def test_entries_come_in_order_and_whole(one: Bus, two: Bus) -> None:
    told = [entry(one, number) for number in range(120)]
    for each in told:
        one.journal.tell(each)
    assert await read(two, "one", 120) == told
    assert await one.journal.flush(5)
    assert one.journal.depth == 0


async def test_a_reader_waits_for_more(one: Bus, two: Bus) -> None:
    waiting = asyncio.create_task(read(two, "one", 1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    one.journal.tell(entry(one, 1))
    assert await waiting == [entry(one, 1)]


async def test_what_is_not_done_comes_again_to_the_next_reader(one: Bus, two: Bus) -> None:
    for number in range(3):
        one.journal.tell(entry(one, number))
    first = await read(one, "one", 3, done=False)
    assert await read(two, "one", 3) == first
    one.journal.tell(entry(one, 9))
    assert await read(two, "one", 1) == [entry(one, 9)]


async def test_nodes_have_a_journal_each(one: Bus, make_bus: MakeBus) -> None:
    other = make_bus("r3", node="other")
    await other.open()
    one.journal.tell(entry(one, 1))
    other.journal.tell(entry(other, 2))
    assert await read(one, "other", 1) == [entry(other, 2)]
    assert await read(other, "one", 1) == [entry(one, 1)]


async def test_what_somebody_waits_for_travels_at_once_with_what_was_told_before_it(
    one: Bus, two: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sipserver.bus.redis_journal.FLUSH_S", 3600.0)
    one.journal.tell(entry(one, 1))
    one.journal.tell(entry(one, 2), soon=True)
    one.journal.tell(entry(one, 3))
    reader = two.journal.read("one")
    async with asyncio.timeout(10):
        delivery = await anext(reader)
        assert delivery.soon
        assert list(delivery.entries)[:2] == [entry(one, 1), entry(one, 2)]
        await delivery.done()
        assert await one.journal.flush(5)
        one.journal.tell(entry(one, 4))
        assert await one.journal.flush(5)
        following = await anext(reader)
    assert not following.soon
    await reader.aclose()


# --- commands ---------------------------------------------------------------------------------------------------------


async def echo(verb: str, arguments: Json) -> Json:
    return {"verb": verb, **arguments}


async def test_a_question_is_answered(one: Bus, two: Bus) -> None:
    served = await one.commands.serve("run:r1", echo)
    assert await two.commands.ask("run:r1", "status", {"a": 1}) == {"verb": "status", "a": 1}
    assert await one.commands.ask("run:r1", "status", {}) == {"verb": "status"}
    await served.close()
    await served.close()
    with pytest.raises(NotFound):
        await two.commands.ask("run:r1", "status", {})


async def test_nobody_there(one: Bus) -> None:
    for address in ("run:nobody", "call:none", "node:nowhere"):
        with pytest.raises(NotFound):
            await one.commands.ask(address, "status", {})


async def test_a_call_is_found_by_its_lease(one: Bus, two: Bus) -> None:
    run = await one.commands.serve("run:r1", echo)
    lease = await one.leases.hold("call/abc", {"run": "r1", "tenant": "acme"})
    assert await two.commands.ask("call:abc", "hangup", {}) == {"verb": "hangup", "call_id": "abc"}
    own = await one.commands.serve("call:abc", lambda verb, _: echo("own " + verb, {}))
    assert await two.commands.ask("call:abc", "hangup", {}) == {"verb": "own hangup"}
    await own.close()
    await lease.close()
    with pytest.raises(NotFound):
        await two.commands.ask("call:abc", "hangup", {})
    await run.close()


async def test_errors_travel_with_name_text_and_codes(one: Bus, two: Bus) -> None:
    async def refuse(verb: str, arguments: Json) -> Json:
        raise CapacityError("no room") if verb == "full" else ZeroDivisionError("secret")

    served = await one.commands.serve("node:one", refuse)
    with pytest.raises(RemoteError, match="CapacityError: no room") as caught:
        await two.commands.ask("node:one", "full", {})
    error = caught.value
    assert (error.name, error.text, error.fault, error.retry) == ("CapacityError", "no room", Fault.OURS, True)
    assert (error.sip_code, error.http_code) == (486, 503)
    with pytest.raises(RemoteError, match=r"InternalError: ZeroDivisionError$"):
        await two.commands.ask("node:one", "break", {})
    await served.close()


async def test_no_answer_in_time(one: Bus, two: Bus) -> None:
    async def sleep(verb: str, arguments: Json) -> Json:
        await asyncio.sleep(60)
        return {}

    served = await one.commands.serve("run:r1", sleep)
    with pytest.raises(BusDown):
        await two.commands.ask("run:r1", "status", {}, timeout_s=0.05)
    await served.close()


async def test_handlers_run_concurrently(one: Bus, two: Bus) -> None:
    both = asyncio.Barrier(2)

    async def meet(verb: str, arguments: Json) -> Json:
        await both.wait()
        return {}

    served = await one.commands.serve("run:r1", meet)
    await asyncio.gather(*(two.commands.ask("run:r1", "meet", {}) for _ in range(2)))
    await served.close()


async def test_an_announcement_reaches_everybody(one: Bus, two: Bus) -> None:
    heard: asyncio.Queue[tuple[str, str, Json]] = asyncio.Queue()

    async def hear_one(verb: str, arguments: Json) -> Json:
        heard.put_nowait(("one", verb, arguments))
        return {}

    async def hear_two(verb: str, arguments: Json) -> Json:
        heard.put_nowait(("two", verb, arguments))
        raise ZeroDivisionError

    served = [await one.commands.serve("all", hear_one), await two.commands.serve("all", hear_two)]
    await one.commands.announce("reload", {"tenant": "acme"})
    async with asyncio.timeout(5):
        got = sorted([await heard.get(), await heard.get()], key=lambda each: each[0])
    assert got == [("one", "reload", {"tenant": "acme"}), ("two", "reload", {"tenant": "acme"})]
    for each in served:
        await each.close()


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_a_lease_is_seen_by_others_until_it_is_closed(one: Bus, two: Bus) -> None:
    lease = await one.leases.hold("node/one", {"cells": 3})
    assert await two.leases.get("node/one") == {"cells": 3}
    lease.update({"cells": 4})

    async def updated() -> bool:
        return await two.leases.get("node/one") == {"cells": 4}

    await until(updated)
    await two.leases.hold("run/r2", {})
    assert await one.leases.find("node/") == {"node/one": {"cells": 4}}
    assert set(await one.leases.find("")) >= {"node/one", "run/r2"}
    await lease.close()
    await lease.close()
    assert await two.leases.get("node/one") is None
    assert await one.leases.find("node/") == {}


async def test_what_is_kept_and_dropped_without_waiting_is_seen_soon(one: Bus, two: Bus) -> None:
    kept = [one.leases.keep(f"call/{number}", {"run": "r1"}) for number in range(30)]

    async def all_there() -> bool:
        return len(await two.leases.find("call/")) == 30

    await until(all_there)
    for lease in kept[:29]:
        lease.drop()
        lease.drop()
    one.leases.keep("call/short", {"run": "r1"}).drop()

    async def one_left() -> bool:
        return await two.leases.find("call/") == {"call/29": {"run": "r1"}}

    await until(one_left)
    await kept[29].close()
    assert await two.leases.find("call/") == {}


async def test_what_is_no_hurry_comes_with_a_renewal(one: Bus, two: Bus) -> None:
    lease = await one.leases.hold("run/r1", {"calls": 1})
    lease.update({"calls": 2}, soon=False)

    async def renewed() -> bool:
        return await two.leases.get("run/r1") == {"calls": 2}

    await until(renewed)


async def test_one_of_several_gets_what_they_contend_for(one: Bus, two: Bus) -> None:
    got = await asyncio.gather(*(bus.leases.contend("writer/one", {"run": bus.run}) for bus in (one, two)))
    assert sum(lease is not None for lease in got) == 1
    (winner,) = (lease for lease in got if lease is not None)
    await winner.close()
    assert await two.leases.contend("writer/one", {}) is not None


async def test_a_dead_run_leaves_nothing(one: Bus, two: Bus) -> None:
    await one.leases.hold("call/a", {"run": "r1"})
    await one.leases.contend("writer/one", {})
    assert await one.limits.take({"tenant/acme": 1}) is None
    await two.forget_run("r1")
    assert await two.leases.find("call/") == {}
    assert await two.leases.get("writer/one") is None
    assert await two.limits.take({"tenant/acme": 1}) is None


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_all_scopes_or_none(one: Bus, two: Bus) -> None:
    assert await one.limits.take({"trunk/t": 2, "tenant/a": 1}) is None
    assert await two.limits.take({"trunk/t": 2, "tenant/a": 1}) == Full("tenant/a", 1, shared=True)
    assert await two.limits.take({"trunk/t": 2, "tenant/b": 1}) is None
    assert await one.limits.take({"trunk/t": 2}) == Full("trunk/t", 2, shared=True)


async def test_a_place_given_back_is_free(one: Bus, two: Bus) -> None:
    assert await one.limits.take({"tenant/a": 1}) is None
    assert await one.limits.take({"tenant/a": 1}) is not None
    one.limits.give(["tenant/a"])

    async def taken() -> bool:
        return await two.limits.take({"tenant/a": 1}) is None

    await until(taken)
    assert await one.limits.take({"tenant/a": 1}) is not None


async def test_giving_too_much_back_makes_no_places(one: Bus) -> None:
    one.limits.give(["tenant/a"])
    assert await one.limits.take({"tenant/a": 1}) is None
    assert await one.limits.take({"tenant/a": 1}) is not None


async def test_how_many_are_in_use_everywhere_is_known(one: Bus, two: Bus) -> None:
    assert await one.limits.used([]) == {}
    for bus in (one, two, one):
        assert await bus.limits.take({"tenant/a": 4, "trunk/t": 9}) is None
    scopes = ["tenant/a", "tenant/b", "trunk/t"]

    async def are(count: int) -> bool:
        found = [await bus.limits.used(scopes) for bus in (one, two)]
        return found == [{"tenant/a": count, "tenant/b": 0, "trunk/t": count}] * 2

    await until(lambda: are(3))
    one.limits.give(["tenant/a", "trunk/t"])
    await until(lambda: are(2))
    await two.forget_run("r1")
    await until(lambda: are(1))
