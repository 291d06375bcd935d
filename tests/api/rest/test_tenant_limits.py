"""Limits of tenants on a real server: what callers, programs and webhooks are told; a restart forgets nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.api.rest.test_calls import PLAN, a_call, asking, create, get, key_of, kinds_of
from tests.api.rest.test_events import following
from tests.api.rest.test_webhooks import Receiver, hooked
from tests.fakes.until import eventually, until, wait_until
from tests.harness.phone import Phone, Response
from tests.harness.records import records
from tests.harness.server import ServerProcess


def plan(tenant: str) -> str:
    """Calls to the tenant's name are answered; those to it with `probe` in front are not, and cost nothing."""
    flows = "flows:\n  main: [answer, {echo: {max_s: 60}}]\n  probe: [{hangup: 486}]\n"
    routes = "".join(
        f"  - {{match: {{to: {to}{tenant}}}, flow: {flow}}}\n" for to, flow in (("", "main"), ("probe-", "probe"))
    )
    return f"tenant: {tenant}\n{flows}routes:\n{routes}"


TENANTS = {
    "acme": {"minutes_a_day": 2},
    "spender": {"spend_a_day": 0.5, "spend_a_month": 100},
    "swift": {"calls_per_s": 1},
    "asker": {"api_per_s": 1},
    "keeper": {"storage_bytes": 1000},
    "busy": {"calls": 2},
    "metered": {"stripe_customer": "cus_NffrFeUfNV2Hib"},
}


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("limits"),
        {
            "acme.yaml": PLAN,
            **{f"{name}.yaml": plan(name) for name in ("spender", "swift", "asker", "metered", "keeper", "busy")},
        },
        {
            "tenants": TENANTS,
            "prices": {"list": [{"part": "call.*", "price": 1, "per": "minute", "rounding": "60/60"}]},
            "webhooks": {"allow_private": True},
        },
    )
    yield made.start()
    made.stop()
    assert "Traceback" not in made.log()


def refused(server: ServerProcess, to: str) -> Response | None:
    """The refusal of a call; None: it was answered, and hung up."""
    with Phone(server.sip_port) as phone:
        answer = phone.invite(to)
        if answer.code < 300:
            phone.bye()
            return None
        return answer


def until_refused(server: ServerProcess, to: str) -> Response:
    found: list[Response] = []

    def tried() -> bool:
        answer = refused(server, to)
        found.extend([answer] if answer is not None else [])
        return bool(found)

    wait_until(tried, f"a refusal of {to}", 60)
    return found[0]


async def test_minutes_are_used_up_and_stay_so_and_everybody_is_told(server: ServerProcess) -> None:
    receiver = Receiver()
    async with receiver.listening(), hooked(server, receiver, kinds=["limit.*"]) as (client, _):
        for _ in range(2):
            await asyncio.to_thread(a_call, server)
        for _ in range(2):
            answer = await asyncio.to_thread(refused, server, "echo")
            assert answer is not None
            assert (answer.code, answer.reason) == (403, "Minutes Of The Day Used Up")
            assert not answer.header("Retry-After")
        problem = await create(client, 429, to="sip:anybody@127.0.0.1:9", flow="called")
        assert "minutes_a_day" in problem["detail"]
        told = await get(client, "/tenant")
        assert told["minutes_a_day"] == {"limit": 2, "used": 2}
        assert (told["spend_a_day"], told["calls_per_s"]) == ({"limit": None, "used": None}, None)
        last = records(server.database)[-1]
        assert (last.reason, last.answered) == ("limit", False)
        await until(lambda: len(receiver.came) >= 2, "near and exceeded")
        told = [message for _, body in receiver.came for message in [body.decode()]]
        assert sum('"limit.near"' in each for each in told) == 1
        assert sum('"limit.exceeded"' in each for each in told) == 1
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    answer = await asyncio.to_thread(until_refused, server, "echo")
    assert answer.code == 403


