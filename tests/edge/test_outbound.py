"""Calls that cells place through the edge: where they go, what the peer sees, what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sipserver.edge import outside, render
from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import Edge
from sipserver.edge.settings import Listen
from sipserver.trunks.settings import TrunkSettings
from tests.harness.server import free_sip_port
from tests.servers.carrier import INSIDE, Behave, Carrier, Placed, Placer, placer, reply, take
from tests.servers.kamailio import Caller, header, headers, running, sdp, status_of

pytestmark = pytest.mark.peers

WITHIN = ("INVITE", "UPDATE", "PRACK", "INFO", "REFER", "NOTIFY")


@dataclass
class Rig:
    edge: Edge
    carrier: Carrier
    cell: Placer

    def call(self, **facts: Any) -> Placed:
        return self.cell.dialog(**{"at": self.carrier.address, **facts})

    async def answered(self, call: Placed, request: str, status: int = 200) -> str:
        """The far end's request to the cell, answered by it."""
        received = await self.cell.receive(request)
        self.cell.send(reply(received))
        return received


@asynccontextmanager
async def rig(
    folder: Path, carrier: Carrier | None = None, of_trunk: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Rig]:
    async with (carrier or Carrier()).running() as peer:
        trunk = TrunkSettings.model_validate(
            {"name": "carrier", "host": peer.address, "transport": peer.transport, **(of_trunk or {})}
        )
        async with running(folder, (), (trunk,), inside=INSIDE, **changes) as edge, placer(edge) as cell:
            yield Rig(edge, peer, cell)


