"""At least once, in order, for days: messages by a simulated clock, over a database of either kind."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from sipserver.errors import CallerError, NotFound
from sipserver.store.webhook_rows import State
from sipserver.webhooks.holding import HOLD_AFTER
from sipserver.webhooks.outgoing import TEST, Outgoing
from sipserver.webhooks.schedule import PAUSES_S, RETRY_AFTER_MOST_S, TOTAL_S
from sipserver.webhooks.sender import Answer
from tests.fakes.until import until
from tests.webhooks.conftest import Make
from tests.webhooks.rig import URL, Clock, Got, Receivers, away, event, ok, status


async def _days(hooks: Outgoing, clock: Clock, days: float, step_s: float = 60) -> None:
    """Deliver what falls due meanwhile."""
    end = clock.now + timedelta(days=days)
    while clock.now < end:
        clock.passes(step_s)
        await hooks.delivery.deliver_due()


# --- who is told ------------------------------------------------------------------------------------------------------


async def test_events_go_to_the_tenants_endpoints_that_want_them(hooks: Outgoing, receivers: Receivers) -> None:
    await hooks.endpoints.create("acme", f"{URL}/all")
    await hooks.endpoints.create("acme", f"{URL}/turns", ["turn.*"])
    await hooks.endpoints.create("zenith", f"{URL}/zenith")
    await hooks.publish([event("c1", 0, "call.started"), event("c1", 1, "turn.ended", text="hello")])
    assert await hooks.delivery.deliver_due() == 3
    assert sorted((got.url.rpartition("/")[2], got.told["type"]) for got in receivers.got) == [
        ("all", "call.started"),
        ("all", "turn.ended"),
        ("turns", "turn.ended"),
    ]
    assert receivers.got[-1].told["data"]["fields"] == {"text": "hello"}
    assert await hooks.delivery.deliver_due() == 0


async def test_what_is_told_twice_is_sent_once(hooks: Outgoing, receivers: Receivers, make: Make) -> None:
    await hooks.endpoints.create("acme", URL)
    notices = [event("c1", seq) for seq in range(3)]
    await hooks.publish(notices)
    await make().publish(notices)
    await hooks.delivery.deliver_due()
    await hooks.publish(notices)
    await hooks.delivery.deliver_due()
    assert receivers.seqs() == {"c1": [0, 1, 2]}


async def test_what_was_delivered_is_not_kept(hooks: Outgoing) -> None:
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0, text="a secret")])
    await hooks.delivery.deliver_due()
    (message,) = await hooks.messages(endpoint.id, State.DELIVERED)
    assert message.payload == ""


# --- in order ---------------------------------------------------------------------------------------------------------


async def test_the_next_event_of_a_call_waits_for_the_one_before(
    hooks: Outgoing, receivers: Receivers, clock: Clock
) -> None:
    refused = 4

    def behave(got: Got) -> Answer:
        nonlocal refused
        if got.call_id == "c1" and got.seq == 1 and refused:
            refused -= 1
            return Answer(500, 1)
        return ok(got)

    receivers.behave = behave
    await hooks.endpoints.create("acme", URL)
    await hooks.publish([event(call, seq) for seq in range(3) for call in ("c1", "c2")])
    await hooks.delivery.deliver_due()
    assert receivers.seqs() == {"c1": [0, 1], "c2": [0, 1, 2]}, "another call does not wait"
    await hooks.publish([event("c1", 3)])
    await hooks.delivery.deliver_due()
    assert receivers.seqs()["c1"] == [0, 1], "what comes later does not wake it"
    for pause_s in PAUSES_S[:4]:
        clock.passes(pause_s - 1)
        assert await hooks.delivery.deliver_due() == 0
        clock.passes(1)
        assert await hooks.delivery.deliver_due() > 0
    assert receivers.seqs()["c1"] == [0, 1, 1, 1, 1, 1, 2, 3]
    assert len({got.id for got in receivers.got if got.call_id == "c1" and got.seq == 1}) == 1


async def test_one_endpoint_does_not_wait_for_another(hooks: Outgoing, receivers: Receivers) -> None:
    def behave(got: Got) -> Answer:
        return Answer(500, 1) if got.url.endswith("bad") else ok(got)

    receivers.behave = behave
    await hooks.endpoints.create("acme", f"{URL}/bad")
    await hooks.endpoints.create("acme", f"{URL}/good")
    await hooks.publish([event("c1", seq) for seq in range(3)])
    await hooks.delivery.deliver_due()
    assert [got.seq for got in receivers.got if got.url.endswith("good")] == [0, 1, 2]
    assert [got.seq for got in receivers.got if got.url.endswith("bad")] == [0]


async def test_many_calls_through_a_receiver_that_fails_at_random(
    hooks: Outgoing, receivers: Receivers, clock: Clock
) -> None:
    """Each call's events are acknowledged in order and none is left out; the lot is drawn from the content."""
    acknowledged: dict[str, list[int]] = {}
    seen: dict[str, int] = {}

    def behave(got: Got) -> Answer:
        seen[got.id] = seen.get(got.id, 0) + 1
        if (int(got.id[-2:], 16) + seen[got.id]) % 3 == 0:
            return Answer(503, 1)
        acknowledged.setdefault(got.call_id, []).append(got.seq)
        return ok(got)

    receivers.behave = behave
    await hooks.endpoints.create("acme", URL)
    await hooks.publish([event(f"c{call}", seq) for seq in range(5) for call in range(20)])
    await hooks.delivery.deliver_due()
    await _days(hooks, clock, 0.02, step_s=20)
    assert acknowledged == {f"c{call}": [0, 1, 2, 3, 4] for call in range(20)}
    assert hooks.delivery.failed > 10