async def test_spend_counts_calls_that_still_run(server: ServerProcess) -> None:
    with Phone(server.sip_port) as phone:
        assert (await asyncio.to_thread(phone.invite, "spender")).code == 200

        async def probed() -> tuple[int, str]:
            answer = await asyncio.to_thread(refused, server, "probe-spender")
            assert answer is not None
            return answer.code, answer.reason

        await eventually(probed, lambda answer: answer == (403, "Spend Of The Day Used Up"))
        assert not next(each for each in records(server.database, phone.call_id)).reason, "it goes on"
        await asyncio.to_thread(phone.bye)


async def test_spend_is_what_calls_that_are_over_cost(server: ServerProcess) -> None:
    assert await asyncio.to_thread(refused, server, "spender") is None
    answer = await asyncio.to_thread(until_refused, server, "spender")
    assert (answer.code, answer.reason) == (403, "Spend Of The Day Used Up")


async def test_calls_of_a_second_and_requests_of_a_second(server: ServerProcess) -> None:
    async def several() -> Response | None:
        """Another refusal than that of a server which has four calls already."""
        answers = await asyncio.gather(*(asyncio.to_thread(refused, server, "swift") for _ in range(4)))
        return next((answer for answer in answers if answer is not None and answer.code != 486), None)

    answer: Response | None = None
    async with asyncio.timeout(60):
        while answer is None:
            answer = await several()
    assert (answer.code, answer.header("Retry-After")) == (503, "1")
    key = await asyncio.to_thread(key_of, server, "asker")
    listener = following(server, key, tenant="asker", kinds="limit.*")
    async with listener as follower, asking(server, key) as client, asyncio.timeout(60):
        await follower.until("events.live")
        while True:
            async with client.get("/api/v1/calls") as got:
                if got.status == 200:
                    continue
                assert (got.status, got.headers["Retry-After"]) == (429, "1")
                assert got.content_type == "application/problem+json"
                assert "api_per_s" in (await got.json())["detail"]
                assert int(got.headers["RateLimit-Remaining"]) > 0, "of this key"
                break
        await follower.until("limit.exceeded")
        assert (follower.heard[-1]["call_id"], follower.heard[-1]["fields"]["limit"]) == ("", "api_per_s")
    assert await asyncio.to_thread(refused, server, "asker") is None, "calls are another matter"


async def test_what_was_used_is_told_as_meter_events(server: ServerProcess) -> None:
    receiver = Receiver()
    async with receiver.listening(), hooked(server, receiver, "metered", kinds=["usage.metered"]) as (client, _):
        assert await asyncio.to_thread(refused, server, "metered") is None
        await until(lambda: bool(receiver.came), "a meter event")
        told = json.loads(receiver.came[0][1])
        fields = told["data"]["fields"]
        assert (told["type"], fields["event_name"]) == ("usage.metered", "call_inbound_ms")
        assert fields["payload"]["stripe_customer_id"] == "cus_NffrFeUfNV2Hib"
        (call,) = (await get(client, "/calls"))["calls"]
        (line,) = (await get(client, f"/calls/{call['id']}/usage"))["lines"]
        assert int(fields["payload"]["value"]) == Decimal(line["quantity"]) * 1000


def storage(told: dict[str, object]) -> object:
    return told["storage_bytes"]


