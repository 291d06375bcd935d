"""A leg over a stream, its far end played here, in virtual time: what goes out when, and what counts as heard."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from sipserver.audio.clock import LegClock
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.errors import CallerError, CarrierError
from sipserver.events import (
    DigitReceived,
    Event,
    LegAnswered,
    LegDisconnected,
    MediaRecovered,
    MediaStalled,
    MediaStarted,
    StreamDropped,
    StreamMessage,
    StreamResumed,
    StreamStats,
)
from sipserver.streams.leg import StreamLeg
from tests.fakes.stream_line import StreamLine, offer
from tests.fakes.virtual_time import virtual

TICK_S = 0.02


class Party:
    """A leg that is connected, what it told, and what its listener got."""

    def __init__(self, line: StreamLine, *, direction: str = "inbound", connect: bool = True) -> None:
        self.line, self.clock = line, LegClock()
        self.leg = StreamLeg(offer(direction), line, self.clock, stalled_s=0.5)
        self.events: list[Event] = []
        self.media: list[tuple[Frame, Frame]] = []
        self.leg.attach(self.events.append, lambda heard, played: self.media.append((heard, played)))
        if connect:
            self.leg.connected()

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def ticks(self, count: int) -> None:
        await asyncio.sleep(count * TICK_S)

    def end(self) -> None:
        self.leg.gone(0, "over", by_peer=True)


def ramp(frames: int, first: int = 1) -> Samples:
    """Every frame is another constant: it can be told which one it was."""
    samples: Samples = np.repeat(np.arange(first, first + frames, dtype=np.int16) * 100, FRAME_SAMPLES)
    return samples


def payload(number: int) -> bytes:
    return np.full(FRAME_SAMPLES, number * 100, "<i2").tobytes()


@virtual
async def test_nothing_is_sent_while_there_is_nothing_to_play() -> None:
    party = Party(StreamLine(lead_ms=60))
    await party.ticks(20)
    assert party.line.payloads == []
    party.end()


@virtual
async def test_sound_runs_ahead_by_the_lead_and_then_in_step() -> None:
    party = Party(StreamLine(lead_ms=60))
    clip = party.leg.playout.begin("words")
    clip.write_now(ramp(20))
    await party.ticks(1)
    assert len(party.line.payloads) in (4, 5), "one that is due, and 60 ms ahead"
    before = len(party.line.payloads)
    await party.ticks(5)
    assert len(party.line.payloads) == before + 5
    await party.ticks(20)
    assert party.line.payloads == [payload(number) for number in range(1, 21)]
    party.end()


@virtual
async def test_a_clip_is_heard_when_its_mark_is_back() -> None:
    party = Party(StreamLine())
    clip = party.leg.playout.begin("words")
    clip.write_now(ramp(5))
    clip.finish()
    await party.ticks(15)
    assert party.line.mark_names == ["m1"]
    heard = asyncio.ensure_future(clip.heard())
    await party.ticks(2)
    assert not heard.done()
    assert clip.played_ms < 100
    party.leg.marked("m1")
    assert await heard
    assert clip.played_ms == 100
    party.end()


@virtual
async def test_what_a_clear_throws_away_was_not_heard() -> None:
    party = Party(StreamLine(lead_ms=100))
    clip = party.leg.playout.begin("words")
    clip.write_now(ramp(50))
    clip.finish()
    await party.ticks(10)
    sent_ms = 20 * len(party.line.payloads)
    assert party.leg.playout.flush() == [clip]
    assert party.line.said[-1] == "clear"
    assert sent_ms - 140 <= clip.played_ms <= sent_ms - 80, "what lay there is not heard"
    fixed, count = clip.played_ms, len(party.line.payloads)
    party.leg.marked("m1", cleared=True)
    await party.ticks(10)
    assert (clip.played_ms, len(party.line.payloads)) == (fixed, count)
    party.end()
    stats = party.of(StreamStats)[-1]
    assert isinstance(stats, StreamStats)
    assert (stats.marks_played, stats.marks_cleared) == (0, 1)


@virtual
async def test_a_flush_of_nothing_asks_for_no_clear() -> None:
    party = Party(StreamLine())
    party.leg.playout.flush()
    assert party.line.said == []
    party.end()


@virtual
async def test_the_listener_gets_both_sides_once_a_tick() -> None:
    party = Party(StreamLine())
    party.leg.playout.begin("words").write_now(ramp(10))
    for number in range(1, 31):
        party.leg.heard(payload(number))
        await party.ticks(1)
    assert len(party.media) in (29, 30, 31)
    heard = [int(frame.samples[-1]) for frame, _ in party.media if frame.samples.any()]
    played = [int(frame.samples[-1]) for _, frame in party.media if frame.samples.any()]
    assert heard == [100 * number for number in range(1, len(heard) + 1)]
    assert len(heard) >= 25
    assert played == [100 * number for number in range(1, 11)]
    party.end()


@virtual
async def test_sound_that_nobody_wants_is_not_decoded() -> None:
    party = Party(StreamLine())
    party.leg.hear(False)
    party.leg.heard(b"\0")  # half a sample: whoever decodes it counts it
    await party.ticks(5)
    assert party.media == []
    party.leg.hear(True)
    party.leg.heard(b"\0")
    party.end()
    stats = party.of(StreamStats)[-1]
    assert isinstance(stats, StreamStats)
    assert (stats.received, stats.bad) == (2, 1)


@virtual
async def test_an_echo_goes_back_as_it_came() -> None:
    party = Party(StreamLine("mulaw8"))
    party.leg.loop_back(True)
    party.leg.heard(bytes(range(160)))
    party.leg.heard(b"\x7f" * 7)
    assert party.line.payloads == [bytes(range(160)), b"\x7f" * 7]
    party.leg.loop_back(False)
    party.leg.heard(bytes(160))
    assert len(party.line.payloads) == 2
    party.end()


@virtual
async def test_one_leg_hears_another_one() -> None:
    caller, agent = Party(StreamLine()), Party(StreamLine())
    caller.leg.feed(agent.leg, True)
    for number in range(1, 21):
        caller.leg.heard(payload(number))
        await caller.ticks(1)
    got = [sound for sound in agent.line.payloads if any(sound)]
    assert len(got) >= 14
    first = int(np.frombuffer(got[0], "<i2")[0]) // 100
    assert got == [payload(number) for number in range(first, first + len(got))]
    caller.leg.feed(agent.leg, False)
    await caller.ticks(10)
    count = len(agent.line.payloads)
    caller.leg.heard(payload(1))
    await caller.ticks(10)
    assert len(agent.line.payloads) == count
    caller.end()
    agent.end()


@virtual
async def test_silence_is_told_and_its_end() -> None:
    party = Party(StreamLine())
    await party.ticks(40)
    assert len(party.of(MediaStalled)) == 1
    party.leg.heard(payload(1))
    assert len(party.of(MediaRecovered)) == 1
    party.end()


@virtual
async def test_a_carriers_call_is_answered_once_and_media_starts_once() -> None:
    party = Party(StreamLine("mulaw8"))
    await party.leg.answer()
    await party.leg.answer()
    party.leg.connected()
    assert party.of(LegAnswered) == [LegAnswered(200)]
    assert party.of(MediaStarted) == [MediaStarted("PCMU", 0, 8000, "192.0.2.1")]
    party.end()


@virtual
async def test_a_leg_that_we_place_is_answered_when_its_stream_comes() -> None:
    party = Party(StreamLine(), direction="outbound", connect=False)
    answer = asyncio.ensure_future(party.leg.answer())
    await party.ticks(10)
    assert not answer.done()
    party.leg.connected()
    await answer
    assert len(party.of(LegAnswered)) == 1
    party.end()


@virtual
async def test_a_leg_that_we_place_and_nobody_takes() -> None:
    party = Party(StreamLine(), direction="outbound", connect=False)
    answer = asyncio.ensure_future(party.leg.answer())
    await party.ticks(1)
    party.leg.gone(486, "busy", by_peer=True)
    with pytest.raises(CarrierError, match="busy") as refused:
        await answer
    assert refused.value.status == 486
    assert party.of(LegDisconnected) == [LegDisconnected(486, "busy", True)]


@virtual
async def test_the_last_word_is_said_once_and_nothing_after_it() -> None:
    party = Party(StreamLine())
    clip = party.leg.playout.begin("words")
    clip.write_now(ramp(20))
    await party.leg.hangup(486)
    party.end()
    party.leg.heard(payload(1))
    party.leg.pressed("1")
    party.leg.dropped(1006, "lost")
    party.leg.connected()
    await party.ticks(10)
    assert isinstance(party.events[-1], LegDisconnected)
    assert len(party.of(LegDisconnected)) == 1
    assert party.line.said == ["hang up 486"]
    assert clip.cancelled
    assert party.clock.legs == 0
    await party.leg.hangup()
    with pytest.raises(CarrierError):
        await party.leg.answer()
    with pytest.raises(CarrierError):
        await party.leg.send_digits("1")


@virtual
async def test_what_is_to_be_played_waits_while_the_line_is_down() -> None:
    party = Party(StreamLine())
    clip = party.leg.playout.begin("words")
    clip.write_now(ramp(10))
    await party.ticks(4)
    party.leg.dropped(1006, "lost")
    count = len(party.line.payloads)
    await party.ticks(20)
    assert len(party.line.payloads) == count
    party.leg.connected()
    await party.ticks(15)
    assert party.line.payloads == [payload(number) for number in range(1, 11)]
    assert (len(party.of(StreamDropped)), len(party.of(StreamResumed))) == (1, 1)
    party.end()


@virtual
async def test_digits_both_ways() -> None:
    party = Party(StreamLine())
    party.leg.pressed("5")
    party.leg.pressed("x")
    assert party.of(DigitReceived) == [DigitReceived("5", "stream")]
    with pytest.raises(CallerError):
        await party.leg.send_digits("12x")
    party.line.presses = True
    await party.leg.send_digits("12#")
    assert party.line.said == ["press 12#"]
    party.line.presses = False
    party.line.marks = False
    await party.leg.send_digits("1")
    assert party.line.payloads, "tones"
    party.end()


@virtual
async def test_messages_are_told_for_the_record() -> None:
    party = Party(StreamLine())
    party.leg.noted("received", "start", "{}")
    assert party.of(StreamMessage) == [StreamMessage("received", "start", "{}")]
    party.end()