# --- retries ----------------------------------------------------------------------------------------------------------


async def test_a_receiver_that_is_away_for_two_days_loses_nothing(
    hooks: Outgoing, receivers: Receivers, clock: Clock
) -> None:
    receivers.behave = away
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", seq) for seq in range(3)])
    await _days(hooks, clock, 2, step_s=900)
    assert set(receivers.seqs()["c1"]) == {0}
    assert await hooks.dead(endpoint.id) == []
    assert await hooks.waiting(endpoint.id) == 3
    receivers.behave = ok
    before = len(receivers.got)
    await _days(hooks, clock, 1.2, step_s=900)
    assert [got.seq for got in receivers.got[before:]] == [0, 1, 2]
    assert (await hooks.messages(endpoint.id, State.DELIVERED))[0].attempts <= HOLD_AFTER + 1, "the rest only asked"


async def test_after_three_days_a_message_is_a_dead_letter_and_those_behind_it_have_their_turn(
    hooks: Outgoing, receivers: Receivers, clock: Clock
) -> None:
    def behave(got: Got) -> Answer:
        return Answer(400, 1, body="I do not like it") if got.seq == 0 else ok(got)

    receivers.behave = behave
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0), event("c1", 1)])
    await _days(hooks, clock, 3.2, step_s=900)
    assert receivers.seqs() == {"c1": [0] * 11 + [1]}
    (dead,) = await hooks.dead(endpoint.id)
    assert (dead.attempts, dead.error) == (11, "the receiver answered 400")
    assert hooks.delivery.dead == 1


async def test_messages_behind_a_dead_letter_are_not_tried_for_three_days_each(
    hooks: Outgoing, receivers: Receivers, clock: Clock
) -> None:
    receivers.behave = status(400)
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", seq) for seq in range(10)])
    await _days(hooks, clock, TOTAL_S / 86_400 + 0.3, step_s=120)
    assert len(await hooks.dead(endpoint.id)) == 10
    assert receivers.seqs()["c1"].count(0) == 11
    assert receivers.seqs()["c1"].count(9) == 5


@pytest.mark.parametrize(("code", "asked_s", "after_s"), [(429, 60, 60), (503, 10**6, RETRY_AFTER_MOST_S), (503, 1, 5)])
async def test_a_receiver_may_put_us_off_within_bounds(
    hooks: Outgoing, receivers: Receivers, clock: Clock, code: int, asked_s: int, after_s: int
) -> None:
    receivers.behave = status(code, Retry_After=str(asked_s))
    await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0)])
    await hooks.delivery.deliver_due()
    clock.passes(after_s - 1)
    assert await hooks.delivery.deliver_due() == 0
    clock.passes(1)
    assert await hooks.delivery.deliver_due() == 1


