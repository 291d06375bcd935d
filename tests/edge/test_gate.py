"""Who may call, with what, and what the others learn: nothing."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path

import pytest

from sipserver.edge.settings import FloodSettings
from sipserver.trunks.settings import DigestUser, TrunkLimits, TrunkSettings
from tests.faults.torture import BAD_SDP, BROKEN, ODD_BUT_VALID
from tests.servers.kamailio import (
    LAB,
    Caller,
    Cell,
    authorization,
    cells,
    header,
    headers,
    running,
    sdp,
    status_of,
)

pytestmark = pytest.mark.peers

ELSEWHERE = TrunkSettings(name="carrier", sources=("192.0.2.0/24",))
PHONES = TrunkSettings(name="phones", users=(DigestUser(name="bob", password_env="BOB"),))
PBX = TrunkSettings(name="pbx", sources=("127.0.0.1/32",), users=(DigestUser(name="pbx", password_env="PBX"),))
PASSWORDS = {"BOB": 'p"a$s w\\ord', "PBX": "open sesame"}


# --- addresses and digest ---------------------------------------------------------------------------------------------


async def test_the_cell_hears_which_trunk_and_source_and_nothing_that_a_caller_claims(tmp_path: Path) -> None:
    async with (
        cells(Cell()) as (cell,),
        running(tmp_path, (cell,), (ELSEWHERE, LAB)) as edge,
        Caller.open(edge) as caller,
    ):
        dialog = caller.dialog()
        forged = "X-Sipserver-Trunk: forged\r\nX-SIPSERVER-Source: 1.2.3.4:5\r\nX-Sipserver-Anything: x\r\n"
        answer = await dialog.invite(more=forged)
        assert status_of(answer) == 200
        invite = cell.of("INVITE")[0]
        assert headers(invite, "X-Sipserver-Trunk") == ["lab"]
        assert headers(invite, "X-Sipserver-Source") == [f"127.0.0.1:{caller.port}"]
        assert "X-Sipserver-Anything" not in invite
        assert header(invite, "Max-Forwards") == "69"

        caller.send(dialog.request("INFO", more="X-Sipserver-Trunk: forged\r\n"))
        assert status_of(await caller.receive()) == 200
        assert "X-Sipserver" not in cell.of("INFO")[0]


async def test_unknown_sources_are_refused_and_then_ignored(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,), (ELSEWHERE,)) as edge, Caller.open(edge) as caller:
        first = await caller.dialog().invite()
        assert status_of(first) == 403
        assert not any(header(first, name) for name in ("Server", "User-Agent", "Allow", "Contact"))
        for _ in range(12):
            caller.send(caller.dialog().request("INVITE", body=sdp(9, "0")))
        refused = 0
        while not await caller.silence():
            refused += 1
            caller.backlog.clear()
        assert refused <= 10
        assert cell.received == []


async def test_an_open_laboratory_takes_anybody(tmp_path: Path) -> None:
    async with (
        cells(Cell()) as (cell,),
        running(tmp_path, (cell,), (ELSEWHERE,), open=True) as edge,
        Caller.open(edge) as caller,
    ):
        assert status_of(await caller.dialog().invite()) == 200
        assert "X-Sipserver-Trunk" not in cell.of("INVITE")[0]
        assert header(cell.of("INVITE")[0], "X-Sipserver-Source") == f"127.0.0.1:{caller.port}"


@pytest.mark.parametrize("digest", ["MD5", "SHA-256"])
@pytest.mark.parametrize(("trunk", "user", "variable"), [(PHONES, "bob", "BOB"), (PBX, "pbx", "PBX")])
async def test_digest(tmp_path: Path, digest: str, trunk: TrunkSettings, user: str, variable: str) -> None:
    password = PASSWORDS[variable]
    async with (
        cells(Cell()) as (cell,),
        running(tmp_path, (cell,), (trunk,), PASSWORDS, digest=digest) as edge,
        Caller.open(edge) as caller,
    ):
        dialog = caller.dialog()
        challenge = await dialog.invite()
        assert status_of(challenge) == 407
        assert 'qop="auth"' in challenge
        wrong = await dialog.invite(more=authorization(challenge, user, "wrong", dialog.target))
        assert status_of(wrong) == 407
        nobody = await dialog.invite(more=authorization(wrong, "nobody", password, dialog.target))
        assert status_of(nobody) == 407
        forged = await dialog.invite(more=authorization(nobody, user, password, dialog.target, nonce="Yw==" * 8))
        assert status_of(forged) == 407
        right = authorization(forged, user, password, dialog.target)
        assert status_of(await dialog.invite(more=right)) == 200
        invite = cell.of("INVITE")[0]
        assert header(invite, "X-Sipserver-Trunk") == trunk.name
        assert "Proxy-Authorization" not in invite
        assert len(cell.of("INVITE")) == 1

        again = await caller.dialog().invite(more=right)  # the same proof a second time
        assert status_of(again) == 407
    assert (tmp_path / "kamailio.cfg").stat().st_mode & 0o777 == 0o600
    assert password not in (tmp_path / "kamailio.cfg").read_text()


async def test_a_user_of_another_trunk_is_nobody_here(tmp_path: Path) -> None:
    """The address belongs to the PBX, so that only the PBX's users may call from it."""
    async with (
        cells(Cell()) as (cell,),
        running(tmp_path, (cell,), (PBX, PHONES), PASSWORDS) as edge,
        Caller.open(edge) as caller,
    ):
        dialog = caller.dialog()
        challenge = await dialog.invite()
        answer = await dialog.invite(more=authorization(challenge, "bob", PASSWORDS["BOB"], dialog.target))
        assert status_of(answer) == 407
        assert cell.received == []


