"""What may be asked of a process's calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sipserver.bus.memory import MemoryBus
from sipserver.calls.call import Call
from sipserver.calls.commands import CallCommands, UnknownCall
from sipserver.calls.states import State
from sipserver.errors import CallerError, NotAllowed
from tests.calls.conftest import Stage
from tests.calls.test_registry import WAITING, registry_of
from tests.fakes.leg import FakeLeg


@asynccontextmanager
async def answered(stage: Stage) -> AsyncIterator[tuple[Call, CallCommands]]:
    """A call that waits, and what it may be told; its caller goes in the end."""
    leg, call = stage.call(WAITING)
    commands = CallCommands(registry_of(stage))
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    yield call, commands
    leg.peer_leaves()
    await stage.ended(leg)


async def test_calls_are_listed_and_described(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    commands = CallCommands(registry_of(stage))
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    listed = json.loads(json.dumps(await commands.handle("calls", {})))["calls"]
    assert [(each["id"], each["tenant"], each["state"]) for each in listed] == [(call.id, "acme", "answered")]
    assert (await commands.handle("status", {"call": call.id}))["from_uri"] == leg.offer.from_uri
    leg.peer_leaves()
    await stage.ended(leg)
    assert await commands.handle("calls", {}) == {"calls": []}


async def test_an_operator_hangs_up(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    commands = CallCommands(registry_of(stage))
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    assert await commands.handle("hangup", {"call": call.id, "detail": "by Ann"}) == {"ended": call.id}
    assert await stage.ended(leg) == "operator_hangup"
    assert leg.actions == ["answer", "hangup"]


async def test_an_unanswered_call_is_refused_with_480(stage: Stage) -> None:
    leg = FakeLeg()
    stage.plan("  main: [{wait: 60}]")
    call = stage.registry().begin(leg)
    await stage.until(lambda: "ring" in leg.actions, leg)
    await CallCommands(registry_of(stage)).handle("hangup", {"call": call.id})
    await stage.ended(leg)
    assert leg.actions[-1] == "reject 480"


async def test_unknown_calls_and_verbs_are_the_askers_fault(stage: Stage) -> None:
    commands = CallCommands(stage.registry())
    for verb in ("status", "hangup"):
        with pytest.raises(UnknownCall, match="no call nobody"):
            await commands.handle(verb, {"call": "nobody"})
    with pytest.raises(CallerError, match="there are calls, status, hangup, originate, "):
        await commands.handle("dance", {})


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("say", {"text": "Hello."}),
        ("transfer", {"to": "sip:200@127.0.0.1"}),
        ("record", {"action": "stop"}),
        ("digits", {"digits": "1"}),
    ],
)
async def test_what_a_bus_adds_to_say_which_call_it_is_is_no_option(
    stage: Stage, verb: str, options: dict[str, str]
) -> None:
    stage.head = 'targets: ["*@127.0.0.1"]'
    leg, call = stage.call(WAITING)
    commands = CallCommands(registry_of(stage))
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    bus = MemoryBus(node="one", run="r1")
    await bus.open()
    serving = await bus.commands.serve("run:r1", commands.handle)
    await bus.leases.hold(f"call/{call.id}", {"run": "r1"})
    asked = {"call": call.id, **options}
    assert await bus.commands.ask(f"call:{call.id}", verb, asked) == {"call": call.id}
    await serving.close()
    await bus.close()
    leg.peer_leaves()
    await stage.ended(leg)


@pytest.mark.parametrize(("mode", "more"), [("attended", {}), ("blind", {}), ("warm", {"announce": "A call."})])
async def test_a_transfer_that_the_plan_forbids_is_refused_and_interrupts_nothing(
    stage: Stage, mode: str, more: dict[str, str]
) -> None:
    stage.head = 'targets: ["2??"]\nvariables: {other: "0900123"}'
    async with answered(stage) as (call, commands):
        before = stage.records.kinds()
        for to in ("0900123", "{{other}}", "sip:200@evil.example"):
            with pytest.raises(NotAllowed, match="not allowed by `targets`"):
                await commands.handle("transfer", {"call": call.id, "to": to, "mode": mode, **more})
        assert stage.records.kinds() == before


async def test_a_voice_that_is_not_there_is_refused(stage: Stage) -> None:
    async with answered(stage) as (call, commands):
        with pytest.raises(CallerError, match="no voice engine 'nope' runs here; there are "):
            await commands.handle("say", {"call": call.id, "text": "Hello.", "tts": "nope"})


async def test_a_call_tells_when_it_was_answered(stage: Stage) -> None:
    async with answered(stage) as (call, commands):
        told = await commands.handle("status", {"call": call.id})
        assert 0 <= told["answered_ms"] <= told["since_ms"]
