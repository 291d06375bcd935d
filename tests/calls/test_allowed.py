"""A call asks its tenant's allowances for its beginning and every minute; what they say decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from sipserver.calls import allowed as allowed_module
from sipserver.calls.commands import CallCommands
from sipserver.calls.registry import Registry
from sipserver.calls.states import State
from sipserver.errors import StorageFull, TooMany
from sipserver.events import LimitExceeded, LimitNear, RecordingRefused, RecordingStarted, StepEntered
from tests.calls.conftest import Stage
from tests.calls.test_originate import ORDER, Placing
from tests.calls.test_registry import FakeLimits
from tests.fakes.leg import FakeLeg
from tests.fakes.outbound import FakeOutbound
from tests.fakes.until import until

WAITING = "  main: [answer, {echo: {max_s: 600}}]"


@dataclass(frozen=True)
class Reached:
    code: int = 403
    phrase: str = "Used Up"
    retry_after_s: int = 0
    shared: bool = True
    hang_up: bool = False
    text: str = "the limit is reached"


@dataclass(frozen=True)
class Told:
    near: bool
    limit: str = "minutes_a_day"
    most: str = "5"
    used: str = "4"


@dataclass(frozen=True)
class Allowed:
    reached: Reached | None = None
    told: Sequence[Told] = ()


@dataclass
class FakeAllowances:
    """first: of the beginning. later: of each further minute, the last one again and again."""

    first: Allowed = Allowed()
    later: list[Allowed] = field(default_factory=lambda: [Allowed()])
    room: Allowed = Allowed()
    minutes: int = 0
    back: int = 0

    async def call(self, tenant: str) -> Allowed:
        return self.first

    async def minute(self, tenant: str) -> Allowed:
        self.minutes += 1
        return self.later.pop(0) if len(self.later) > 1 else self.later[0]

    async def recording(self, tenant: str) -> Allowed:
        return self.room

    async def unused(self, tenant: str) -> None:
        self.back += 1

    async def full(self, tenant: str, most: int) -> Sequence[Told]:
        return (Told(False, "calls", str(most), str(most)),)

    def limits_minutes(self, tenant: str) -> bool:
        return True


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed_module, "MINUTE_S", 0.01)


def made(stage: Stage, allowances: FakeAllowances) -> Registry:
    stage.plan(WAITING)
    stage.allowances = allowances
    return stage.registry()


async def test_one_that_may_not_be_is_refused_with_a_record(stage: Stage) -> None:
    leg = FakeLeg()
    made(stage, FakeAllowances(Allowed(Reached(), (Told(False),)))).begin(leg)
    assert await stage.ended(leg) == "limit"
    assert (leg.actions[-1:], leg.reject_headers) == (["reject 403 Used Up"], {})
    assert stage.records.of(LimitExceeded) == [LimitExceeded("minutes_a_day", "5", "4")]


async def test_one_that_may_come_again_soon_is_told_when(stage: Stage) -> None:
    leg = FakeLeg()
    made(stage, FakeAllowances(Allowed(Reached(503, "Too Many", 1, shared=False)))).begin(leg)
    assert await stage.ended(leg) == "limit"
    assert "reject 503 Too Many" in leg.actions
    assert leg.reject_headers == {"Retry-After": "1", "X-Sipserver-Refusal": "full"}


async def test_a_call_that_runs_goes_on(stage: Stage) -> None:
    goes_on = FakeAllowances(later=[Allowed(None, (Told(True),)), Allowed(Reached())])
    leg = FakeLeg()
    call = made(stage, goes_on).begin(leg)
    await stage.until(lambda: goes_on.minutes >= 4, leg)
    assert call.state is State.ANSWERED
    assert stage.records.of(LimitNear) == [LimitNear("minutes_a_day", "5", "4")]
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"
    assert goes_on.back == 0


async def test_unless_the_settings_want_it_to_end(stage: Stage) -> None:
    ends = FakeAllowances(later=[Allowed(), Allowed(Reached(hang_up=True))])
    leg = FakeLeg()
    made(stage, ends).begin(leg)
    assert await stage.ended(leg) == "limit"
    assert ends.minutes == 2


async def test_one_that_nobody_answers_gives_its_minute_back(stage: Stage) -> None:
    allowances = FakeAllowances()
    stage.allowances = allowances
    placing = Placing(stage, FakeOutbound())
    await placing.registry.originate(ORDER, tenant="acme")
    leg = placing.outbound.legs[0]
    leg.refuses(486)
    await stage.ended(leg)
    await until(lambda: allowances.back == 1)
    assert not allowances.minutes


async def test_a_program_is_told_and_nobody_is_called(stage: Stage) -> None:
    stage.allowances = FakeAllowances(Allowed(Reached(retry_after_s=7), (Told(False),)))
    placing = Placing(stage, FakeOutbound())
    with pytest.raises(TooMany, match="is reached") as refused:
        await placing.registry.originate(ORDER, tenant="acme")
    assert refused.value.retry_after_s == 7
    assert not placing.outbound.dialled
    await until(lambda: not placing.registry.calls)
    assert stage.records.reason == "limit"


async def test_a_tenant_without_a_place_is_told_as_well(stage: Stage) -> None:
    stage.limits = FakeLimits(free=0)
    stage.limits_of = lambda tenant, trunk: {f"tenant/{tenant}": 9}
    leg = FakeLeg()
    made(stage, FakeAllowances()).begin(leg)
    assert await stage.ended(leg) == "limit"
    assert stage.records.of(LimitExceeded) == [LimitExceeded("calls", "9", "9")]


NO_ROOM = "the limit storage_bytes is reached: 21 of 20"
FULL = Allowed(Reached(text=NO_ROOM), (Told(False, "storage_bytes", "20", "21"),))


@pytest.mark.parametrize(
    "flow",
    [
        "[answer, {record: start}, {echo: {max_s: 600}}]",
        "[answer, {voicemail: {box: sales, on: {failed: other}}}]\n  other: [{echo: {max_s: 600}}]",
    ],
)
async def test_a_call_whose_tenant_may_keep_no_more_goes_on_without_a_recording(stage: Stage, flow: str) -> None:
    allowances = FakeAllowances(room=FULL)
    stage.allowances = allowances
    leg, call = stage.call(f"  main: {flow}")
    await stage.until(lambda: "echo" in [event.step for event in stage.records.of(StepEntered)], leg)
    assert stage.records.of(RecordingRefused) == [RecordingRefused(NO_ROOM)]
    assert stage.records.of(LimitExceeded) == [LimitExceeded("storage_bytes", "20", "21")]
    assert not stage.records.of(RecordingStarted)
    assert not list(stage.recorder.folder.rglob("*.wav"))
    commands = CallCommands(stage.registries[-1])
    with pytest.raises(StorageFull, match="21 of 20") as refused:
        await commands.handle("record", {"call": call.id, "action": "start"})
    assert refused.value.http_code == 507
    assert call.state is State.ANSWERED
    allowances.room = Allowed()
    await commands.handle("record", {"call": call.id, "action": "start"})
    assert len(stage.records.of(RecordingStarted)) == 1
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"
