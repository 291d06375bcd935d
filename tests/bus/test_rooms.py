"""A conference is one process's alone, as the leases of the bus have it."""

from __future__ import annotations

from pathlib import Path

from sipserver.calls.conference import Rooms
from sipserver.events import ConferenceJoined, Fault
from tests.bus.conftest import MakeBus
from tests.calls.conftest import Stage, outcomes
from tests.fakes.until import until

TEAM = "  main: [{conference: {room: team, on: {failed: sorry}}}]\n  sorry: [hangup]"


async def test_a_room_that_another_process_has_is_refused_until_it_is_over(make_bus: MakeBus, tmp_path: Path) -> None:
    stages = []
    for run in ("r1", "r2"):
        bus = make_bus(run)
        await bus.open()
        stage = Stage(tmp_path / run)
        stage.recorder.open()
        stage.rooms = Rooms(bus.leases)
        stages.append(stage)
    one, two = stages
    try:
        ann, _ = one.call(TEAM)
        await until(lambda: bool(one.records.of(ConferenceJoined)), "ann's room")
        ben, _ = two.call(TEAM)
        await until(lambda: bool(outcomes(two)), "ben's refusal")
        assert outcomes(two)[0] == ("conference", "failed")
        assert "another process" in two.records.of(Fault)[0].error
        ann.peer_leaves()
        await one.ended(ann)
        cy, _ = two.call(TEAM)
        await until(lambda: bool(two.records.of(ConferenceJoined)), "cy's room")
        ben.peer_leaves()
        cy.peer_leaves()
    finally:
        for stage in stages:
            await stage.close()
