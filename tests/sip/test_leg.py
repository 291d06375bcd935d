"""The leg alone, fed with facts, its control a list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import pytest

from sipserver.audio.frame import SILENCE_PAYLOAD
from sipserver.audio.playout import Playout
from sipserver.calls.leg import Leg
from sipserver.errors import CarrierError
from sipserver.events import DigitReceived, LegAnswered, LegHeld, LegResumed, MediaStarted
from sipserver.sip import facts
from sipserver.sip.leg import SipLeg
from sipserver.sip.offer import SipOffer
from sipserver.sip.port import MediaLine
from tests.fakes.sip_rig import Listener

MEDIA = facts.MediaUp("PCMA", 8, 8000, "192.0.2.1:4000", 101, held=False)


class Control:
    def __init__(self) -> None:
        self.sent: list[object] = []
        self.gone = False

    async def _do(self, what: object) -> None:
        if self.gone:
            raise CarrierError("the leg is gone")
        self.sent.append(what)

    def respond(self, code: int, reason: str, headers: Mapping[str, str]) -> Awaitable[None]:
        return self._do(code)

    def end(self, code: int) -> Awaitable[None]:
        return self._do(("end", code))

    def press(self, keys: str, duration_ms: int) -> Awaitable[None]:
        return self._do((keys, duration_ms))

    def refer(self, uri: str, replaced: int | None) -> Awaitable[None]:
        return self._do(("refer", uri, replaced))

    def wire(self) -> None:
        self.sent.append("wire")


def made(direction: str = "inbound") -> tuple[SipLeg, Control]:
    control = Control()
    offer = SipOffer(direction, "sip:a@b", "a", "sip:c@d", "c", "192.0.2.1:5060", "udp", "id", {})
    return SipLeg(1, offer, control, MediaLine(Playout()), stalled_s=2), control


async def test_it_is_a_leg_for_calls() -> None:
    leg: Leg = made()[0]
    assert leg.offer.to_user == "c"


async def test_what_happened_before_is_delivered_when_attached() -> None:
    leg, _ = made()
    leg.apply(facts.Message("received", "p", "INVITE sip:a SIP/2.0\r\n\r\n"))
    leg.apply(MEDIA)
    listener = Listener(leg)
    assert [event.kind for event in listener.events] == ["sip.message", "media.started"]


async def test_facts_become_events() -> None:
    leg, _ = made()
    listener = Listener(leg)
    assert not leg.wants_inband_digits
    leg.apply(MEDIA)
    leg.apply(facts.MediaUp("PCMA", 8, 8000, "192.0.2.1:4000", 101, held=True))
    leg.apply(MEDIA)
    leg.apply(facts.Key("1", "rfc4733", 5, None))
    leg.apply(facts.Key("1", "rfc4733", 5, None))
    leg.apply(facts.MediaUp("PCMU", 0, 8000, "192.0.2.2:4000", None, held=False))
    assert [type(event) for event in listener.events] == [
        MediaStarted,
        LegHeld,
        LegResumed,
        DigitReceived,
        MediaStarted,
    ]
    assert leg.wants_inband_digits
    leg.apply(facts.Key("1", "info", 0, 100))
    assert not leg.wants_inband_digits


async def test_the_end_is_the_last_event() -> None:
    leg, control = made()
    listener = Listener(leg)
    leg.playout.begin("x")
    leg._line.frames.append((1, SILENCE_PAYLOAD, SILENCE_PAYLOAD))
    leg.apply(facts.Ended(200, "Normal call clearing", True, facts.Snapshot(1.0, received=5)))
    leg.apply(facts.Ended(500, "again", True, None))
    leg.apply(MEDIA)
    leg.deliver()
    assert [event.kind for event in listener.events] == ["media.rtp", "leg.disconnected"]
    assert listener.heard == []
    await leg.hangup()
    await leg.reject(486)
    for method in (leg.ring, leg.early, leg.answer, leg.answered):
        with pytest.raises(CarrierError):
            await method()
    with pytest.raises(CarrierError):
        await leg.send_digits("1")
    assert control.sent == []
    assert (await leg.ended()).code == 200


async def test_answer_waits_for_the_ack_or_media_and_is_said_once() -> None:
    leg, control = made()
    listener = Listener(leg)
    answering = asyncio.create_task(leg.answer())
    await listener.event(LegAnswered)
    assert not answering.done()
    leg.apply(facts.Confirmed())
    await answering
    await leg.answer()
    assert control.sent == [200]
    await leg.reject(486)
    assert control.sent == [200, ("end", 486)]
    assert len(listener.of(LegAnswered)) == 1


async def test_a_caller_who_goes_while_we_answer_is_told() -> None:
    leg, _ = made()
    answering = asyncio.create_task(leg.answer())
    await asyncio.sleep(0)
    leg.apply(facts.Ended(487, "Request Terminated", True, None))
    with pytest.raises(CarrierError) as gone:
        await answering
    assert gone.value.status == 487


async def test_a_command_that_meets_a_leg_just_gone() -> None:
    leg, control = made()
    control.gone = True
    await leg.hangup()
    await leg.reject(500)
    with pytest.raises(CarrierError):
        await leg.ring()


async def test_a_failing_listener_does_not_stop_the_frames() -> None:
    leg, _ = made()
    calls = []

    def on_media(*frames: object) -> None:
        calls.append(frames)
        raise ValueError("listener")

    leg.attach(lambda _: None, on_media)
    for tick in range(3):
        leg._line.frames.append((tick, SILENCE_PAYLOAD, SILENCE_PAYLOAD))
    leg.deliver()
    assert len(calls) == 3
    assert leg.overruns == 0


async def test_digits_need_media_and_must_be_digits() -> None:
    leg, control = made()
    with pytest.raises(CarrierError, match="media"):
        await leg.send_digits("1")
    leg.apply(MEDIA)
    await leg.send_digits("1a", 10)
    assert control.sent == ["wire", ("1A", 10)]


async def test_wires_are_asked_for_once_media_runs() -> None:
    leg, control = made()
    leg.hear(False)
    leg.playout.begin("hymn")
    leg.loop_back(True)
    assert control.sent == []
    leg.apply(MEDIA)
    assert control.sent == ["wire"]
    leg.loop_back(False)
    assert control.sent == ["wire"] * 2
    leg.apply(facts.Ended(200, "bye", True, None))
    leg.hear(True)
    assert control.sent == ["wire"] * 2
