"""Transports, what the outside sees, and Kamailio's death, return, restart and change under running calls."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
from pathlib import Path

import pytest

from sipserver import log
from sipserver.edge.edge import Edge
from sipserver.edge.settings import Listen, TlsSettings
from tests.harness.server import free_sip_port
from tests.servers.kamailio import LAB, Caller, Cell, cells, header, headers, running, sdp, status_of

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsSettings:
    folder = tmp_path_factory.mktemp("tls")
    settings = TlsSettings(certificate=folder / "cert.pem", key=folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(settings.key), "-out", str(settings.certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return settings


async def _whole_call(edge: Edge, caller: Caller, cell: Cell) -> None:
    """Set up, hold, hang up from the far end, through this transport."""
    dialog = caller.dialog()
    assert status_of(await dialog.invite()) == 200
    assert status_of(await dialog.invite()) == 200
    invite = cell.of("INVITE")[-2]
    assert len(headers(invite, "Record-Route")) == 2  # two sockets, two routes (RFC 5658)
    _, bye = cell.request_back("BYE", invite)
    cell.send(bye, edge.settings.inside_port)
    received = await caller.receive("BYE")
    assert received.startswith("BYE sip:peer@")
    caller.send(answer_to(received))
    await cell.wait_for("SIP/2.0")


def answer_to(request: str, status: str = "200 OK") -> str:
    vias = "".join(f"{line}\r\n" for line in request.split("\r\n") if line.lower().startswith("via:"))
    return (
        f"SIP/2.0 {status}\r\n{vias}From: {header(request, 'From')}\r\nTo: {header(request, 'To')}\r\n"
        f"Call-ID: {header(request, 'Call-ID')}\r\nCSeq: {header(request, 'CSeq')}\r\nContent-Length: 0\r\n\r\n"
    )


async def test_tcp(tmp_path: Path) -> None:
    async with (
        cells(Cell()) as (cell,),
        running(tmp_path, (cell,)) as edge,
        Caller.open(edge, 1, transport="tcp") as caller,
    ):
        await _whole_call(edge, caller, cell)


async def test_ipv6_outside(tmp_path: Path) -> None:
    listen = (Listen(transport="udp", host="::1", port=free_sip_port()),)
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,), listen=listen) as edge, Caller.open(edge) as caller:
        await _whole_call(edge, caller, cell)
        assert header(cell.of("INVITE")[0], "X-Sipserver-Source") == f"[::1]:{caller.port}"


async def test_tls(tmp_path: Path, certificate: TlsSettings) -> None:
    listen = (Listen(transport="tls", host="127.0.0.1", port=free_sip_port()),)
    trusting = ssl.create_default_context(cafile=str(certificate.certificate))
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,), listen=listen, tls=certificate) as edge:
        async with Caller.open(edge, transport="tls", tls=trusting) as caller:
            await _whole_call(edge, caller, cell)
        old = ssl.create_default_context(cafile=str(certificate.certificate))
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with Caller.open(edge, transport="tls", tls=old):
                pass


async def test_the_outside_sees_no_inside_address(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        inside = (f"127.0.0.1:{cell.port}", f"127.0.0.1:{edge.settings.inside_port}", "inside", "X-Sipserver")
        dialog = caller.dialog()
        caller.send(dialog.request("INVITE", body=sdp(9, "0")))
        answer = await dialog.finish()
        assert status_of(answer) == 200
        _, bye = cell.request_back("BYE", cell.of("INVITE")[0])
        cell.send(bye, edge.settings.inside_port)
        received = await caller.receive("BYE")
        caller.send(answer_to(received))
        for text in (answer, received):
            assert not [found for found in inside if found in text], text
        assert len(headers(received, "Via")) == 2
        assert status_of(await cell_answer(cell)) == 200


async def cell_answer(cell: Cell) -> str:
    return await cell.wait_for("SIP/2.0")


async def test_a_caller_behind_nat_is_reached_where_it_is(tmp_path: Path) -> None:
    """Its Contact names an address of its own network; the cell's BYE goes where the INVITE came from."""
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog(contact="<sip:peer@192.168.77.1:5060>")
        assert status_of(await dialog.invite()) == 200
        _, bye = cell.request_back("BYE", cell.of("INVITE")[0])
        cell.send(bye, edge.settings.inside_port)
        received = await caller.receive("BYE")
        assert received.startswith("BYE sip:peer@192.168.77.1:5060")
        caller.send(answer_to(received))
        await cell_answer(cell)


