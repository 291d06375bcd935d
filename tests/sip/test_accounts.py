"""Which account a call uses, how few PJSIP has of them, and that none answers a challenge that it must not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sipserver.errors import CarrierError, SettingsError
from sipserver.sip.accounts import MOST_ACCOUNTS, check_number
from tests.fakes.sip_peer import SipPeer, header, sdp
from tests.sip.test_registration import cell_with, trunk_at
from tests.trunks.make import trunk

CREDENTIALS = {"user": "alice", "password_env": "ALICE_PASSWORD", "realm": "acme"}
CHALLENGE = 'WWW-Authenticate: Digest realm="{}", nonce="{}", algorithm=MD5, qop="auth"\r\n'


def credentialed(name: str, port: int, **facts: Any) -> dict[str, Any]:
    return {"name": name, "host": f"127.0.0.1:{port}", "credentials": CREDENTIALS, "srtp": "off", **facts}


async def test_more_trunks_than_accounts_take_turns() -> None:
    async with SipPeer.open(0) as peer:
        trunks = [trunk(**credentialed(f"t{number}", peer.port)) for number in range(MOST_ACCOUNTS + 4)]
        async with cell_with(*trunks) as rig:
            peer.server_port = rig.cell.sip_port
            for number in (*range(MOST_ACCOUNTS + 4), 0, 1):
                leg = await rig.cell.dial(f"sip:200@127.0.0.1:{peer.port}", trunk=f"t{number}")
                invite = await peer.receive("INVITE")
                peer.answer(invite, "401 Unauthorized", headers=CHALLENGE.format("acme", number))
                again = await peer.receive("INVITE")
                assert 'username="alice"' in header(again, "Authorization")
                peer.answer(again, "486 Busy Here")
                assert (await leg.ended()).code == 486


def test_more_registrations_than_accounts_are_told_at_the_start() -> None:
    trunks = [trunk_at("192.0.2.1", name=f"t{number}") for number in range(MOST_ACCOUNTS)]
    check_number(trunks[:-1])
    with pytest.raises(SettingsError, match=f"{MOST_ACCOUNTS} trunks register, and a server has room for 7"):
        check_number(trunks)
    encrypted = [trunk_at("192.0.2.1", name=f"t{number}", srtp="required") for number in range(MOST_ACCOUNTS - 1)]
    with pytest.raises(SettingsError, match="room for 6"):
        check_number(encrypted)


@pytest.mark.parametrize("realms", [("acme", "acme"), ("elsewhere",)])
async def test_a_call_is_challenged_twice_at_most_and_for_its_realm_alone(realms: tuple[str, ...]) -> None:
    async with SipPeer.open(0) as peer, cell_with(trunk(**credentialed("t", peer.port))) as rig:
        peer.server_port = rig.cell.sip_port
        leg = await rig.cell.dial(f"sip:200@127.0.0.1:{peer.port}", trunk="t")
        for number, realm in enumerate(realms):
            invite = await peer.receive("INVITE")
            assert bool(header(invite, "Authorization")) == (number > 0)
            peer.answer(invite, "401 Unauthorized", headers=CHALLENGE.format(realm, f"nonce {number}"))
        with pytest.raises(CarrierError) as refused:
            await leg.answered()
        assert refused.value.status == 401
        assert not [text for text in peer.seen() if text.startswith("INVITE")]


async def test_credentials_are_never_used_in_a_dialog_that_the_peer_began() -> None:
    async with SipPeer.open(0) as peer:
        mine = trunk(**credentialed("t", peer.port, sources=["127.0.0.1/32"]))
        async with cell_with(mine) as rig:
            peer.server_port = rig.cell.sip_port
            ours = await rig.cell.dial(f"sip:200@127.0.0.1:{peer.port}", trunk="t")  # the account exists from here on
            peer.answer(await peer.receive("INVITE"), "486 Busy Here")
            await ours.ended()
            call = peer.call("200")
            call.invite(sdp(9))
            leg = await rig.legs.get()
            assert leg.offer.trunk == "t"
            async with asyncio.TaskGroup() as both:
                both.create_task(leg.answer())
                await call.final()
                call.ack()
            await leg.hangup()
            bye = await peer.receive("BYE")
            peer.answer(bye, "401 Unauthorized", headers=CHALLENGE.format("acme", "trap"), tag="")
            await leg.ended()
            with pytest.raises(TimeoutError):
                await peer.receive("BYE", timeout_s=0.5)