async def test_calls_per_second_of_a_trunk(tmp_path: Path) -> None:
    trunk = TrunkSettings(name="lab", sources=("127.0.0.1/32",), limits=TrunkLimits(calls_per_s=5))
    async with (
        cells(Cell(calls=100)) as (cell,),
        running(tmp_path, (cell,), (trunk,)) as edge,
        Caller.open(edge) as caller,
    ):
        for _ in range(30):
            caller.send(caller.dialog().request("INVITE", body=sdp(9, "0")))
        answers = [await caller.receive() for _ in range(30)]
        taken = sum(status_of(answer) == 200 for answer in answers)
        assert 5 <= taken <= 10  # within one second, or over the border of two
        refused = [answer for answer in answers if status_of(answer) == 503]
        assert len(refused) == 30 - taken
        assert all(header(answer, "Retry-After") for answer in refused)


# --- floods, scanners, methods ----------------------------------------------------------------------------------------


async def test_a_flood_is_banned(tmp_path: Path) -> None:
    flood = FloodSettings(requests=20, interval_s=1, ban_s=1)
    async with (
        cells(Cell(calls=100)) as (cell,),
        running(tmp_path, (cell,), (), open=True, flood=flood) as edge,
        Caller.open(edge) as caller,
    ):
        assert status_of(await caller.dialog().invite()) == 200
        for _ in range(200):
            caller.send(caller.dialog().request("OPTIONS"))
        while not await caller.silence():
            caller.backlog.clear()
        caller.send(caller.dialog().request("INVITE", body=sdp(9, "0")))
        assert await caller.silence()
        async with asyncio.timeout(15):  # the ban ends
            answer = 0
            while answer != 200:
                caller.send(caller.dialog().request("INVITE", body=sdp(9, "0")))
                try:
                    answer = status_of(await caller.receive(timeout_s=0.5))
                except TimeoutError:
                    continue


async def test_scanners_hear_nothing(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,), (ELSEWHERE,)) as edge, Caller.open(edge) as caller:
        for method in ("OPTIONS", "REGISTER", "SUBSCRIBE", "BYE", "CANCEL", "MESSAGE"):
            caller.send(caller.dialog().request(method))
        assert await caller.silence()
        assert status_of(await caller.dialog().invite()) == 403  # told no, and not a word about us
        caller.send(caller.dialog().request("INVITE", body=sdp(9, "0"), more="User-Agent: friendly-scanner\r\n"))
        assert await caller.silence()
        caller.send(caller.dialog().request("INVITE", body=sdp(9, "0")))
        assert await caller.silence()  # banned
        assert cell.received == []