async def test_a_receiver_that_is_gone_is_told_nothing_any_more(hooks: Outgoing, receivers: Receivers) -> None:
    receivers.behave = status(410)
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0), event("c1", 1)])
    await hooks.delivery.deliver_due()
    assert receivers.seqs() == {"c1": [0]}
    disabled = await hooks.endpoints.get(endpoint.id)
    assert disabled.disabled_at is not None
    assert disabled.disabled_reason == "the receiver answered 410 (gone)"
    assert [each.error for each in await hooks.dead(endpoint.id)] == [
        "the receiver answered 410 (gone)",
        "disabled: the receiver answered 410 (gone)",
    ]
    await hooks.publish([event("c2", 0)])
    assert await hooks.delivery.deliver_due() == 0
    assert len(await hooks.dead(endpoint.id)) == 2


# --- dead letters -----------------------------------------------------------------------------------------------------


async def test_dead_letters_are_replayed_one_or_all_since_a_moment(
    hooks: Outgoing, receivers: Receivers, clock: Clock
) -> None:
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0)])
    clock.passes(hours=1)
    since = clock.now
    await hooks.publish([event("c1", 1), event("c2", 0), event("c2", 1)])
    await hooks.endpoints.disable(endpoint.id, "maintenance")
    dead = await hooks.dead(endpoint.id)
    assert [each.error for each in dead] == ["disabled: maintenance"] * 4
    with pytest.raises(CallerError, match="enable it first"):
        await hooks.replay_since(endpoint.id, since)
    await hooks.endpoints.enable(endpoint.id)
    assert await hooks.delivery.deliver_due() == 0
    assert await hooks.replay_since(endpoint.id, since) == 3
    await hooks.delivery.deliver_due()
    assert receivers.seqs() == {"c1": [1], "c2": [0, 1]}
    assert [each.id for each in await hooks.dead(endpoint.id)] == [dead[0].id]
    await hooks.replay(dead[0].id)
    await hooks.delivery.deliver_due()
    assert receivers.got[-1].id == dead[0].id, "a receiver can tell that it is the same"
    with pytest.raises(CallerError, match="not a dead letter"):
        await hooks.replay(dead[0].id)


async def test_a_replayed_message_gets_a_whole_schedule(hooks: Outgoing, receivers: Receivers, clock: Clock) -> None:
    receivers.behave = away
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0)])
    await _days(hooks, clock, 3.2, step_s=900)
    (dead,) = await hooks.dead(endpoint.id)
    await hooks.replay(dead.id)
    await _days(hooks, clock, 2, step_s=900)
    receivers.behave = ok
    await _days(hooks, clock, 1.1, step_s=900)
    assert await hooks.dead(endpoint.id) == []
    assert len(await hooks.messages(endpoint.id, State.DELIVERED)) == 1


async def test_what_was_tried_is_listed(hooks: Outgoing, receivers: Receivers, clock: Clock) -> None:
    endpoint = await hooks.endpoints.create("acme", URL)
    answers = [Answer(500, 17, body="x" * 1000), Answer(None, 5000, "no answer in time"), Answer(200, 3, body="ok")]
    receivers.behave = lambda _got: answers.pop(0)
    await hooks.publish([event("c1", 0)])
    for pause_s in (0, *PAUSES_S[:2]):
        clock.passes(pause_s)
        await hooks.delivery.deliver_due()
    listed = await hooks.deliveries(endpoint.id)
    assert [(each.status, each.latency_ms, each.error, each.answer) for each in listed] == [
        (200, 3, None, "ok"),
        (None, 5000, "no answer in time", ""),
        (500, 17, None, "x" * 1000),
    ]
    assert [each.at for each in listed] == sorted((each.at for each in listed), reverse=True)
    page = await hooks.deliveries(endpoint.id, limit=1, before=listed[0].number)
    assert page == [listed[1]]
    assert await hooks.deliveries(endpoint.id, message_id=listed[0].message_id) == listed
    assert await hooks.deliveries(endpoint.id, message_id="msg_other") == []


