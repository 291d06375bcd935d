"""What is decided without processes: numbers and ports, pauses, hangs, lists, alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sipserver.edge.cells import CellAddress
from sipserver.errors import SettingsError
from sipserver.fleet import plan
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.backoff import Backoff, CrashRate
from sipserver.fleet.control import Beat
from sipserver.fleet.health import Watch, hung_part
from sipserver.fleet.ledger import Ledger, started
from sipserver.fleet.roster import Node, for_edge
from sipserver.settings import Settings


def settings(calls: int = 60, sip_ports: Any = (5100, 5999), **sip: Any) -> Settings:
    return Settings.model_validate({"fleet": {"calls": calls, "sip_ports": sip_ports}, "sip": sip})


class TestPlan:
    def test_cells_follow_from_calls_and_from_what_pjsip_holds(self) -> None:
        made = plan.make(settings(), capacity=4, cores=2)
        assert (made.cells, made.inbound_calls, made.calls, made.gateways) == (20, 3, 60, 2)
        made = plan.make(settings(calls=250, inbound_calls=4, rtp_ports=(10_000, 11_999)), capacity=4, cores=8)
        assert (made.cells, made.calls) == (63, 252)

    def test_no_more_than_pjsip_holds(self) -> None:
        made = plan.make(settings(inbound_calls=32), capacity=4, cores=1)
        assert (made.inbound_calls, made.cells) == (4, 15)

    def test_gateways_that_take_calls_have_places_of_their_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert plan.make(settings(calls=6, sip_ports=(5100, 5102)), capacity=4, cores=2).cells == 2
        monkeypatch.setenv("SIPSERVER_TOKEN_SECRET", "x" * 32)
        assert len(plan.make(settings(calls=6, sip_ports=(5100, 5110)), capacity=4, cores=2).slots) >= 5
        with pytest.raises(SettingsError, match="need 5 ports"):
            plan.make(settings(calls=6, sip_ports=(5100, 5103)), capacity=4, cores=2)

    @pytest.mark.parametrize("rtp_ports", [(10_000, 10_199), (10_001, 10_400), (10_000, 20_000)])
    def test_places_share_nothing_and_hold_all_calls(self, rtp_ports: tuple[int, int]) -> None:
        made = plan.make(settings(rtp_ports=rtp_ports), capacity=4, cores=1)
        assert len(made.slots) > made.cells
        assert len({slot.sip_port for slot in made.slots}) == len(made.slots)
        last = rtp_ports[0] - 1
        for slot in made.slots:
            first, end = slot.rtp_ports
            assert first > last
            assert first % 2 == 0
            assert end - first + 1 >= 2 * made.capacity
            last = end
        assert last <= rtp_ports[1]

    def test_a_second_set_fits_beside_the_first_where_there_is_room(self) -> None:
        made = plan.make(settings(rtp_ports=(10_000, 10_000 + 2 * 2 * 4 * 20)), capacity=4, cores=1)
        assert len(made.slots) == 40

    def test_ranges_that_are_too_small_are_named_with_what_they_need(self) -> None:
        with pytest.raises(SettingsError, match=r"fleet\.sip_ports: 20 cells for 60 calls need 21 ports .* has 20"):
            plan.make(settings(sip_ports=(5100, 5119)), capacity=4, cores=1)
        with pytest.raises(SettingsError, match=r"sip\.rtp_ports: 20 cells of 4 calls need 168 ports.* has 166"):
            plan.make(settings(rtp_ports=(10_000, 10_166)), capacity=4, cores=1)


class TestBackoff:
    def test_the_first_crash_costs_no_pause_and_the_others_more_and_more(self) -> None:
        backoff = Backoff(0.2, 30, stable_s=60)
        pauses = [backoff.after(lived_s=1) for _ in range(12)]
        assert pauses[:5] == [0, 0.2, 0.4, 0.8, 1.6]
        assert pauses[-1] == 30

    def test_a_stable_life_is_forgiven(self) -> None:
        backoff = Backoff(0.2, 30, stable_s=60)
        assert [backoff.after(1), backoff.after(1), backoff.after(61), backoff.after(1)] == [0, 0.2, 0, 0.2]

    def test_an_alarm_from_so_many_crashes_on_until_they_are_old(self) -> None:
        rate = CrashRate(3, within_s=60)
        for now_s in (0, 10, 20):
            assert not rate.alarming(now_s)
            rate.crashed(now_s)
        assert rate.alarming(20)
        assert rate.alarming(60)
        assert not rate.alarming(61)


class TestHealth:
    @pytest.mark.parametrize(
        ("beat", "silent_s", "part"),
        [
            (Beat(), 1, ""),
            (Beat(), 6, "loop"),
            (Beat(sip_age_ms=4_999), 0, ""),
            (Beat(sip_age_ms=5_001), 0, "sip thread"),
            (Beat(media_age_ms=5_001), 0, "media clock"),
        ],
    )
    def test_which_part_hangs(self, beat: Beat, silent_s: float, part: str) -> None:
        assert hung_part(beat, silent_s, hang_s=5) == part

    def test_a_supervisor_that_was_paused_blames_nobody(self) -> None:
        watch = Watch(interval_s=1)
        watch.look(100)
        watch.look(101)
        assert watch.silent_s(heard_at_s=98, now_s=101) == 1  # it began to look at 100
        watch.look(160)  # the machine slept
        assert watch.silent_s(heard_at_s=101, now_s=160) == 0
        watch.look(161)
        assert watch.silent_s(heard_at_s=101, now_s=161) == 1

    def test_a_beat_is_checked(self) -> None:
        beat = Beat.parse({"loop_lag_ms": 1, "calls": 2, "sip_age_ms": 3, "journal": 4})
        assert beat == Beat(1, 2, 3, None, {"journal": 4})
        with pytest.raises(ValueError, match="not a beat"):
            Beat.parse({"calls": None})


class TestRoster:
    def test_a_machine_says_itself_by_its_lease(self) -> None:
        node = Node("m1", (CellAddress("10.0.0.1", 5100, 3, run="ab"), CellAddress("10.0.0.1", 5101, 3, True)), 4, True)
        assert Node.parse("m1", node.value()) == node

    @pytest.mark.parametrize("value", [{}, {"cells": [["here", 1, 1, False, ""]], "calls": 0, "draining": False}])
    def test_what_is_no_machine(self, value: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="not a node"):
            Node.parse("m1", value)

    def test_cells_of_a_machine_that_drains_stay_for_their_calls(self) -> None:
        here = Node("m1", (CellAddress("10.0.0.1", 5101, 3), CellAddress("10.0.0.1", 5100, 3, draining=True)))
        there = Node("m2", (CellAddress("10.0.0.2", 5100, 3),), draining=True)
        assert [(cell.host, cell.port, cell.draining) for cell in for_edge([there, here])] == [
            ("10.0.0.1", 5100, True),
            ("10.0.0.1", 5101, False),
            ("10.0.0.2", 5100, True),
        ]
        assert here.takes_calls
        assert not there.takes_calls


def test_an_alarm_is_told_once_and_kept_until_it_is_over() -> None:
    alarms = Alarms()
    alarms.set("bus_away", True, "why")
    since = alarms.active["bus_away"].since
    alarms.set("bus_away", True, "again")
    assert (alarms.active["bus_away"].detail, alarms.active["bus_away"].since) == ("why", since)
    alarms.set("bus_away", False)
    assert not alarms.active


def test_the_ledger_knows_who_still_lives(tmp_path: Path) -> None:
    import os

    ledger = Ledger(tmp_path / "lives")
    assert ledger.open() == []
    ledger.write("a", "cell", "cell-00", os.getpid())
    ledger.write("b", "cell", "cell-01", 2**22 + 1)  # more than a machine may have
    (tmp_path / "lives" / "c.json").write_text('{"run": ')
    lives = Ledger(tmp_path / "lives").open()
    assert [(life.run, life.alive) for life in lives] == [("a", True), ("b", False)]
    assert started(os.getpid()) == lives[0].started > 0
    ledger.strike("a")
    ledger.strike("b")
    assert Ledger(tmp_path / "lives").open() == []


def test_children_do_not_share_numpys_random_numbers() -> None:
    import os

    from numpy import random

    from sipserver.fleet import process

    def forked() -> bytes:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            process._reseed()
            os.write(writing, random.bytes(8))
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            return pipe.read()

    assert forked() != forked()