async def test_a_tenant_that_may_keep_no_more_has_calls_without_recordings_until_something_is_erased(
    server: ServerProcess,
) -> None:
    receiver = Receiver()
    scopes = ("calls:read", "calls:write", "config:read", "events:read", "privacy:write", "recordings:read")
    key = await asyncio.to_thread(key_of, server, "keeper", *scopes)
    async with (
        receiver.listening(),
        hooked(server, receiver, "keeper", kinds=["limit.*", "recording.*"]),
        asking(server, key) as client,
    ):

        def kinds() -> list[str]:
            return [json.loads(body)["type"] for _, body in receiver.came]

        async def record(phone: Phone, status: int) -> tuple[str, dict[str, str]]:
            """A call that is to be recorded: its id, and what is said to that."""
            assert (await asyncio.to_thread(phone.invite, "keeper")).code == 200
            call_id = await eventually(lambda: asyncio.to_thread(known, server, phone.call_id), bool)
            async with client.post(f"/api/v1/calls/{call_id}/record", json={"action": "start"}) as answer:
                assert answer.status == status, await answer.text()
                return call_id, await answer.json()

        assert storage(await get(client, "/tenant")) == {"limit": 1000, "used": 0}
        with Phone(server.sip_port) as phone:
            first, _ = await record(phone, 202)
            phone.start_media()
            await until(lambda: len(phone.received) > 20, "some sound")
            await asyncio.to_thread(phone.bye)
        await until(lambda: "limit.near" in kinds(), "what is kept was counted")
        kept = storage(await get(client, "/tenant"))
        assert isinstance(kept, dict)
        assert kept["used"] > 1000
        with Phone(server.sip_port) as phone:
            second, problem = await record(phone, 507)
            assert f"storage_bytes is reached: {kept['used']} of 1000" in problem["detail"]
            assert (await get(client, f"/calls/{second}"))["state"] == "answered", "it goes on"
            await until(lambda: "recording.refused" in kinds(), "the refusal is told")
            refusals = await eventually(lambda: kinds_of(client, second, "recording.refused"), bool)
            assert refusals == [{"reason": f"the limit storage_bytes is reached: {kept['used']} of 1000"}]
            await asyncio.to_thread(phone.bye)
        call = await eventually(lambda: get(client, f"/calls/{second}"), lambda call: bool(call["recording"]))
        assert call["recording"] == "refused"
        assert "no more may be kept" in (await get(client, f"/calls/{second}/recording", 404))["detail"]
        assert (kinds().count("limit.near"), kinds().count("limit.exceeded")) == (1, 1)
        caller = (await get(client, f"/calls/{first}"))["from_uri"].partition(":")[2].partition("@")[0]
        async with client.post("/api/v1/privacy/erase", json={"number": caller}) as answer:
            assert answer.status == 200, await answer.text()
        assert storage(await get(client, "/tenant")) == {"limit": 1000, "used": 0}

        async def recorded_again() -> bool:
            with Phone(server.sip_port) as phone:
                assert (await asyncio.to_thread(phone.invite, "keeper")).code == 200
                call_id = await eventually(lambda: asyncio.to_thread(known, server, phone.call_id), bool)
                async with client.post(f"/api/v1/calls/{call_id}/record", json={"action": "start"}) as answer:
                    found = answer.status == 202
                await asyncio.to_thread(phone.bye)
                return found

        assert await eventually(recorded_again, bool, "there is room again")


def known(server: ServerProcess, sip_call_id: str) -> str:
    """The id of a call that is answered; empty: it is not known yet."""
    found = records(server.database, sip_call_id)
    return found[0].call_id if found and found[0].answered else ""


async def test_calls_at_a_time_that_come_near_to_their_limit_are_told_of_once(server: ServerProcess) -> None:
    receiver = Receiver()
    key = await asyncio.to_thread(key_of, server, "busy")
    async with (
        receiver.listening(),
        hooked(server, receiver, "busy", kinds=["limit.*"]),
        following(server, key, tenant="busy", kinds="limit.*,call.ended") as follower,
    ):
        await follower.until("events.live")
        before = follower.cursor

        def told() -> list[tuple[str, str]]:
            found = [json.loads(body) for _, body in receiver.came]
            return [(each["type"], each["data"]["fields"]["used"]) for each in found]

        with contextlib.ExitStack() as stack:
            phones = [stack.enter_context(Phone(server.sip_port)) for _ in range(3)]

            async def called(phone: Phone) -> int:
                return (await asyncio.to_thread(phone.invite, "busy")).code

            assert [await called(phone) for phone in phones[:2]] == [200, 200]
            await until(lambda: told() == [("limit.near", "2")], "that it is near")
            assert await called(phones[2]) == 486
            await until(lambda: told()[1:] == [("limit.exceeded", "2")], "that it was reached")
            for phone in phones[:2]:
                await asyncio.to_thread(phone.bye)
        for _ in range(3):
            await follower.until("call.ended")
    async with following(server, key, tenant="busy", kinds="limit.*", after=before) as again:
        await again.until("events.live")
    for heard in (follower.heard, again.heard):
        limits = [(each["kind"], each["fields"]["used"]) for each in heard if each["kind"].startswith("limit.")]
        assert limits == [("limit.near", "2"), ("limit.exceeded", "2")]
        assert [bool(each["call_id"]) for each in heard if each["kind"].startswith("limit.")] == [False, True]