async def test_tenants_see_their_own_alone(hooks: Outgoing) -> None:
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0)])
    await hooks.endpoints.disable(endpoint.id, "maintenance")
    (dead,) = await hooks.dead(endpoint.id, tenant="acme")
    await hooks.endpoints.enable(endpoint.id)
    for refused in (
        hooks.dead(endpoint.id, tenant="zenith"),
        hooks.deliveries(endpoint.id, tenant="zenith"),
        hooks.replay(dead.id, tenant="zenith"),
        hooks.replay("msg_none"),
        hooks.replay_since(endpoint.id, dead.created_at, tenant="zenith"),
        hooks.test(endpoint.id, tenant="zenith"),
    ):
        with pytest.raises(NotFound):
            await refused
    assert len(await hooks.dead(endpoint.id)) == 1


# --- a test event -----------------------------------------------------------------------------------------------------


async def test_a_test_event_is_sent_at_once_and_once(hooks: Outgoing, receivers: Receivers, clock: Clock) -> None:
    endpoint = await hooks.endpoints.create("acme", URL, ["call.*"])
    await hooks.endpoints.disable(endpoint.id, "until it works")
    receivers.behave = status(500)
    attempt = await hooks.test(endpoint.id)
    assert (attempt.status, attempt.answer) == (500, "no")
    assert receivers.got[-1].told["type"] == TEST
    assert receivers.got[-1].told["data"]["fields"] == {"endpoint": endpoint.id}
    clock.passes(days=1)
    assert await hooks.delivery.deliver_due() == 0
    assert await hooks.dead(endpoint.id) == []
    receivers.behave = ok
    second = await hooks.test(endpoint.id)
    assert await hooks.deliveries(endpoint.id) == [second, attempt]
    assert (second.status, second.number > attempt.number > 0) == (200, True)


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_tenant_has_so_many_attempts_at_a_time_in_all_processes_together(
    make: Make, receivers: Receivers
) -> None:
    here, there = make(per_tenant=3), make(per_tenant=3)
    receivers.gate = asyncio.Event()
    await here.endpoints.create("acme", URL)
    await here.endpoints.create("zenith", URL)
    await here.publish([event(f"c{call}", 0) for call in range(10)])
    first = asyncio.create_task(here.delivery.deliver_due())
    await until(lambda: receivers.running == 3)
    async with asyncio.timeout(10):
        assert await there.delivery.deliver_due() == 0
    await there.publish([event("z1", 0, tenant="zenith")])
    other = asyncio.create_task(there.delivery.deliver_due())
    await until(lambda: receivers.running == 4, "another tenant's attempt")
    receivers.gate.set()
    assert await first + await other >= 10
    assert len(receivers.got) == 11
    assert receivers.most == 4


async def test_a_process_has_so_many_attempts_at_a_time(make: Make, receivers: Receivers) -> None:
    hooks = make(connections=2)
    for tenant in ("a", "b", "c"):
        await hooks.endpoints.create(tenant, URL)
        await hooks.publish([event(f"{tenant}{call}", 0, tenant=tenant) for call in range(3)])
    receivers.gate = asyncio.Event()
    delivery = asyncio.create_task(hooks.delivery.deliver_due())
    await until(lambda: receivers.running == 2)
    receivers.gate.set()
    assert await delivery == 9
    assert receivers.most == 2


async def test_a_full_queue_drops_the_newest_and_counts_them(make: Make, receivers: Receivers, clock: Clock) -> None:
    hooks = make(queue=100)
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", seq) for seq in range(103)])
    clock.passes(60)
    await hooks.publish([event("c1", 200)])
    assert (await hooks.endpoints.get(endpoint.id)).dropped == 4
    await hooks.delivery.deliver_due()
    assert receivers.seqs()["c1"] == list(range(100))
    clock.passes(60)
    await hooks.publish([event("c1", 201)])
    await hooks.delivery.deliver_due()
    assert receivers.seqs()["c1"][-1] == 201, "there is room again"