async def test_killed_and_started_anew_dialogs_go_on(tmp_path: Path) -> None:
    async with cells(Cell(calls=8)) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        first, second = caller.dialog(), caller.dialog()
        for dialog in (first, second):
            assert status_of(await dialog.invite()) == 200
        await edge.drain(True)
        assert edge.pid is not None
        os.kill(edge.pid, signal.SIGKILL)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.wait_for(edge.exited(), 5)
        await edge.start()
        assert loop.time() - began_s < 5  # under 1 s on a quiet machine

        assert status_of(await first.bye()) == 200
        _, bye = cell.request_back("BYE", cell.of("INVITE")[1])
        cell.send(bye, edge.settings.inside_port)
        received = await caller.receive("BYE")
        caller.send(answer_to(received))
        await cell_answer(cell)

        assert status_of(await caller.dialog().invite()) == 503  # it still drains
        await edge.drain(False)
        assert status_of(await caller.dialog().invite()) == 200  # it still knows its cells


async def test_the_next_supervisor_adopts_it(tmp_path: Path) -> None:
    async with cells(Cell(calls=1)) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog()
        await dialog.invite()
        await edge.leave()
        heir = Edge(edge.settings, (LAB,), ("G722", "PCMA", "PCMU"), {})
        await heir.start([cell.address])
        try:
            assert heir.adopted
            assert [found.calls for found in (await heir.state()).cells] == [1]
            assert status_of(await caller.dialog().invite()) == 503
            assert status_of(await dialog.bye()) == 200
            assert (await heir.stats())["cells_living"] == 1
        finally:
            await heir.stop()
        assert not await heir.alive()


async def test_changed_settings_take_effect_and_dialogs_go_on(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog()
        await dialog.invite()
        pid = edge.pid
        await edge.leave()
        heir = Edge(edge.settings, (LAB.model_copy(update={"name": "renamed"}),), ("PCMA",), {})
        await heir.start()
        try:
            assert not heir.adopted
            assert heir.pid != pid
            assert status_of(await dialog.bye()) == 200
            assert status_of(await caller.dialog().invite()) == 200
            assert header(cell.of("INVITE")[-1], "X-Sipserver-Trunk") == "renamed"
        finally:
            await heir.stop()


async def test_children_of_a_dead_kamailio_do_not_keep_its_sockets(tmp_path: Path) -> None:
    """Its parent died while nobody watched."""
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        pid = edge.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # the parent must not end its children
        await edge.leave()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 (it is dead already)
        heir = Edge(edge.settings, (LAB,), ("PCMA",), {})
        await heir.start([cell.address])
        try:
            assert heir.pid != pid
            assert status_of(await caller.dialog().invite()) == 200
        finally:
            await heir.stop()


async def test_a_deep_folder_has_its_socket_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 60) / ("b" * 60)
    async with cells(Cell()) as (cell,), running(folder, (cell,)) as edge:
        assert await edge.alive()
        elsewhere = edge._kamailio.places.rpc_socket
        assert elsewhere.exists()
        assert [file.name for file in elsewhere.parent.iterdir()] == [elsewhere.name]  # no answer's socket is left
        assert not (folder / "rpc.sock").exists()
    assert not elsewhere.parent.exists()


async def test_what_kamailio_says_is_in_our_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("debug", "json")
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog()
        await dialog.invite()
        told = ""
        async with asyncio.timeout(5):
            while f"call {dialog.call_id} trunk lab" not in told:
                told += capsys.readouterr().err
                await asyncio.sleep(0.05)
        assert edge.pid is not None
