"""An endpoint whose receiver is away is held: by a simulated clock, over a database of either kind."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from sipserver.store.webhook_rows import State
from sipserver.webhooks import holding
from sipserver.webhooks.holding import HOLD_AFTER, PROBES_S
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.schedule import RETRY_AFTER_MOST_S, TOTAL_S
from sipserver.webhooks.sender import Answer
from tests.fakes.until import until
from tests.webhooks.conftest import Make
from tests.webhooks.rig import URL, Clock, Got, Receivers, away, event, ok, status

HOUR_S = 3600


@pytest.mark.parametrize("code", [None, 408, 429, 500, 503])
def test_answers_that_speak_of_the_receiver(code: int | None) -> None:
    assert holding.is_away(code)


@pytest.mark.parametrize("code", [200, 204, 301, 400, 404, 410, 422])
def test_answers_that_speak_of_the_message(code: int) -> None:
    assert not holding.is_away(code)


def test_pauses_grow_up_to_a_bound_and_a_receiver_may_ask_for_longer_ones() -> None:
    assert [holding.pause_s(failures, 0.5) for failures in range(HOLD_AFTER)] == [None] * HOLD_AFTER
    assert [holding.pause_s(HOLD_AFTER + each, 0.5) for each in range(9)] == [*PROBES_S, PROBES_S[-1], PROBES_S[-1]]
    assert holding.pause_s(HOLD_AFTER, 0) == pytest.approx(0.85 * PROBES_S[0])
    assert holding.pause_s(HOLD_AFTER, 1) == pytest.approx(1.15 * PROBES_S[0])
    assert holding.pause_s(HOLD_AFTER, 0.5, asked_s=90) == 90
    assert holding.pause_s(HOLD_AFTER, 0.5, asked_s=1e9) == RETRY_AFTER_MOST_S


async def _pass(hooks: Outgoing, clock: Clock, seconds: float, step_s: float) -> int:
    """Deliver what falls due meanwhile. Returns how many attempts that were."""
    end, count = clock.now + timedelta(seconds=seconds), 0
    while clock.now < end:
        clock.passes(step_s)
        count += await hooks.delivery.deliver_due()
    return count


async def _held(make: Make, receivers: Receivers, calls: int = 12, **settings: int) -> tuple[Outgoing, str]:
    """An endpoint that has just been held, with so many calls of two events that wait."""
    hooks = make(per_tenant=1, **settings)
    receivers.behave = away
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event(f"c{call:02}", seq) for call in range(calls) for seq in range(2)])
    assert await hooks.delivery.deliver_due() == HOLD_AFTER, "then it is held"
    return hooks, endpoint.id


async def test_while_an_endpoint_is_held_one_message_at_a_time_asks_at_growing_intervals(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    hooks, endpoint_id = await _held(make, receivers)
    held = await hooks.endpoints.get(endpoint_id)
    assert (held.failures, held.held_since) == (HOLD_AFTER, clock.now)
    assert held.held_until == clock.now + timedelta(seconds=PROBES_S[0])
    for pause_s in PROBES_S:
        clock.passes(pause_s - 1)
        await hooks.publish([event("new", int(pause_s))])
        assert await hooks.delivery.deliver_due() == 0, "what is published does not shorten the pause"
        clock.passes(1)
        assert await hooks.delivery.deliver_due() == 1
    calls = [got.call_id for got in receivers.got]
    assert len(set(calls)) == HOLD_AFTER + len(PROBES_S), "another call's message asks each time"
    assert {got.seq for got in receivers.got} == {0}
    held = await hooks.endpoints.get(endpoint_id)
    assert held.failures == HOLD_AFTER + len(PROBES_S)
    clock.passes(1)
    await hooks.delivery.deliver_due()
    assert hooks.delivery.held == 1


async def test_a_receiver_that_was_down_for_hours_gets_everything_in_order_and_is_not_flooded(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    hooks = make(per_tenant=4)
    receivers.behave = away
    endpoint = await hooks.endpoints.create("acme", URL)
    for hour in range(8):
        await hooks.publish([event(f"h{hour}c{call}", seq) for call in range(10) for seq in range(4)])
        await _pass(hooks, clock, HOUR_S, 300)
    tried = len(receivers.got)
    assert tried <= 8 * HOUR_S / 300 + 2 * HOLD_AFTER, "it was asked now and then, not once for each message"
    assert await hooks.waiting(endpoint.id) == 8 * 40
    receivers.behave, receivers.most = ok, 0
    await _pass(hooks, clock, 1.2 * PROBES_S[-1], 10)
    came = receivers.got[tried:]
    receivers.got = came
    assert receivers.seqs() == {f"h{hour}c{call}": [0, 1, 2, 3] for hour in range(8) for call in range(10)}
    assert len({got.id for got in came}) == len(came) == 8 * 40, "each once"
    assert receivers.most <= 4
    assert await hooks.dead(endpoint.id) == []
    well = await hooks.endpoints.get(endpoint.id)
    assert (well.failures, well.held_since, well.held_until) == (0, None, None)
    clock.passes(1)
    await hooks.delivery.deliver_due()
    assert hooks.delivery.held == 0


async def test_attempts_that_only_ask_do_not_use_up_a_messages_own(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    hooks, endpoint_id = await _held(make, receivers, calls=1 + HOLD_AFTER)
    await _pass(hooks, clock, 24 * HOUR_S, 600)
    receivers.behave = ok
    await _pass(hooks, clock, HOUR_S, 60)
    settled = await hooks.messages(endpoint_id, State.DELIVERED)
    assert len(settled) == 2 * (1 + HOLD_AFTER)
    assert max(each.attempts for each in settled) <= 2


async def test_what_has_waited_for_three_days_is_given_up_and_what_is_younger_waits_on(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    hooks, endpoint_id = await _held(make, receivers)
    await _pass(hooks, clock, TOTAL_S / 2, 1200)
    await hooks.publish([event("young", 0)])
    await _pass(hooks, clock, TOTAL_S / 2 + HOUR_S, 1200)
    dead = await hooks.dead(endpoint_id)
    assert len(dead) == 24
    assert {each.error for each in dead} == {"ClientConnectorError: refused"}
    assert await hooks.waiting(endpoint_id) == 1
    assert (hooks.delivery.dead, hooks.delivery.aged) == (0, 24)
    receivers.behave = ok
    assert await hooks.replay_since(endpoint_id, dead[0].created_at) == 24
    receivers.got.clear()
    await _pass(hooks, clock, HOUR_S, 60)
    assert receivers.seqs() == {"young": [0], **{f"c{call:02}": [0, 1] for call in range(12)}}


async def test_a_message_that_the_receiver_does_not_like_holds_nobody_up(
    hooks: Outgoing, receivers: Receivers, clock: Clock
) -> None:
    receivers.behave = status(400)
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event(f"c{call}", 0) for call in range(3 * HOLD_AFTER)])
    assert await hooks.delivery.deliver_due() == 3 * HOLD_AFTER
    assert (await hooks.endpoints.get(endpoint.id)).failures == 0


async def test_a_message_at_which_the_receiver_breaks_holds_the_others_up_for_moments_alone(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    def behave(got: Got) -> Answer:
        return Answer(500, 1) if got.call_id == "bad" else ok(got)

    receivers.behave = behave
    hooks = make(per_tenant=1)
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("bad", 0)])
    await _pass(hooks, clock, HOUR_S, 10)
    assert (await hooks.endpoints.get(endpoint.id)).held_since is not None
    await hooks.publish([event("good", seq) for seq in range(3)])
    await _pass(hooks, clock, PROBES_S[-1] * 1.2, 10)
    assert receivers.seqs()["good"] == [0, 1, 2]


async def test_failures_count_in_a_row(make: Make, receivers: Receivers) -> None:
    lot = iter([*[away] * (HOLD_AFTER - 1), ok, *[away] * (HOLD_AFTER - 1), ok])

    def behave(got: Got) -> Answer:
        return next(lot)(got)

    receivers.behave = behave
    hooks = make(per_tenant=1)
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.publish([event(f"c{call}", 0) for call in range(2 * HOLD_AFTER)])
    assert await hooks.delivery.deliver_due() == 2 * HOLD_AFTER
    well = await hooks.endpoints.get(endpoint.id)
    assert (well.failures, well.held_since) == (0, None)


async def test_another_endpoint_of_the_tenant_does_not_notice(make: Make, receivers: Receivers, clock: Clock) -> None:
    def behave(got: Got) -> Answer:
        return away(got) if got.url.endswith("bad") else ok(got)

    receivers.behave = behave
    hooks = make()
    await hooks.endpoints.create("acme", f"{URL}/bad")
    await hooks.endpoints.create("acme", f"{URL}/good")
    await hooks.publish([event(f"c{call}", seq) for call in range(20) for seq in range(3)])
    await hooks.delivery.deliver_due()
    good = [got for got in receivers.got if got.url.endswith("good")]
    assert len(good) == 60
    assert len(receivers.got) - len(good) <= HOLD_AFTER + 8, "those that were under way when it was held"


async def test_a_receiver_may_ask_for_a_longer_pause(make: Make, receivers: Receivers, clock: Clock) -> None:
    hooks, _ = await _held(make, receivers)
    receivers.behave = status(503, Retry_After="1800")
    clock.passes(PROBES_S[0])
    assert await hooks.delivery.deliver_due() == 1
    receivers.behave = ok
    clock.passes(1799)
    assert await hooks.delivery.deliver_due() == 0
    clock.passes(1)
    assert await hooks.delivery.deliver_due() == 24


@pytest.mark.parametrize("how", ["test", "enable", "url"])
async def test_a_hold_ends_at_once(make: Make, receivers: Receivers, clock: Clock, how: str) -> None:
    """When a test event is acknowledged, and when somebody says that it is mended."""
    hooks, endpoint_id = await _held(make, receivers)
    receivers.behave = ok
    if how == "test":
        await hooks.test(endpoint_id)
    elif how == "enable":
        await hooks.endpoints.enable(endpoint_id)
    else:
        await hooks.endpoints.change(endpoint_id, url=f"{URL}/new")
    assert (await hooks.endpoints.get(endpoint_id)).held_since is None
    assert await hooks.delivery.deliver_due() == 24, "also those that failed before the hold, and rested"


async def test_when_the_receiver_is_back_nothing_rests_any_more(make: Make, receivers: Receivers, clock: Clock) -> None:
    hooks = make(per_tenant=1)
    receivers.behave = away
    await hooks.endpoints.create("acme", URL)
    await hooks.publish([event("old", 0)])
    for pause_s in (0, 10, 60, 600):
        clock.passes(pause_s)
        await hooks.delivery.deliver_due()
    await hooks.publish([event("new", 0)])
    await hooks.delivery.deliver_due()
    assert len(receivers.got) == HOLD_AFTER, "the fifth is another call's: the first rests for longer than the hold"
    receivers.behave = ok
    clock.passes(PROBES_S[0] + 1)
    await hooks.delivery.deliver_due()
    assert [got.call_id for got in receivers.got[HOLD_AFTER:]] == ["new", "old"]


async def test_a_test_event_that_fails_ends_no_hold(make: Make, receivers: Receivers) -> None:
    hooks, endpoint_id = await _held(make, receivers)
    await hooks.test(endpoint_id)
    held = await hooks.endpoints.get(endpoint_id)
    assert held.held_since is not None
    assert held.failures == HOLD_AFTER


# --- processes --------------------------------------------------------------------------------------------------------


async def test_of_several_processes_one_asks_and_the_hold_is_everybodys(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    hooks, _ = await _held(make, receivers)
    other = make()
    assert await other.delivery.deliver_due() == 0, "it is held there, too"
    receivers.got.clear()
    receivers.gate, receivers.running = asyncio.Event(), 0
    clock.passes(PROBES_S[0])
    both = [asyncio.create_task(each.delivery.deliver_due()) for each in (hooks, other)]
    await until(lambda: receivers.running == 1)
    await until(lambda: any(task.done() for task in both), "the other one's look")
    assert len(receivers.got) == 1
    receivers.gate.set()
    assert sum(await asyncio.gather(*both)) == 1


async def test_when_the_process_that_asks_is_killed_another_one_asks(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    hooks, endpoint_id = await _held(make, receivers)
    receivers.gate = asyncio.Event()
    receivers.arrived.clear()
    clock.passes(PROBES_S[0])
    asking = asyncio.create_task(hooks.delivery.deliver_due())
    await receivers.arrived.wait()
    heir = make(Receivers())
    clock.passes(30)
    assert await heir.delivery.deliver_due() == 0, "it may still be at it"
    clock.passes(31)
    assert await heir.delivery.deliver_due() >= 22, "the lease has run out, and the receiver is back"
    assert (await hooks.endpoints.get(endpoint_id)).held_since is None
    receivers.gate.set()
    await asking
