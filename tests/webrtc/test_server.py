"""Calls from browsers by HTTP, with aiortc as the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sipserver.events import DigitReceived, IceChanged, LegDisconnected, MediaStarted
from sipserver.webrtc.peer import Peer
from sipserver.webrtc.settings import WebRtcSettings
from tests.fakes.until import until
from tests.webrtc.rig import Browser, Call, Site, browser, post, share, site

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def connected(there: Site, one: Browser) -> Call:
    response = await one.call(there)
    assert response.status == 201, await response.text()
    async with asyncio.timeout(10):
        return await there.calls.get()


async def test_a_browser_is_heard_hears_and_hangs_up() -> None:
    async with site() as there, browser(440) as one:
        call = await connected(there, one)
        await call.leg.answer()
        await until(lambda: share(call.heard()[-8000:], 440, 16_000) > 0.8, "our tone")
        call.leg.loop_back(True)
        await until(lambda: one.level(440) > 0.8, "the echo")
        started = call.of(MediaStarted)[0]
        assert (started.codec, started.clock_hz, started.encrypted) == ("opus", 48_000, True)
        assert call.of(IceChanged)[0].state == "connected"
        assert call.of(IceChanged)[0].pair.startswith("host-")
        async with there.session.delete(there.url + one.location) as response:
            assert response.status == 200
        assert [event.cause for event in call.of(LegDisconnected)] == ["hung up"]
        await until(lambda: one.shown[-1:] == [{"kind": "hangup", "code": 0, "reason": "hung up"}], "the last word")
        assert {"kind": "call.state", "state": "answered"} in one.shown
        assert there.server.sessions == 0


@pytest.mark.parametrize("codec", ["opus", "G722", "PCMU", "PCMA"])
async def test_what_we_play_is_heard_in_every_codec(codec: str) -> None:
    settings = WebRtcSettings(codecs=(codec,))  # type: ignore[arg-type]
    async with site(settings) as there, browser() as one:
        call = await connected(there, one)
        assert call.of(MediaStarted)[0].codec == codec
        pressing = asyncio.create_task(call.leg.send_digits("5", 2000))
        await until(lambda: one.level(770) + one.level(1336) > 0.8, "both tones of a 5")
        await pressing
        await until(lambda: share(call.heard()[-8000:], 440, 16_000) > 0.8, "the browser's tone")


async def test_digits_and_pings_come_over_the_data_channel() -> None:
    async with site() as there, browser() as one:
        call = await connected(there, one)
        channel = one.channel
        assert channel is not None
        await until(lambda: channel.readyState == "open", "the channel")
        for text in ("no JSON", "[1]", '{"digits": 5}', '{"digits": "1#x"}', '{"ping": 17.5}', "[" * 9000):
            channel.send(text)
        await until(lambda: {"pong": 17.5} in one.shown, "the pong")
        assert [event.digit for event in call.of(DigitReceived)] == ["1", "#"]
        channel.send('{"hangup": true}')
        await until(lambda: bool(call.of(LegDisconnected)), "the end")
        assert call.of(LegDisconnected) == [LegDisconnected(0, "hung up", True)]


async def test_an_ice_restart_is_another_connection_of_the_same_leg() -> None:
    async with site() as there, browser(440) as one, browser(880) as other:
        call = await connected(there, one)
        await until(lambda: share(call.heard()[-8000:], 440, 16_000) > 0.8, "the first tone")
        headers = {"Content-Type": "application/sdp", "If-Match": one.etag}
        async with there.session.patch(there.url + one.location, data=await other.offer(), headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["ETag"] != one.etag
            await other.answered(await answer.text())
        await until(lambda: share(call.heard()[-8000:], 880, 16_000) > 0.8, "the second tone")
        async with there.session.patch(there.url + one.location, data="v=0", headers=headers) as answer:
            assert answer.status == 412
        assert len(there.all) == 1
        assert not call.of(LegDisconnected)
        await until(lambda: one.connection.connectionState == "closed", "the end of the first connection")


async def test_a_browser_that_left_may_come_back_for_a_while() -> None:
    async with site(WebRtcSettings(restart_s=0.3)) as there, browser() as one:
        call = await connected(there, one)
        await one.close()
        await until(lambda: bool(call.of(LegDisconnected)), "the end")
        assert [event.cause for event in call.of(LegDisconnected)] == ["the browser is gone"]
        assert [event.state for event in call.of(IceChanged)] == ["connected", "closed"]


async def test_no_call_begins_while_there_is_no_path() -> None:
    async with site(WebRtcSettings(ice_s=0.3)) as there, browser() as one:
        lines = (await one.offer()).splitlines()
        nowhere = [line for line in lines if not line.startswith("a=candidate")]
        response = await post(there, "\r\n".join(nowhere) + "\r\n")
        assert response.status == 201
        await until(lambda: there.server.sessions == 0, "the end of the session")
        assert there.all == []


@pytest.mark.parametrize(
    ("sdp", "content_type", "status"),
    [
        ("rubbish", "application/sdp", 400),
        ("v=0\r\n", "application/sdp", 422),
        ("v=0\r\nm=audio nonsense\r\na=rtpmap:\r\n", "application/sdp", 400),
        (b"\xff\xfe", "application/sdp", 400),
        ("v=0\r\n" + "a=x\r\n" * 20_000, "application/sdp", 413),
        ("v=0\r\n", "text/plain", 415),
    ],
)
async def test_bad_offers_are_refused(sdp: str | bytes, content_type: str, status: int) -> None:
    async with site() as there:
        response = await post(there, sdp, content_type=content_type)
        assert response.status == status, await response.text()
        assert there.server.sessions == 0


async def test_tokens_are_asked_for_and_used_up() -> None:
    async with site(WebRtcSettings(ice_s=0.3)) as there, browser() as one:
        sdp = await one.offer()
        token = there.token()
        assert (await post(there, sdp, token="")).status == 403
        assert (await post(there, sdp, to="other", token=token)).status == 403
        assert (await post(there, sdp, token=token)).status == 201
        assert (await post(there, sdp, token=token)).status == 403


async def test_no_more_calls_than_there_is_room_for() -> None:
    async with site(WebRtcSettings(calls=1)) as there, browser() as one, browser() as other:
        await connected(there, one)
        assert (await other.call(there)).status == 503


async def test_a_refused_call_tells_the_page_why() -> None:
    async with site() as there, browser() as one:
        call = await connected(there, one)
        await call.leg.reject(404, "nobody has this number")
        await until(lambda: bool(one.shown), "the last word")
        assert one.shown[-1] == {"kind": "hangup", "code": 404, "reason": "nobody has this number"}


async def test_a_restart_that_finds_no_path_leaves_the_call_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Peer] = []
    close = Peer.close

    async def noted(peer: Peer, last_words: Sequence[str] = ()) -> None:
        await close(peer, last_words)
        closed.append(peer)

    monkeypatch.setattr(Peer, "close", noted)
    async with site(WebRtcSettings(restart_s=0.3)) as there, browser(440) as one, browser() as other:
        call = await connected(there, one)
        elsewhere = [line for line in (await other.offer()).splitlines() if not line.startswith("a=candidate")]
        headers = {"Content-Type": "application/sdp"}
        body = "\r\n".join(elsewhere) + "\r\n"
        async with there.session.patch(there.url + one.location, data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        await until(lambda: len(closed) == 1, "the end of the connection that led nowhere")
        before = len(call.media)
        await until(lambda: len(call.media) > before + 50, "a second more")
        await until(lambda: share(call.heard()[-8000:], 440, 16_000) > 0.8, "the tone")
        assert not call.of(LegDisconnected)


class Held:
    """Answers of aiortc that wait for the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.free = asyncio.Event(), asyncio.Event()
        answer = Peer.answer

        async def late(peer: Peer, offer: str) -> str:
            self.asked.set()
            await self.free.wait()
            return await answer(peer, offer)

        monkeypatch.setattr(Peer, "answer", late)


async def test_a_restart_while_the_call_ends_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as there, browser() as one, browser() as other:
        call = await connected(there, one)
        held, sdp = Held(monkeypatch), await other.offer()
        headers = {"Content-Type": "application/sdp"}
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_patched(there, one.location, sdp, headers))
            await held.asked.wait()
            await call.leg.hangup()
            held.free.set()
        assert asking.result() == 404
        assert there.server.sessions == 0


async def test_an_offer_that_comes_while_the_server_shuts_down_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as there, browser() as one:
        held, sdp = Held(monkeypatch), await one.offer()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(post(there, sdp))
            await held.asked.wait()
            await there.server.close()
            held.free.set()
        assert asking.result().status == 503
        assert there.server.sessions == 0


async def _patched(there: Site, location: str, sdp: str, headers: dict[str, str]) -> int:
    async with there.session.patch(there.url + location, data=sdp, headers=headers) as answer:
        return answer.status
