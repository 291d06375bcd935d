"""The benches' own arithmetic: what is called lost, late, a gap, a round trip; what a line and the model make of it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tools.bench import scaling
from tools.bench.fleet_point import line
from tools.bench.load import mmsg, sound, usage, wire
from tools.bench.load.sipp import Course

FRAME_NS = wire.FRAME_NS


def recording(at_ms: list[float], sequence: list[int], clicks_ms: list[float] | None = None) -> wire.Recording:
    """One call from 1 s on. at_ms: arrivals after its start. The time stamps follow the numbers."""
    start_ns = 1_000_000_000
    at_ns = np.array([start_ns + round(ms * 1e6) for ms in at_ms], np.int64)
    numbers = np.array(sequence, np.int64)
    click = np.full(len(at_ms), -1, np.int64)
    sent = np.array([start_ns + round(ms * 1e6) for ms in clicks_ms or []], np.int64)
    arrivals = wire.Arrivals(np.zeros(len(at_ms), np.int64), numbers & 0xFFFF, numbers * 160, at_ns, click)
    none = np.zeros(len(sent), np.int64)
    return wire.Recording(arrivals, np.array([start_ns]), np.array([0]), none, sent, len(at_ms), 0, 0)


def test_lost_late_and_gaps() -> None:
    at_ms = [20.0 * number for number in range(100)]
    numbers = [65_500 + number for number in range(100)]  # the counter wraps on the way
    del at_ms[50], numbers[50]
    at_ms[70] += 45  # three frames come at once
    at_ms[71] += 25
    at_ms[72] += 5

    (call,) = wire.judge(recording(at_ms, numbers)).calls

    assert (call.frames, call.lost, call.late) == (99, 1, 1)
    assert call.gap_ms == pytest.approx(65)
    assert not call.cut


def test_a_call_that_falls_silent_is_cut() -> None:
    heard = recording([20.0 * number for number in range(100)], list(range(100)))
    (cut,) = wire.judge(heard, to_ns=1_000_000_000 + 100 * FRAME_NS + wire.SILENT_NS).calls
    (whole,) = wire.judge(heard, to_ns=1_000_000_000 + 101 * FRAME_NS).calls
    assert (cut.cut, whole.cut) == (True, False)


def test_a_click_is_found_where_it_stands() -> None:
    frames = sound.clicks()
    places = sound.click_places(frames)
    assert places[0] == sound.CLICK_AT
    assert (places[1:] == -1).all()


def test_round_trips_count_the_place_in_both_packets() -> None:
    at_ns = np.array([1_000_000_000, 1_500_000_000], np.int64)
    arrivals = wire.Arrivals(
        np.zeros(2, np.int64),
        np.arange(2),
        np.arange(2) * 160,
        at_ns + np.array([40_000_000, 35_000_000]),
        np.array([sound.CLICK_AT - 80, sound.CLICK_AT]),
    )
    assert wire.round_trips(arrivals, at_ns) == pytest.approx([30.0, 35.0])


def test_many_datagrams_arrive_with_the_kernels_stamp() -> None:
    with mmsg.endpoint("127.0.0.1") as here, mmsg.endpoint("127.0.0.1") as there:
        out, back = mmsg.Batch(40, 100), mmsg.Batch(64, 100)
        out.payload[:, 0] = np.arange(40)
        out.addresses["host"] = int.from_bytes(socket.inet_aton("127.0.0.1"), "big")
        out.addresses["port"] = there.getsockname()[1]
        before_ns = time.time_ns()
        assert out.send(here, 40) == 40
        assert back.receive(there) == 40
        assert back.payload[:40, 0].tolist() == list(range(40))
        assert set(back.addresses["port"][:40].tolist()) == {here.getsockname()[1]}
        assert (back.lengths(40) == 100).all()
        assert (back.stamps(40) >= before_ns - 20_000_000).all()
        assert (back.stamps(40) <= time.time_ns()).all()
        assert back.receive(there) == 0


def test_children_count_for_their_parent() -> None:
    burn = (
        "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
        "print('done', flush=True)\ninput()"
    )
    command = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    before = usage.snapshot({"tree": []})
    with subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"done\n"
        after = usage.snapshot({"tree": [parent.pid]})
        assert len(after.processes) == 2
        used = usage.between(before, after)
        assert used.percent["tree"] * used.seconds / 100 >= 0.25
        assert all(mb > 1 for mb in usage.memory_mb(after)["tree"])
        parent.communicate(b"\n")


def test_the_log_of_a_scenario() -> None:
    text = "invite 1 d\tt\t10.000\nstart 1 6000 127.0.0.1 7000 d\tt\t10.004\ninvite 2 d\tt\t10.1\n"
    text += "start 2 6000 127.0.0.1 7002 d\tt\t10.2\n"
    course = Course.read(text + "end 1 d\tt\t12.0\nover 1 d\tt\t12.002\nend 2 d\tt\t1")
    assert course.up == 1
    assert course.stuck == (2,)
    assert course.between_ms("invite", "start") == pytest.approx([4.0, 100.0])
    assert course.between_ms("end", "over") == pytest.approx([2.0])


def test_a_line_through_points() -> None:
    found = line([10, 20, 30], [7, 12, 17])
    assert (found.slope, found.intercept, found.fit) == pytest.approx((0.5, 2.0, 1.0))
    with pytest.raises(ValueError, match="two different places"):
        line([10, 10], [1, 2])


COSTS = scaling.Costs(
    cell_calls=4,
    fixed_cpu=10,
    idle_cell_cpu=0.2,
    call_cpu=0.25,
    start_cpu=1.8,
    edge_start_cpu=0.1,
    fixed_mb=200,
    cell_mb=10,
    redis_idle_per_cell=2,
    redis_per_call=0,
    redis_per_start=20,
    redis_cpu_per_operation=0.005,
    rows_per_start=20,
    database_cpu_per_start=0.05,
    measured_calls=250,
    measured_rate=150,
)


def test_the_model_adds_up() -> None:
    found = scaling.load(COSTS, scaling.Assumed(call_s=180), calls=1_000)
    assert found.cells == 250
    assert found.cpu == pytest.approx(10 + 250 * 0.2 + 1_000 * 0.25 + 1_000 / 180 * 1.8)
    assert found.memory_mb == 200 + 250 * 10
    ten = scaling.load(COSTS, scaling.Assumed(call_s=180), calls=10_000, machines=10)
    assert ten.cpu == pytest.approx(found.cpu)
    assert ten.redis_per_s == pytest.approx(10 * found.redis_per_s)
    comfortable = scaling.most(COSTS, scaling.Assumed(call_s=180, busy=0.75))
    assert scaling.load(COSTS, scaling.Assumed(call_s=180), calls=comfortable - 4).busy <= 0.75
    assert scaling.load(COSTS, scaling.Assumed(call_s=180), calls=comfortable + 8).busy > 0.75


def test_only_the_computed_part_of_the_page_is_replaced() -> None:
    page = f"before\n{scaling.BEGIN}\nold\n{scaling.END}\nafter\n"
    assert scaling.put(page, "new") == f"before\n{scaling.BEGIN}\n\nnew\n\n{scaling.END}\nafter\n"
    with pytest.raises(ValueError, match="marks"):
        scaling.put("a page without", "new")
    assert scaling.put(Path(scaling.DOCUMENT).read_text(), "|computed|").count("|computed|") == 1