async def test_methods_that_are_not_for_us(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        for method in ("REGISTER", "SUBSCRIBE", "MESSAGE", "PUBLISH", "REFER", "NOTIFY", "NONSENSE"):
            answer = await caller.ask(method)
            assert status_of(answer) == 405, method
            assert "INVITE" in header(answer, "Allow")
            assert method not in header(answer, "Allow")
            assert not header(answer, "Server")
        assert cell.received == []


async def test_keep_alives_and_requests_without_their_dialog(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        alive = await caller.ask("OPTIONS")
        assert status_of(alive) == 200
        assert header(alive, "Allow")
        for method in ("BYE", "INFO", "UPDATE", "PRACK", "CANCEL"):
            assert status_of(await caller.ask(method)) == 481
        assert cell.received == []


async def test_hops_and_size(tmp_path: Path) -> None:
    async with (
        cells(Cell()) as (cell,),
        running(tmp_path, (cell,), max_message_bytes=4096) as edge,
        Caller.open(edge) as caller,
    ):
        request = caller.dialog().request("INVITE", body=sdp(9, "0"))
        caller.send(request.replace("Max-Forwards: 70", "Max-Forwards: 0"))
        assert status_of(await caller.receive()) == 483
        assert status_of(await caller.ask("INVITE", more=f"Subject: {'x' * 5000}\r\n", body=sdp(9, "0"))) == 513
        assert cell.received == []


_VIA = "Via: SIP/2.0/UDP 127.0.0.2:5071;branch=z9hG4bKaa\r\n"
FIELDS = (
    ("X-Null: a\0b\r\n", 400),
    ("X-Bell: a\ab\r\n", 400),
    (_VIA * 20, 200),
    (_VIA * 60, 400),
    ("".join(f"X-{n}: {n}\r\n" for n in range(60)), 200),
    ("X: y\r\n" * 120, 400),
    (f"X-Long: {'a' * 1800}\r\n", 200),
    (f"X-Long: {'a' * 2500}\r\n", 400),
    (f"Require: {','.join(['no'] * 3000)}\r\n", 400),
    (f"Identity: {'a' * 3500}\r\n", 200),
    (f"Identity: {'a' * 5000}\r\n", 400),
    ("Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\n", 200),
    ("Session-Expires: -1\r\n", 400),
    ("x: 99999999999999\r\n", 400),
    ("Min-SE: soon\r\n", 400),
    ("X-Folded: a\r\n\tb\r\nX-Name: J\u00fcrgen\r\n", 200),
)


async def test_what_cells_could_not_read_is_refused(tmp_path: Path) -> None:
    """Cells would drop it without an answer, and look dead."""
    async with (
        cells(Cell(calls=20)) as (cell,),
        running(tmp_path, (cell,), max_message_bytes=32_768) as edge,
        Caller.open(edge) as caller,
    ):
        for more, status in FIELDS:
            before = len(cell.of("INVITE"))
            assert status_of(await caller.dialog().invite(more=more)) == status, more[:80]
            assert len(cell.of("INVITE")) - before == (status == 200), more[:80]
        request = caller.dialog().request("INVITE", body=sdp(9, "0"))
        for user, status in (("ec\0ho", 400), ("u" * 4000, 414)):
            caller.send(request.replace("sip:echo", f"sip:{user}", 1))
            assert status_of(await caller.receive()) == status


# --- offers -----------------------------------------------------------------------------------------------------------


async def test_codecs_that_the_trunk_does_not_allow_are_taken_out(tmp_path: Path) -> None:
    trunk = TrunkSettings(name="lab", sources=("127.0.0.1/32",), codecs=("PCMA",))
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,), (trunk,)) as edge, Caller.open(edge) as caller:
        assert status_of(await caller.dialog().invite(sdp(9, "0 8 18 101"))) == 200
        invite = cell.of("INVITE")[0]
        assert re.search(r"^m=audio 9 RTP/AVP 8 101\r?$", invite, re.M)
        assert "PCMU" not in invite
        assert int(header(invite, "Content-Length")) == len(invite.partition("\r\n\r\n")[2])
        assert status_of(await caller.dialog().invite(sdp(9, "0 18"))) == 488


_CRYPTO = "a=crypto:{} AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n"


OFFERS = (
    (sdp(9, "0", ptime=10), 200),
    (sdp(9, "0", ptime=60), 200),
    (sdp(9, "0", ptime=5), 488),
    (sdp(9, "0", ptime=100), 488),
    (sdp(9, "0", extra=_CRYPTO.format(1) + _CRYPTO.format(2)), 200),
    (sdp(9, "0", extra="".join(_CRYPTO.format(n) for n in (1, 2, 3))), 488),
    (sdp(9, "0").replace("m=audio", "m=video"), 488),
    (sdp(9, "0", extra="m=audio 9 RTP/AVP 0\r\n" * 5), 488),
    ("hello, this is no session description\r\n", 488),
    ("", 200),
)


