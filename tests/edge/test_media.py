"""What is decided about media from the settings, and whether Kamailio can read what comes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sipserver.edge.media import media_routes
from sipserver.edge.settings import EdgeSettings, RtpengineSettings
from sipserver.trunks.settings import TrunkSettings
from tests.servers.rtpengine import MiniKamailio

CELLS = ("G722", "PCMA", "PCMU")


def trunk(**changes: object) -> TrunkSettings:
    return TrunkSettings.model_validate({"name": "acme", "sources": ("192.0.2.0/24",), **changes})


def test_without_a_relay_there_is_nothing_to_decide() -> None:
    assert media_routes(EdgeSettings(), (trunk(),), CELLS) is None


def test_codecs_are_passed_if_cells_speak_them_and_transcoded_otherwise() -> None:
    routes = media_routes(EdgeSettings(rtpengine=RtpengineSettings()), (trunk(codecs=("opus", "PCMA")),), CELLS)
    assert routes is not None
    (acme,) = routes.trunks
    assert (acme.common, acme.foreign) == (("PCMA",), ("opus",))
    assert acme.pass_in == "codec-strip=all codec-except=telephone-event codec-except=PCMA"
    assert "codec-mask=opus codec-transcode=G722 codec-transcode=PCMA codec-transcode=PCMU" in acme.transcode_in
    assert "codec-transcode=opus" in acme.transcode_out


def test_what_cells_were_told_not_to_speak_is_transcoded() -> None:
    routes = media_routes(EdgeSettings(rtpengine=RtpengineSettings()), (trunk(),), ("PCMA",))
    assert routes is not None
    assert routes.trunks[0].foreign == ("G722", "PCMU")


@pytest.mark.parametrize(("control", "socket"), [("127.0.0.1:1", "udp:127.0.0.1:1"), ("[::1]:1", "udp6:[::1]:1")])
def test_the_relay_may_be_on_either_family(control: str, socket: str) -> None:
    routes = media_routes(EdgeSettings(rtpengine=RtpengineSettings(control=control)), (), CELLS)
    assert routes is not None
    assert routes.control == socket


@pytest.mark.parametrize("relay", [None, "always", "needed"])
@pytest.mark.parametrize("codecs", [("PCMA",), ("opus",), ("opus", "G722", "PCMU")])
@pytest.mark.parametrize("srtp", ["off", "offered", "required"])
def test_kamailio_reads_it(tmp_path: Path, relay: str | None, codecs: tuple[str, ...], srtp: str) -> None:
    settings = None if relay is None else RtpengineSettings.model_validate({"relay": relay})
    kamailio = MiniKamailio(tmp_path, [5060], settings, trunk(codecs=codecs, srtp=srtp))
    command = ["kamailio", "-c", "-f", str(kamailio.file), "-Y", str(tmp_path), "-m", "16", "-M", "4"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 0, result.stderr
    assert "ERROR" not in result.stderr
    assert "WARNING" not in result.stderr