async def test_a_long_call_gives_others_their_turn(
    make: Make, receivers: Receivers, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("sipserver.webhooks.delivery.MOST_IN_A_ROW", 3)

    def behave(got: Got) -> Answer:
        clock.passes(0.01)
        return ok(got)

    receivers.behave = behave
    hooks = make(per_tenant=1)
    await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("long", seq) for seq in range(8)])
    clock.passes(0.001)
    await hooks.publish([event("short", 0)])
    await hooks.delivery.deliver_due()
    assert [got.call_id for got in receivers.got[:4]] == ["long"] * 3 + ["short"]
    assert receivers.seqs()["long"] == list(range(8))


async def test_what_was_settled_long_ago_is_forgotten(make: Make, clock: Clock) -> None:
    hooks = make(retention_days=2)
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0)])
    await hooks.delivery.deliver_due()
    await hooks.publish([event("c2", 0)])
    await hooks.test(endpoint.id)
    clock.passes(days=1)
    assert await hooks.tidy() == 0
    clock.passes(days=1, seconds=1)
    assert await hooks.tidy() == 2
    assert await hooks.deliveries(endpoint.id) == []
    assert await hooks.delivery.deliver_due() == 1, "what waits is not forgotten"


# --- processes --------------------------------------------------------------------------------------------------------


async def test_two_processes_share_the_work_and_send_nothing_twice(make: Make, receivers: Receivers) -> None:
    one, other = make(per_tenant=50), make(per_tenant=50)
    await one.endpoints.create("acme", URL)
    await one.publish([event(f"c{call}", seq) for seq in range(5) for call in range(30)])
    await asyncio.gather(one.delivery.deliver_due(), other.delivery.deliver_due())
    assert receivers.seqs() == {f"c{call}": [0, 1, 2, 3, 4] for call in range(30)}


async def test_another_process_goes_on_when_one_is_gone(make: Make, clock: Clock) -> None:
    """A process that dies in the middle of an attempt says nothing about it."""
    dead, alive = Receivers(gate=asyncio.Event()), Receivers()
    gone, heir = make(dead), make(alive)
    await gone.endpoints.create("acme", URL)
    await gone.publish([event("c1", 0), event("c1", 1)])
    attempt = asyncio.create_task(gone.delivery.deliver_due())
    await dead.arrived.wait()
    assert await heir.delivery.deliver_due() == 0, "it may still be at it"
    clock.passes(61)
    assert await heir.delivery.deliver_due() == 2
    assert alive.seqs() == {"c1": [0, 1]}
    assert alive.got[0].id == dead.got[0].id
    dead.gate.set()
    await attempt


@pytest.mark.parametrize("late", [ok, status(500), status(410)])
async def test_a_late_answer_changes_nothing_that_is_settled(make: Make, clock: Clock, late: object) -> None:
    slow, quick = Receivers(behave=late, gate=asyncio.Event()), Receivers()  # type: ignore[arg-type]
    one, other = make(slow), make(quick)
    endpoint = await one.endpoints.create("acme", URL)
    await one.publish([event("c1", seq) for seq in range(3)])
    attempt = asyncio.create_task(one.delivery.deliver_due())
    await slow.arrived.wait()
    clock.passes(61)
    assert await other.delivery.deliver_due() == 3
    slow.gate.set()
    await attempt
    assert len(slow.got) == 1, "it goes on with nothing that it does not have any more"
    assert len(await one.messages(endpoint.id, State.DELIVERED)) == 3
    assert await one.dead(endpoint.id) == []


async def test_an_acknowledgement_counts_even_if_it_comes_late(make: Make, clock: Clock) -> None:
    """The receiver has it: the process that has taken over need not repeat it, and does not let the call rest."""
    slow, second = Receivers(gate=asyncio.Event()), Receivers(behave=away, gate=asyncio.Event())
    one, other = make(slow), make(second)
    endpoint = await one.endpoints.create("acme", URL)
    await one.publish([event("c1", 0), event("c1", 1)])
    first = asyncio.create_task(one.delivery.deliver_due())
    await slow.arrived.wait()
    clock.passes(61)
    again = asyncio.create_task(other.delivery.deliver_due())
    await second.arrived.wait()
    slow.gate.set()
    await first
    second.behave = away
    second.gate.set()
    await again
    assert [each.state for each in await one.messages(endpoint.id, State.DELIVERED)] == [State.DELIVERED]
    assert [got.seq for got in second.got] == [0, 1], "the failure of what is acknowledged costs no pause"


