"""Calls that come in at a cell with trunks: who may, by which trunk, with which codecs, keys and headers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from sipserver.errors import SettingsError
from sipserver.sip import native
from sipserver.sip.cell import Cell
from sipserver.sip.leg import SipLeg
from sipserver.sip.settings import SipSettings
from sipserver.trunks import admittance
from sipserver.trunks.settings import TrunkSettings
from tests.fakes.digest import challenges, credentials
from tests.fakes.sip_peer import SipPeer, body_of, header, sdp, status_of
from tests.fakes.sip_rig import Rig
from tests.trunks.make import trunk

HERE = {"sources": ["127.0.0.1/32"], "srtp": "off", "host": ""}
ELSEWHERE = trunk("carrier", sources=["192.0.2.0/24"])
PASSWORDS = {"BOB": "bob's"}
SILENCE_S = 0.3


@asynccontextmanager
async def running(*trunks: TrunkSettings, **settings: Any) -> AsyncIterator[Rig]:
    legs: asyncio.Queue[SipLeg] = asyncio.Queue()
    sip = SipSettings(**{"port": 0, "rtp_ports": (20_000, 20_199), **settings})
    cell = Cell(sip, legs.put_nowait, goodbye_s=0.2, trunks=trunks, passwords=PASSWORDS)
    await cell.start()
    try:
        yield Rig(cell, legs)
    finally:
        await cell.stop()


async def silent(peer: SipPeer) -> bool:
    try:
        await peer.receive(timeout_s=SILENCE_S)
    except TimeoutError:
        return not peer.seen()
    return False


async def test_a_call_belongs_to_the_trunk_of_its_source_and_shows_the_headers_that_it_lets_in() -> None:
    mine = trunk("mine", headers_in=["x-*"], **HERE)
    async with running(ELSEWHERE, mine) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call("200")
        call.invite(sdp(9), headers="X-Ticket: 7\r\nDiversion: <sip:1@x>\r\nX-Sipserver-Trunk: forged\r\n")
        leg = await rig.leg()
        assert leg.offer.trunk == "mine"
        assert dict(leg.offer.headers) == {"x-ticket": "7"}
        await leg.reject(480)
        assert status_of(await call.final()) == 480


async def test_strangers_get_403_a_few_times_and_nothing_else_ever() -> None:
    with capture_logs() as logs:
        await _knock_as_a_stranger()
    refused = [entry for entry in logs if entry["event"] == "call refused"]
    assert len(refused) == admittance.REFUSALS
    assert refused[0]["source"].startswith("127.0.0.1:")


async def _knock_as_a_stranger() -> None:
    async with running(ELSEWHERE) as rig, SipPeer.open(rig.port) as peer:
        for _ in range(admittance.REFUSALS):
            call = peer.call()
            call.invite(sdp(9))
            assert status_of(await call.final()) == 403
        peer.call().invite(sdp(9))
        for method in ("OPTIONS", "REGISTER", "SUBSCRIBE", "MESSAGE", "BYE", "CANCEL", "INFO", "NOTHING"):
            peer.send(peer.call().request(method))
        assert await silent(peer)
        assert rig.cell.refused == {"source": admittance.REFUSALS + 1}
        assert rig.legs.empty()


async def test_known_peers_are_answered() -> None:
    async with running(trunk("mine", **HERE)) as rig, SipPeer.open(rig.port) as peer:
        assert status_of(await peer.once("OPTIONS")) == 200
        assert status_of(await peer.once("REGISTER")) == 405


@pytest.mark.parametrize("number", [0, 1])
async def test_a_phone_proves_itself_with_either_algorithm(number: int) -> None:
    phones = trunk("phones", host="", srtp="off", users=[{"name": "bob", "password_env": "BOB"}])
    async with running(ELSEWHERE, phones) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call("200")
        target = call.target
        call.invite(sdp(9))
        challenge = await call.final()
        assert status_of(challenge) == 401
        offered = challenges(challenge)
        assert ["SHA-256" in offered[0], "MD5" in offered[1], len(offered)] == [True, True, 2]
        call.to, call.target = f"<{target}>", target
        call.invite(
            sdp(9), headers=f"Authorization: {credentials(offered[number], 'bob', PASSWORDS['BOB'], target)}\r\n"
        )
        leg = await rig.leg()
        assert leg.offer.trunk == "phones"
        assert "authorization" not in leg.offer.headers
        await leg.reject(480)
        assert status_of(await call.final()) == 480


async def test_a_heard_request_cannot_be_sent_again_and_a_guess_is_challenged_again() -> None:
    phones = trunk("phones", host="", users=[{"name": "bob", "password_env": "BOB"}])
    async with running(phones) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call("200")
        call.invite(sdp(9))
        offered = challenges(await call.final())[0]
        for secret, good in (("wrong", False), (PASSWORDS["BOB"], True), (PASSWORDS["BOB"], False)):
            again = peer.call("200")
            value = credentials(offered, "bob", secret, again.target)
            again.invite(sdp(9), headers=f"Authorization: {value}\r\n")
            if good:
                await (await rig.leg()).reject(480)
            assert status_of(await again.final()) == (480 if good else 401)
        assert rig.legs.empty()


async def test_garbage_for_credentials_is_challenged() -> None:
    phones = trunk("phones", host="", users=[{"name": "bob", "password_env": "BOB"}])
    async with running(phones) as rig, SipPeer.open(rig.port) as peer:
        for value in ("", "Digest", 'Digest username="bob', "Digest \xff\xfe", "Digest " + "a=b," * 300):
            peer.call("200").invite(sdp(9), headers=f"Authorization: {value}\r\n")  # PJSIP drops what it cannot parse
        call = peer.call("200")
        call.invite(sdp(9), headers='Authorization: Digest username="bob", a=b\r\n')
        assert status_of(await call.final()) == 401
        assert all(status_of(text) in {400, 401} for text in peer.seen())
        assert rig.legs.empty()


async def test_networks_of_sip_allow_call_by_no_trunk() -> None:
    async with running(ELSEWHERE, allow=("127.0.0.1/32",)) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call("200")
        call.invite(sdp(9))
        leg = await rig.leg()
        assert leg.offer.trunk == ""
        await leg.reject(480)
        await call.final()


async def test_more_calls_a_second_than_the_trunk_may_bring_are_put_off() -> None:
    async with running(trunk("mine", limits={"calls_per_s": 1}, **HERE)) as rig, SipPeer.open(rig.port) as peer:
        first, second = peer.call("200"), peer.call("201")
        first.invite(sdp(9))
        second.invite(sdp(9))
        await (await rig.leg()).reject(480)
        answers = {status_of(answer): answer for answer in (await first.final(), await second.final())}
        assert answers.keys() == {480, 503}
        assert header(answers[503], "Retry-After") == "1"


# --- codecs -----------------------------------------------------------------------------------------------------------


def codecs_of(text: str) -> list[str]:
    found = re.search(r"(?m)^m=audio \d+ \S+ ([^\r\n]*)", body_of(text))
    assert found
    return found[1].split()


async def test_the_trunks_codecs_are_answered_in_its_order_and_no_others() -> None:
    mine = trunk("mine", codecs=["PCMA", "G722"], **HERE)
    async with running(mine, codecs=("PCMU",)) as rig, SipPeer.open(rig.port) as peer:
        for offered, answered in (("0 9 8 101", ["8", "101"]), ("9 0 101", ["9", "101"]), ("0 8", ["8"])):
            call = peer.call("200")
            call.invite(sdp(9, offered))
            listener = await rig.answered()
            answer = await call.final()
            assert codecs_of(answer) == answered
            call.ack()
            again = await call.transact("INVITE", body=sdp(9, offered, version=2))
            assert codecs_of(again) == answered
            assert status_of(await call.transact("INVITE", body=sdp(9, "0", version=3))) == 488
            await listener.leg.hangup()
            peer.answer(await peer.receive("BYE"), "200 OK")
            await listener.leg.ended()


async def test_an_offer_of_ours_has_the_trunks_codecs_in_its_order() -> None:
    async with (
        running(trunk("mine", codecs=["PCMA", "G722"], **HERE), codecs=("PCMU",)) as rig,
        SipPeer.open(rig.port) as peer,
    ):
        for name, expected in (("mine", ["8", "9"]), ("", ["0"])):
            leg = await rig.cell.dial(f"sip:200@127.0.0.1:{peer.port}", trunk=name)
            invite = await peer.receive("INVITE")
            assert codecs_of(invite)[:-1] == expected
            peer.answer(invite, "486 Busy Here")
            await leg.ended()


async def test_a_late_offer_is_answered_with_the_trunks_codecs() -> None:
    async with running(trunk("mine", codecs=["PCMA", "G722"], **HERE)) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call("200")
        call.invite("")
        async with asyncio.TaskGroup() as both:
            answering = both.create_task(rig.answered())
            assert codecs_of(await call.final())[:-1] == ["8", "9"]
            call.ack(sdp(9, "8"))
        await answering.result().leg.hangup()


async def test_without_a_common_codec_it_is_488() -> None:
    mine = trunk("mine", codecs=["PCMA"], **HERE)
    async with running(mine) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call("200")
        call.invite(sdp(9, "0 9 101"))
        assert status_of(await call.final()) == 488
        assert rig.legs.empty()


def test_what_cannot_work_is_told_at_the_start() -> None:
    for facts, why in (
        ({"transport": "tcp"}, "sip.tcp"),
        ({"codecs": ["opus"]}, "none of its codecs"),
        ({"credentials": {"user": "x", "password_env": "NOT_THERE"}}, "NOT_THERE"),
    ):
        with pytest.raises(SettingsError, match=why):
            asyncio.run(_start(trunk("mine", **facts)))


async def _start(*trunks: TrunkSettings) -> None:
    cell = Cell(SipSettings(port=0, tcp=False), lambda _leg: None, trunks=trunks, passwords={})
    await cell.start()


# --- without PJSIP's symbols ------------------------------------------------------------------------------------------


async def test_without_the_symbols_calls_are_judged_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "function", lambda _name: None)
    phones = trunk("phones", host="", srtp="off", users=[{"name": "bob", "password_env": "BOB"}])
    async with running(ELSEWHERE, phones) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call("200")
        target = call.target
        call.invite(sdp(9))
        challenge = await call.final()
        assert status_of(challenge) == 401
        proof = credentials(challenges(challenge)[0], "bob", PASSWORDS["BOB"], target)
        for proved in (True, False):  # what was judged once is not believed twice
            again = peer.call("200")
            again.invite(sdp(9), headers=f"Authorization: {proof}\r\n")
            if proved:
                leg = await rig.leg()
                assert leg.offer.trunk == "phones"
                await leg.reject(480)
            assert status_of(await again.final()) == (480 if proved else 401)
