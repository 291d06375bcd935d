"""What the exported C symbols give, and what remains without them."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from sipserver.events import LegDisconnected
from sipserver.sip import capacity, in_dialog, native, stream
from sipserver.sip.cell import Cell
from sipserver.sip.endpoint import translate
from sipserver.sip.methods import NO_METHOD, MethodGate, method_of
from sipserver.sip.settings import SipSettings
from sipserver.sip.thread import SipThread
from tests.fakes.sip_peer import SipPeer, sdp
from tests.fakes.sip_rig import running


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PJSIP that exports nothing."""
    monkeypatch.setattr(native, "function", lambda name: None)


async def test_the_probe_agrees_with_what_pjsip_says() -> None:
    async with running() as rig:
        assert capacity.taken() == 0
        capacity_read = rig.cell.capacity
    thread = SipThread(lambda _: None, translate)
    assert await thread.start(capacity.probe) == capacity_read
    await thread.stop(lambda: None)


async def test_calls_work_without_the_symbols(hidden: None) -> None:
    with capture_logs() as logs:
        async with running() as rig, SipPeer.open(rig.port) as peer:
            assert rig.cell.capacity >= 1
            media = await peer.rtp()
            call = peer.call()
            listener = await call.connect_with(rig, sdp(media.port), echo=True)
            assert listener.leg.offer.to_user == "echo"
            async with media.stream(call.media_port, b"\x00\x80" * 80):
                await listener.until(lambda: listener.loudest() > 10_000)
                while (await media.receive()).payload == b"\xff" * 160:
                    pass
            await call.transact("BYE")
            await listener.event(LegDisconnected)
    assert any("hides its symbols" in entry["event"] for entry in logs)
    assert capacity.taken() is None


def test_without_symbols_there_is_no_gate_and_no_ssrc(hidden: None) -> None:
    gate = MethodGate(lambda _method, _rdata: NO_METHOD, 5)
    assert not gate.install()
    gate.remove()
    assert stream.peer_ssrc(0) is None
    assert not in_dialog.respond(object(), 200)


def test_the_method_is_read_from_pjsips_description() -> None:
    assert method_of(b"Request msg REGISTER/cseq=1 (rdata0x1)") == "REGISTER"
    assert method_of(b"Response msg 200/INVITE/cseq=1 (rdata0x1)") == ""
    assert method_of(b"") == ""


async def test_pjsips_own_log_goes_to_ours() -> None:
    with capture_logs() as logs:
        async with running(pjsip_log_level=4) as rig, SipPeer.open(rig.port) as peer:
            call = peer.call()
            await call.connect_with(rig, sdp(4000), 'Authorization: Digest response="sesame"\r\n')
            await call.transact("BYE")
    lines = [entry for entry in logs if entry["event"] == "pjsip"]
    assert {"info", "debug"} <= {entry["log_level"] for entry in lines}
    assert any("INVITE" in entry.get("text", "") for entry in lines)
    assert not any("sesame" in str(entry) for entry in lines)


async def test_pjsip_is_silent_otherwise(capfd: pytest.CaptureFixture[str]) -> None:
    async with running():
        pass
    assert "pjlib" not in capfd.readouterr().out


async def test_a_stopped_cell_says_so() -> None:
    cell = Cell(SipSettings(port=0), lambda leg: None)
    assert cell.last_sip_tick_s is None
    await cell.stop()
    with pytest.raises(Exception, match="does not run"):
        _ = cell.sip_port