async def test_a_call_and_its_end_from_either_side(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        for number, ends in enumerate(("cell", "carrier"), 1):
            call = made.call()
            answer = await call.invite()
            assert status_of(answer) == 200
            assert not headers(answer, "X-Sipserver-Refusal")
            invite = made.carrier.of("INVITE")[-1]
            assert invite.startswith(f"INVITE sip:+4930123456@{made.carrier.address} SIP/2.0")
            assert len(headers(invite, "Record-Route")) == 2
            await made.carrier.wait_for("ACK", number)
            if ends == "cell":
                assert status_of(await call.bye()) == 200
            else:
                made.carrier.send(made.carrier.request("BYE", invite))
                await made.answered(call, "BYE")
                assert status_of(await made.carrier.wait_for("SIP/2.0")) == 200


async def test_the_peer_sees_no_inside_address_and_none_of_our_headers(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        call = made.call()
        await call.invite(more="P-Asserted-Identity: <tel:+4940765432>\r\n")
        for method in WITHIN:
            made.cell.send(call.request(method, body=sdp(9, "0 101") if method in ("INVITE", "UPDATE") else ""))
            answer = await made.cell.receive()
            assert status_of(answer) == 200, method
            if method == "INVITE":
                made.cell.send(call.request("ACK", again=True))
        await call.bye()
        made.cell.send(made.call().request("OPTIONS"))
        assert status_of(await made.cell.receive()) == 200
        made.cell.send(made.call().request("REGISTER"))
        assert status_of(await made.cell.receive()) == 200
        for text in made.carrier.received:
            assert INSIDE not in text, text
            assert "inside" not in text, text
            assert "X-Sipserver" not in text, text
        assert header(made.carrier.of("INVITE")[0], "P-Asserted-Identity") == "<tel:+4940765432>"


async def test_requests_within_the_call_from_either_side(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        call = made.call()
        await call.invite()
        invite = made.carrier.of("INVITE")[0]
        for method in WITHIN:
            made.cell.send(call.request(method, body=sdp(9, "0 101") if method in ("INVITE", "UPDATE") else ""))
            assert status_of(await made.cell.receive()) == 200, method
            assert len(made.carrier.of(method)) == 1 + (method == "INVITE")
            made.carrier.send(
                made.carrier.request(method, invite, body=sdp(9, "0 101") if method in ("INVITE", "UPDATE") else "")
            )
            received = await made.answered(call, method)
            assert received.split(" ")[1] == f"sip:peer@{made.cell.own};transport=udp", method
            await made.carrier.wait_for("SIP/2.0", WITHIN.index(method) + 1)
        assert status_of(await call.bye()) == 200


async def test_a_call_goes_on_when_kamailio_was_started_anew(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        calls = [made.call(), made.call()]
        for call in calls:
            await call.invite()
        await made.edge.kill()
        await made.edge.start()
        assert status_of(await calls[0].bye()) == 200
        made.carrier.send(made.carrier.request("BYE", made.carrier.of("INVITE")[1]), made.edge.settings.listen[0].port)
        await made.answered(calls[1], "BYE")
        assert status_of(await made.carrier.wait_for("SIP/2.0")) == 200


@pytest.mark.parametrize("transport", ["tcp", "udp6"])
async def test_other_ways_out(tmp_path: Path, transport: str) -> None:
    host = "::1" if transport == "udp6" else "127.0.0.1"
    listen = (
        Listen(transport="udp", host="127.0.0.1", port=free_sip_port()),
        Listen(transport="tcp", host="127.0.0.1", port=free_sip_port()),
        Listen(transport="udp", host="::1", port=free_sip_port()),
    )
    async with rig(tmp_path, Carrier(transport=transport[:3], host=host), listen=listen) as made:
        call = made.call()
        assert status_of(await call.invite()) == 200
        invite = made.carrier.of("INVITE")[0]
        socket = listen[1] if transport == "tcp" else listen[2]
        assert header(invite, "Via").startswith(f"SIP/2.0/{transport[:3].upper()} {outside.advertised(socket)};")
        made.carrier.send(made.carrier.request("INFO", invite))
        await made.answered(call, "INFO")
        assert status_of(await call.bye()) == 200


async def test_a_peer_behind_nat_is_reached_where_it_answered(tmp_path: Path) -> None:
    """Its Contact names an address of its own network, in the answer to a later INVITE too."""
    async with rig(tmp_path, Carrier(contact="<sip:carrier@192.168.77.1:5060>")) as made:
        call = made.call()
        for number in range(1, 3):
            assert status_of(await call.invite()) == 200
            await made.carrier.wait_for("ACK", number)
        assert status_of(await call.bye()) == 200
        assert made.carrier.of("BYE")[0].startswith("BYE sip:carrier@192.168.77.1:5060 SIP/2.0")


async def test_the_outbound_proxy_is_the_first_hop(tmp_path: Path) -> None:
    async with (
        Carrier().running() as proxy,
        rig(tmp_path, of_trunk={"outbound_proxy": proxy.address}) as made,
    ):
        call = made.call(at="sip.example.net")
        assert status_of(await call.invite()) == 200
        assert proxy.of("INVITE")[0].startswith("INVITE sip:+4930123456@sip.example.net SIP/2.0")
        assert not headers(proxy.of("INVITE")[0], "Route")
        assert made.carrier.received == []


async def test_a_call_that_a_peers_refer_asked_for_goes_to_its_trunk_whatever_host_it_names(tmp_path: Path) -> None:
    """The cell adds no header to it: its Route names the trunk."""
    async with rig(tmp_path) as made:
        call = made.call(at="elsewhere.invalid", trunk="")
        call.routes = [f"<sip:{made.cell.server};lr;trunk=carrier>"]
        assert status_of(await call.invite()) == 200
        (invite,) = made.carrier.of("INVITE")
        assert invite.startswith("INVITE sip:+4930123456@elsewhere.invalid SIP/2.0")
        assert "trunk=" not in invite
        call = made.call(at=made.carrier.address, trunk="")
        call.routes = [f"<sip:{made.cell.server};lr;trunk=nobody>"]
        assert status_of(await call.invite()) == 503
        assert len(made.carrier.of("INVITE")) == 1


# --- other ends of a call ---------------------------------------------------------------------------------------------


def refuse(status: str, more: str = "") -> Behave:
    def behave(carrier: Carrier, request: str) -> None:
        carrier.answer(request, status if request.startswith("INVITE") else "200 OK", more=more)

    return behave


@pytest.mark.parametrize(
    "status", ["302 Moved Temporarily", "404 Not Found", "486 Busy Here", "488 Not Here", "503 Away", "603 Decline"]
)
async def test_a_refusal_reaches_the_cell_as_it_is(tmp_path: Path, status: str) -> None:
    more = "Retry-After: 7\r\nReason: Q.850;cause=17\r\n"
    async with rig(tmp_path, Carrier(refuse(status, more))) as made:
        refused = await made.call().invite()
        assert status_of(refused) == int(status[:3])
        if not status.startswith("503"):  # the edge's own, since the peer's may not be passed on (RFC 3261, 16.7)
            assert header(refused, "Reason") == "Q.850;cause=17"
        if status.startswith("302"):
            assert header(refused, "Contact") == made.carrier.contact
        assert len(made.carrier.of("INVITE")) == 1
        await made.carrier.wait_for("ACK")


@pytest.mark.parametrize(
    ("status", "challenge", "proof"),
    [
        ("401 Unauthorized", "WWW-Authenticate", "Authorization"),
        ("407 Proof", "Proxy-Authenticate", "Proxy-Authorization"),
    ],
)
async def test_a_challenge_is_the_cells_to_answer(tmp_path: Path, status: str, challenge: str, proof: str) -> None:
    asked = 'Digest realm="carrier", nonce="abc", algorithm=MD5, qop="auth"'

    def behave(carrier: Carrier, request: str) -> None:
        if request.startswith("INVITE") and not header(request, proof):
            carrier.answer(request, status, more=f"{challenge}: {asked}\r\n")
        else:
            take(carrier, request)

    async with rig(tmp_path, Carrier(behave), {"limits": {"calls_per_s": 1}}) as made:
        call = made.call()
        challenged = await call.invite()
        assert status_of(challenged) == int(status[:3])
        assert header(challenged, challenge) == asked
        answer = await call.invite(more=f'{proof}: Digest username="me", realm="carrier", response="1"\r\n')
        assert status_of(answer) == 200
        first, second = made.carrier.of("INVITE")
        assert header(first, "Call-ID") == header(second, "Call-ID")
        assert header(second, "CSeq") == "2 INVITE"
        assert header(second, proof).startswith("Digest username")
        assert status_of(await call.bye()) == 200


async def test_cancel(tmp_path: Path) -> None:
    invites: list[str] = []

    def behave(carrier: Carrier, request: str) -> None:
        if request.startswith("INVITE"):
            invites.append(request)
            carrier.answer(request, "180 Ringing")
        else:
            carrier.answer(request, "200 OK")
            carrier.answer(invites[0], "487 Request Terminated")

    async with rig(tmp_path, Carrier(behave)) as made:
        call = made.call()
        made.cell.send(call.request("INVITE", body=sdp(9, "0")))
        await made.cell.receive(180)
        made.cell.send(call.request("CANCEL", again=True))
        assert status_of(await made.cell.receive(200)) == 200
        assert status_of(await call.finish()) == 487
        assert INSIDE not in await made.carrier.wait_for("CANCEL")


async def test_a_late_200_after_cancel_reaches_the_cell(tmp_path: Path) -> None:
    invites: list[str] = []

    def behave(carrier: Carrier, request: str) -> None:
        if request.startswith("INVITE"):
            invites.append(request)
            carrier.answer(request, "180 Ringing")
        else:
            carrier.answer(request, "200 OK")
            if request.startswith("CANCEL"):
                carrier.answer(invites[0], "200 OK", body=sdp(9, "0"))

    async with rig(tmp_path, Carrier(behave)) as made:
        call = made.call()
        made.cell.send(call.request("INVITE", body=sdp(9, "0")))
        await made.cell.receive(180)
        made.cell.send(call.request("CANCEL", again=True))
        answers = [await made.cell.receive(200), await made.cell.receive(200)]
        late = next(answer for answer in answers if header(answer, "CSeq").endswith("INVITE"))
        call.take(late)
        made.cell.send(call.request("ACK"))
        await made.carrier.wait_for("ACK")
        assert status_of(await call.bye()) == 200


async def test_a_forked_call_is_answered_twice(tmp_path: Path) -> None:
    def behave(carrier: Carrier, request: str) -> None:
        if request.startswith("INVITE"):
            for tag in ("one", "two"):
                carrier.answer(request, "183 Session Progress", body=sdp(9, "0"), tag=tag)
        else:
            carrier.answer(request, "200 OK")

    def callee(text: str) -> str:
        return header(text, "To").rpartition("tag=")[2]

    async with rig(tmp_path, Carrier(behave)) as made:
        call = made.call()
        made.cell.send(call.request("INVITE", body=sdp(9, "0")))
        assert {callee(await made.cell.receive(183)) for _ in range(2)} == {"one", "two"}
        for tag in ("one", "two"):
            made.carrier.answer(made.carrier.of("INVITE")[0], "200 OK", body=sdp(9, "0"), tag=tag)
            final = await made.cell.receive(200)
            assert callee(final) == tag
            call.take(final)
            made.cell.send(call.request("ACK"))
            assert status_of(await call.bye()) == 200
        assert [callee(text) for text in made.carrier.of("BYE")] == ["one", "two"]


async def test_a_peer_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "OUTSIDE_MS", 500)
    async with rig(tmp_path, Carrier(lambda _carrier, _request: None)) as made:
        assert status_of(await made.call().invite()) == 408


# --- registrations and keep-alives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
async def test_a_registration_shows_the_edges_address_alone(tmp_path: Path, own: bool) -> None:
    """own: the cell names its own address; otherwise the edge's already."""
    asked = 'Digest realm="carrier", nonce="abc", algorithm=MD5, qop="auth"'

    def behave(carrier: Carrier, request: str) -> None:
        if header(request, "Authorization"):
            carrier.answer(request, "200 OK", more="Expires: 300\r\n")
        else:
            carrier.answer(request, "401 Unauthorized", more=f"WWW-Authenticate: {asked}\r\n")

    async with rig(tmp_path, Carrier(behave), {"registrar": "127.0.0.1"}) as made:
        trunk = TrunkSettings(name="carrier", host=made.carrier.address)
        contact = f"<sip:me@{outside.contact(made.edge.settings, trunk)}>"
        shown = f"<sip:me@{made.cell.own};ob>" if own else contact
        registration = made.call(user="me", contact=f"{shown};expires=300")
        made.cell.send(registration.request("REGISTER"))
        challenged = await made.cell.receive()
        assert status_of(challenged) == 401
        assert header(challenged, "WWW-Authenticate") == asked
        assert headers(challenged, "Via")[0].endswith(registration.branch)
        assert len(headers(challenged, "Via")) == 1
        made.cell.send(registration.request("REGISTER", more="Authorization: Digest x\r\n"))
        answer = await made.cell.receive()
        assert status_of(answer) == 200
        assert header(answer, "Contact") == f"{shown};expires=300"
        assert header(answer, "Expires") == "300"
        for text in made.carrier.received:
            assert INSIDE not in text, text
            assert len(headers(text, "Via")) == 2
            assert header(text, "Contact") == f"{contact};expires=300"


async def test_a_registrar_that_says_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "OUTSIDE_MS", 500)
    async with rig(tmp_path, Carrier(lambda _carrier, _request: None)) as made:
        registration = made.call()
        made.cell.send(registration.request("REGISTER"))
        answer = await made.cell.receive()
        assert status_of(answer) == 408
        assert registration.branch in header(answer, "Via")


async def test_who_names_no_trunk_asks_the_edge_itself(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        made.cell.send(made.call(trunk="").request("OPTIONS"))
        assert status_of(await made.cell.receive()) == 200
        for method in ("INVITE", "REGISTER", "SUBSCRIBE", "MESSAGE"):
            made.cell.send(made.call(trunk="").request(method))
            assert status_of(await made.cell.receive()) == 403, method
        assert made.carrier.received == []


# --- who may ----------------------------------------------------------------------------------------------------------


async def test_a_trunk_that_the_edge_does_not_know(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        for method in ("INVITE", "REGISTER", "OPTIONS"):
            call = made.call(trunk="nobody")
            made.cell.send(call.request(method))
            refused = await made.cell.receive()
            assert status_of(refused) == 503
            assert "No Such Trunk" in refused
        assert made.carrier.received == []


async def test_calls_per_second(tmp_path: Path) -> None:
    async with rig(tmp_path, of_trunk={"limits": {"calls_per_s": 2}}) as made:
        for _ in range(9):
            made.cell.send(made.call().request("INVITE", body=sdp(9, "0")))
        answers = [await made.cell.receive() for _ in range(9)]
        assert 2 <= sum(status_of(answer) == 200 for answer in answers) <= 4  # within one second, or over a border
        assert all(header(answer, "Retry-After") for answer in answers if status_of(answer) == 503)


@pytest.mark.parametrize("known", [False, True])
async def test_a_stranger_outside_cannot_call_through_the_edge(tmp_path: Path, known: bool) -> None:
    """Neither with a trunk's name nor with a Route; known: a peer that may call us, which is all it may."""
    of_trunk = {"sources": ("127.0.0.1/32",)} if known else {}
    async with rig(tmp_path, of_trunk=of_trunk) as made, Caller.open(made.edge) as stranger:
        await made.edge.set_cells([])
        inside = f"<sip:{INSIDE}:{made.edge.settings.inside_port};lr>"
        for method in ("INVITE", "REGISTER", "OPTIONS"):
            for routes in ([], [inside], [f"<sip:{stranger.server};lr>", inside]):
                dialog = stranger.dialog()
                dialog.target, dialog.routes = f"sip:+4930123456@{made.carrier.address}", routes
                stranger.send(dialog.request(method, body=sdp(9, "0"), more="X-Sipserver-Trunk: carrier\r\n"))
        await asyncio.sleep(1)
        refused = {status_of(text) for text in _arrived(stranger)}
        assert refused <= {100, 200, 403, 405, 503}, refused
        assert made.carrier.received == []


def _arrived(caller: Caller) -> list[str]:
    found = []
    while not caller._waiting.empty():
        found.append(caller._waiting.get_nowait())
    return found


async def test_nobody_but_cells_is_heard_at_the_inside(tmp_path: Path) -> None:
    async with rig(tmp_path) as made, placer(made.edge, listed=False, host="127.0.0.7") as stranger:
        stranger.send(stranger.dialog(at=made.carrier.address).request("INVITE", body=sdp(9, "0")))
        assert await stranger.silence()
        assert made.carrier.received == []


# --- taking over a dialog ---------------------------------------------------------------------------------------------


async def test_an_invite_with_replaces_reaches_the_cell_that_has_the_dialog(tmp_path: Path) -> None:
    of_trunk = {"sources": ("127.0.0.1/32",)}
    async with rig(tmp_path, of_trunk=of_trunk) as made, placer(made.edge, listed=False) as other:
        await made.edge.set_cells(
            [CellAddress(INSIDE, other.port, 4), CellAddress(INSIDE, made.cell.port, 4)]
        )  # calls go to the other one first
        async with Caller.open(made.edge) as caller:
            ours = made.call()
            await ours.invite()
            replaced = f"{ours.call_id};to-tag={ours.tag};from-tag=carrier"
            for turn in range(2):
                takes_over = caller.dialog()
                caller.send(takes_over.request("INVITE", body=sdp(9, "0"), more=f"Replaces: {replaced}\r\n"))
                invite = await made.cell.receive("INVITE")
                assert header(invite, "Replaces") == replaced
                assert header(invite, "X-Sipserver-Trunk") == "carrier"
                state = {cell.uri: cell.calls for cell in (await made.edge.state()).cells}
                assert state[f"sip:{made.cell.own}"] == 1
                made.cell.send(reply(invite, "486 Busy", more="X-Sipserver-Refusal: full\r\n"))
                assert status_of(await takes_over.finish()) == 503  # no other cell can
                if turn == 0:  # a Kamailio that was started anew knows it again with the next offer in the dialog
                    await made.edge.kill()
                    await made.edge.start()
                    forgotten = caller.dialog()
                    caller.send(forgotten.request("INVITE", body=sdp(9, "0"), more=f"Replaces: {replaced}\r\n"))
                    assert status_of(await forgotten.finish()) == 481
                    made.cell.send(ours.request("UPDATE"))
                    assert await made.cell.receive(200)
            made.cell.send(ours.request("BYE"))
            assert header(await made.cell.receive(200), "CSeq").endswith("BYE")
            gone = caller.dialog()
            caller.send(gone.request("INVITE", body=sdp(9, "0"), more=f"Replaces: {replaced}\r\n"))
            assert status_of(await gone.finish()) == 481
            assert await other.silence()


async def test_a_cell_takes_over_a_dialog_of_its_neighbour(tmp_path: Path) -> None:
    """A peer has calls with two cells and joins them (REFER with Replaces); our side it knows by what it was shown."""
    async with rig(tmp_path) as made, placer(made.edge, listed=False) as other:
        await made.edge.set_cells([CellAddress(INSIDE, port, 4) for port in (made.cell.port, other.port)])
        calls = [made.call(), other.dialog(at=made.carrier.address)]
        for call in calls:
            await call.invite()
        first, second = made.carrier.of("INVITE")
        shown = header(second, "Contact").strip("<>")
        assert str(other.port) not in shown
        replaces = f"{calls[1].call_id};to-tag=carrier;from-tag={calls[1].tag}"
        made.carrier.send(made.carrier.request("REFER", first, more=f"Refer-To: <{shown}?Replaces=escaped>\r\n"))
        received = await made.answered(calls[0], "REFER")
        assert header(received, "Refer-To") == f"<sip:peer@{other.own};transport=udp?Replaces=escaped>"

        takes_over = made.call()
        takes_over.target = shown
        made.cell.send(takes_over.request("INVITE", body=sdp(9, "0"), more=f"Replaces: {replaces}\r\n"))
        invite = await other.receive("INVITE")
        assert header(invite, "Replaces") == replaces
        assert headers(invite, "X-Sipserver-Trunk") == ["carrier"]
        to = header(invite, "To")
        contact = f"Contact: <sip:other@{other.own}>\r\n"
        other.send(reply(invite, more=contact, body=sdp(9, "0")).replace(to, f"{to};tag=o"))
        assert status_of(await takes_over.finish()) == 200
        await other.receive("ACK")
        made.cell.send(takes_over.request("BYE"))
        other.send(reply(await other.receive("BYE")))
        assert status_of(await made.cell.receive()) == 200
        assert len(made.carrier.of("INVITE")) == 2

        gone = made.call()
        gone.target = shown
        made.cell.send(gone.request("INVITE", body=sdp(9, "0"), more="Replaces: nobody;to-tag=b;from-tag=c\r\n"))
        assert status_of(await gone.finish()) == 481


async def test_a_call_that_replaces_a_dialog_of_others_goes_out(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        replaces = "theirs;to-tag=b;from-tag=c"
        assert status_of(await made.call().invite(more=f"Replaces: {replaces}\r\n")) == 200
        assert header(made.carrier.of("INVITE")[0], "Replaces") == replaces