async def test_a_late_failure_is_left_to_who_has_the_message_now(make: Make, clock: Clock) -> None:
    slow, second = Receivers(behave=away, gate=asyncio.Event()), Receivers(gate=asyncio.Event())
    one, other = make(slow), make(second)
    endpoint = await one.endpoints.create("acme", URL)
    await one.publish([event("c1", 0)])
    first = asyncio.create_task(one.delivery.deliver_due())
    await slow.arrived.wait()
    clock.passes(61)
    again = asyncio.create_task(other.delivery.deliver_due())
    await second.arrived.wait()
    slow.gate.set()
    await first
    (message,) = await one.messages(endpoint.id, State.PENDING)
    assert (message.attempts, message.error) == (0, None)
    assert [each.error for each in await one.deliveries(endpoint.id)] == ["ClientConnectorError: refused"]
    second.gate.set()
    await again
    assert len(await one.messages(endpoint.id, State.DELIVERED)) == 1


async def test_an_endpoint_that_is_disabled_during_an_attempt(hooks: Outgoing, receivers: Receivers) -> None:
    """The receiver has the message, so it is no dead letter; what is behind it is."""
    receivers.gate = asyncio.Event()
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0), event("c1", 1)])
    attempt = asyncio.create_task(hooks.delivery.deliver_due())
    await receivers.arrived.wait()
    await hooks.endpoints.disable(endpoint.id, "maintenance")
    receivers.gate.set()
    await attempt
    assert receivers.seqs() == {"c1": [0]}
    (delivered,) = await hooks.messages(endpoint.id, State.DELIVERED)
    assert delivered.error is None
    assert [each.error for each in await hooks.dead(endpoint.id)] == ["disabled: maintenance"]


async def test_an_endpoint_that_is_deleted_during_an_attempt(hooks: Outgoing, receivers: Receivers) -> None:
    receivers.gate = asyncio.Event()
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("c1", 0), event("c1", 1)])
    attempt = asyncio.create_task(hooks.delivery.deliver_due())
    await receivers.arrived.wait()
    await hooks.endpoints.delete(endpoint.id)
    receivers.gate.set()
    await attempt
    assert receivers.seqs() == {"c1": [0]}
    with pytest.raises(NotFound):
        await hooks.deliveries(endpoint.id)


async def test_messages_for_an_endpoint_that_was_deleted_elsewhere(make: Make, receivers: Receivers) -> None:
    here, there = make(), make()
    endpoint = await here.endpoints.create("acme", f"{URL}/deleted")
    await here.endpoints.create("acme", f"{URL}/kept")
    await here.publish([event("c1", 0)])
    await there.endpoints.delete(endpoint.id)
    await here.publish([event("c1", 1)])
    await here.delivery.deliver_due()
    assert [(got.url.rpartition("/")[2], got.seq) for got in receivers.got] == [("kept", 0), ("kept", 1)]


async def test_messages_for_an_endpoint_that_was_disabled_elsewhere(make: Make, receivers: Receivers) -> None:
    here, there = make(), make()
    endpoint = await here.endpoints.create("acme", URL)
    await here.publish([event("c1", 0)])
    await there.endpoints.disable(endpoint.id, "maintenance")
    await here.publish([event("c1", 1)])
    assert await here.delivery.deliver_due() == 0
    assert [each.error for each in await here.dead(endpoint.id)] == ["disabled: maintenance"] * 2
    assert receivers.got == []
    assert await here.waiting(endpoint.id) == 0


async def test_publishing_while_a_lane_ends_loses_nothing(make: Make, receivers: Receivers) -> None:
    """The lane's row is deleted when nothing waits; what is published at that very moment must find it or make it."""
    hooks = make(per_tenant=1)
    await hooks.endpoints.create("acme", URL)
    for seq in range(60):
        deliver = asyncio.create_task(hooks.delivery.deliver_due())
        await hooks.publish([event("c1", seq)])
        await deliver
    await hooks.delivery.deliver_due()
    assert receivers.seqs()["c1"] == list(range(60))