async def test_offers(tmp_path: Path) -> None:
    async with cells(Cell(calls=20)) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        for body, status in OFFERS:
            before = len(cell.of("INVITE"))
            assert status_of(await caller.dialog().invite(body)) == status, body
            assert len(cell.of("INVITE")) - before == (status == 200)


async def test_bodies_that_are_no_sdp(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        for kind in ("multipart/mixed;boundary=x", "application/isup", "text/plain"):
            answer = await caller.dialog().invite(sdp(9, "0"), more=f"Content-Type: {kind}\r\n")
            assert status_of(answer) == 415
            assert header(answer, "Accept") == "application/sdp"
        assert cell.received == []


async def test_an_offer_within_the_dialog_is_looked_at_too(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog()
        await dialog.invite()
        caller.send(dialog.request("INVITE", body=sdp(9, "0", ptime=100)))
        answer = await caller.receive()
        assert status_of(answer) == 488
        caller.send(dialog.request("ACK", again=True, answer=answer))
        assert len(cell.of("INVITE")) == 1
        assert status_of(await dialog.invite()) == 200
        assert len(cell.of("INVITE")) == 2
        assert status_of(await dialog.bye()) == 200


# --- what is wrong ----------------------------------------------------------------------------------------------------


async def test_malformed_messages_are_answered_sanely_or_not_at_all(tmp_path: Path) -> None:
    async with cells(Cell("603 Decline")) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        pid = edge.pid
        for number, torture in enumerate((*ODD_BUT_VALID, *BROKEN, *BAD_SDP)):
            caller.send(torture.filled(caller.port, f"t{number}x"))
            caller.backlog.clear()
            while not await caller.silence(0.03):
                for text in caller.backlog:
                    assert 100 <= status_of(text) < 700, (torture.name, text)
                    assert "inside" not in text, (torture.name, text)
                caller.backlog.clear()
        noise = random.Random(1)
        good = caller.dialog().request("INVITE", body=sdp(9, "0")).encode()
        for _ in range(300):
            spoiled = bytearray(good)
            for _ in range(noise.randint(1, 8)):
                spoiled[noise.randrange(len(spoiled))] = noise.randrange(256)
            caller.send(bytes(spoiled[: noise.randint(1, len(spoiled))]))
        while not await caller.silence():
            caller.backlog.clear()
        cell.mode = "answer"
        assert status_of(await caller.dialog().invite()) == 200
        assert edge.pid == pid
        assert await edge.alive()


async def test_nobody_can_relay_through_the_edge(tmp_path: Path) -> None:
    """Requests with a To tag and a route of the attacker's choice reach cells and nothing else."""
    async with cells(Cell(), Cell()) as (cell, victim), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        for target, routes in (
            (f"sip:x@127.0.0.1:{victim.port}", []),
            (f"sip:x@127.0.0.1:{victim.port}", [f"<sip:127.0.0.1:{caller.server_port};lr>"]),
            (f"sip:x@{caller.server}", [f"<sip:{caller.server};lr>", f"<sip:127.0.0.1:{victim.port};lr>"]),
            (f"sip:x@{caller.server}", [f"<sip:127.0.0.1:{victim.port};lr>"]),
        ):
            for method in ("INFO", "BYE", "INVITE", "MESSAGE"):
                dialog = caller.dialog()
                dialog.target, dialog.routes, dialog.to = target, routes, f"{dialog.to};tag=guessed"
                caller.send(dialog.request(method))
                answer = await caller.receive()
                assert status_of(answer) in (404, 481), (method, target, routes)
                if method == "INVITE":
                    caller.send(dialog.request("ACK", again=True, answer=answer))
        # A new call goes where the dispatcher says, whatever its Request-URI and Route name.
        dialog = caller.dialog()
        dialog.target, dialog.routes = f"sip:x@127.0.0.1:{victim.port}", [f"<sip:127.0.0.1:{victim.port};lr>"]
        assert status_of(await dialog.invite()) == 200
        assert victim.received == []
