from __future__ import annotations

from sipserver.events import Event, MediaRecovered, MediaSourceChanged, MediaStalled, RtpStats
from sipserver.sip.facts import Snapshot
from sipserver.sip.rtp_watch import RtpWatch


def watch(*seen: Snapshot, held: bool = False, stalled_s: float = 2) -> list[Event]:
    watcher = RtpWatch(stalled_s)
    return [event for one in seen for event in watcher.observe(one, held=held)]


def at(second: float, received: int, source: str = "", ssrc: int | None = None) -> Snapshot:
    return Snapshot(second, received=received, source=source, ssrc=ssrc)


def test_statistics_come_every_five_seconds() -> None:
    events = watch(*(at(second, second * 50) for second in range(1, 13)))
    assert [event.received for event in events if isinstance(event, RtpStats)] == [300, 550]
    assert len(events) == 2


def test_a_stall_and_its_end_are_told_once() -> None:
    events = watch(at(0, 10), at(1, 10), at(2, 10), at(3, 10), at(4, 60), at(4.5, 80))
    assert events == [MediaStalled(2000), MediaRecovered(4000)]


def test_no_packet_ever_is_a_stall_too() -> None:
    watcher = RtpWatch(2)
    events = [event for second in range(4) for event in watcher.observe(at(second, 0), held=False)]
    assert events == [MediaStalled(2000)]


def test_nothing_stalls_on_hold() -> None:
    assert watch(*(at(second, 10) for second in range(5)), held=True) == []


def test_a_stall_that_turns_into_a_hold_recovers_with_the_first_packet() -> None:
    watcher = RtpWatch(2)
    events: list[Event] = []
    for second, received, held in [(0, 1, False), (2, 1, False), (3, 1, True), (4, 1, True), (4.5, 2, False)]:
        events += watcher.observe(at(second, received), held=held)
    assert events == [MediaStalled(2000), MediaRecovered(500)]


def test_another_source_is_told() -> None:
    events = watch(
        at(0, 0),
        at(1, 5, "a:1", 1),
        at(2, 9, "b:2", 1),
        at(3, 12, "b:2", 2),
        at(4, 13, "b:2", None),
        at(5, 14, "b:2", 2),
    )
    assert [event for event in events if isinstance(event, MediaSourceChanged)] == [
        MediaSourceChanged("a:1 ssrc 00000001", "b:2 ssrc 00000001"),
        MediaSourceChanged("b:2 ssrc 00000001", "b:2 ssrc 00000002"),
    ]


def test_the_opinion_falls_with_loss_and_delay() -> None:
    watcher = RtpWatch(2)
    perfect = watcher.report(Snapshot(0, received=1000))
    lossy = watcher.report(Snapshot(0, received=950, lost=50, round_trip_ms=20.004))
    late = watcher.report(Snapshot(0, received=950, lost=50, round_trip_ms=600, discarded=10))
    assert perfect.mos is not None
    assert lossy.mos is not None
    assert late.mos is not None
    assert 4.5 > perfect.mos > 4.3 > lossy.mos > late.mos > 1
    assert lossy.round_trip_ms == 20.0
    assert watcher.report(Snapshot(0)).mos is None


def test_a_second_copy_of_each_packet_is_no_loss() -> None:
    doubled = RtpWatch(2).report(Snapshot(0, received=2000, duplicated=1000, discarded=1000))
    late = RtpWatch(2).report(Snapshot(0, received=1000, discarded=250))
    assert doubled.mos is not None
    assert late.mos is not None
    assert doubled.mos > 4.3 > late.mos
