"""Calls through real Kamailio and rtpengine to a cell that echoes: who is heard, who is not, what is refused."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
import uuid
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sipserver.edge.settings import RtpengineSettings
from sipserver.trunks.settings import TrunkSettings
from tests.fakes.echo_cell import EchoCell
from tests.harness.phone import Phone, tone
from tests.harness.routed_phone import RoutedPhone, RoutedPhone6
from tests.harness.server import ServerProcess, free_range
from tests.peers import rtp
from tests.peers.baresip import Baresip
from tests.servers.rtpengine import MiniKamailio, RtpengineServer, relay_settings

TONE_LEVEL = 8_485
"""RMS of the sine that `tone` makes."""
MARK = b"\x2a" * 160
"""Sound that nobody in a call sends."""


@dataclass(frozen=True)
class Edge:
    kamailio: MiniKamailio
    relay: RtpengineServer
    cells: tuple[EchoCell, ...]

    @property
    def port(self) -> int:
        return self.kamailio.port

    @property
    def cell(self) -> EchoCell:
        return self.cells[-1]


Build = Callable[..., Edge]


def trunk(**changes: object) -> TrunkSettings:
    codecs = ("opus", "PCMA", "PCMU")
    return TrunkSettings.model_validate({"name": "acme", "sources": ("127.0.0.1/32",), "codecs": codecs, **changes})


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    with ExitStack() as stack:

        def built(*cells: EchoCell, relay: RtpengineSettings | None = None, **of_trunk: object) -> Edge:
            started = tuple(stack.enter_context(cell) for cell in cells or (EchoCell(),))
            server = stack.enter_context(RtpengineServer(tmp_path / "relay", relay or relay_settings()))
            kamailio = MiniKamailio(
                tmp_path / "edge", [cell.port for cell in started], server.settings, trunk(**of_trunk)
            )
            return Edge(stack.enter_context(kamailio), server, started)

        yield built


def eventually(condition: Callable[[], object], what: str, timeout_s: float = 8) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def hears_itself(phone: Phone, milliseconds: int = 400) -> float:
    """The phone says a tone and waits for its echo. Returns the level of its middle."""
    before = len(phone.received)
    phone.say(tone(milliseconds))
    packets = milliseconds // 20

    def echoed() -> list[float]:
        return [packet.level for packet in phone.received[before:] if packet.level > 1000]

    eventually(lambda: len(echoed()) >= packets - 2, "the echo did not come back whole")
    levels = echoed()
    return float(np.median(levels))


# --- sound ------------------------------------------------------------------------------------------------------------


def test_sound_passes_both_ways_at_its_level(build: Build) -> None:
    edge = build()
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo").code == 200
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)
        first, last = edge.relay.settings.ports
        assert first <= phone.relay[1] <= last
        assert {first <= port <= last for _, port in edge.cell.sources} == {True}
        assert {packet.payload_type for packet in phone.received} == {0}
        assert phone.bye().code == 200


def test_the_cell_is_offered_plain_rtp_and_only_what_the_trunk_allows(build: Build) -> None:
    edge = build(codecs=("PCMU",))
    body = (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=audio {port} RTP/SAVPF 96 9 8 0 101\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
        "a=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n"
        "a=candidate:1 1 UDP 2130706431 127.0.0.1 {port} typ host\r\n"
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n"
    )
    with RoutedPhone(edge.port) as phone:
        answer = phone.invite("echo", body=body.format(port=phone.rtp_port))
        assert answer.code == 200
        (offer,) = edge.cell.offers
        assert re.search(r"^m=audio \d+ RTP/AVP 0 101\r$", offer, re.M)
        assert not re.search("candidate|ice-|crypto|rtcp-mux|opus", offer)
        assert re.search(r"^m=audio \d+ RTP/SAVPF 0 101\r$", answer.text, re.M)
        assert "a=crypto:1 AES_CM_128_HMAC_SHA1_80" in answer.text
        assert "a=rtcp-mux" in answer.text
        assert "a=candidate" in answer.text


def test_an_ipv6_caller_hears_an_ipv4_cell(build: Build) -> None:
    edge = build()
    with RoutedPhone6(edge.port) as phone:
        answer = phone.invite("echo")
        assert answer.code == 200
        assert "c=IN IP6 ::1" in answer.text
        assert "IP6" not in edge.cell.offers[0]
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)


def test_the_public_address_is_what_callers_are_told(build: Build) -> None:
    edge = build(relay=relay_settings(interfaces=("outside/127.0.0.1!203.0.113.7", "inside/127.0.0.1")))
    with RoutedPhone(edge.port) as phone:
        answer = phone.invite("echo")
        assert "c=IN IP4 203.0.113.7" in answer.text
        assert "203.0.113.7" not in edge.cell.offers[0]
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)


def test_events_of_a_transcoded_caller_get_the_cells_clock(build: Build) -> None:
    edge = build(EchoCell(("PCMA",)))
    with RoutedPhone(edge.port) as phone:
        formats = (
            f"m=audio {phone.rtp_port} RTP/AVP 96 110 101\r\na=rtpmap:96 opus/48000/2\r\n"
            "a=rtpmap:110 telephone-event/48000\r\na=rtpmap:101 telephone-event/8000\r\n"
        )
        answer = phone.invite("echo", body=phone.sdp().partition("m=audio")[0] + formats)
        assert re.search(r"^m=audio \d+ RTP/AVP 96 110\r$", answer.text, re.M)
        phone.stop_media()
        for count in range(1, 13):
            event = struct.pack("!BBH", 7, 0x80 * (count > 9) | 10, min(count, 10) * 960)
            head = struct.pack("!BBHII", 0x80, 110 | 0x80 * (count == 1), 5000 + count, 48_000, 0xCA11)
            phone.rtp.sendto(head + event, phone.relay)
            time.sleep(0.02)

        def ended() -> list[bytes]:
            return [packet for packet in edge.cell.packets if packet[1] & 0x7F == 101 and packet[13] & 0x80]

        eventually(ended, "the end of the digit was not heard inside")
        assert digits(edge.cell) == {7}
        assert {struct.unpack("!H", packet[14:16])[0] for packet in ended()} == {1600}


def test_a_call_without_an_offer_is_offered_what_its_trunk_may_use(build: Build) -> None:
    edge = build(EchoCell(("PCMU",)))
    with RoutedPhone(edge.port, late=True) as phone:
        answer = phone.invite("echo")
        assert answer.code == 200
        assert edge.cell.offers == [""]
        assert f"m=audio {edge.cell.rtp_port} " not in answer.text
        eventually(lambda: any(edge.cell.acks), "no answer in the ACK")
        assert f"m=audio {phone.rtp_port} " not in edge.cell.acks[-1]
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)


@pytest.mark.parametrize(
    ("of_trunk", "line"),
    [
        ({"codecs": ("PCMA",)}, r"RTP/AVP 8\r"),
        ({"codecs": ("PCMU",), "srtp": "required"}, r"RTP/SAVP 0\r"),
        ({"codecs": ("opus",)}, r"RTP/AVP 96\r\na=rtpmap:96 opus/48000/2"),
    ],
    ids=["common", "encrypted", "foreign"],
)
def test_an_offer_of_the_cell_is_what_the_trunk_may_use(build: Build, of_trunk: dict[str, object], line: str) -> None:
    edge = build(**of_trunk)
    with RoutedPhone(edge.port, late=True) as phone:
        answer = phone.invite("echo")
        assert answer.code == 200
        assert re.search(r"^m=audio \d+ " + line, answer.text, re.M), answer.text


# --- strangers --------------------------------------------------------------------------------------------------------


def inject(target: tuple[str, int], packets: int = 40) -> None:
    """A stranger's RTP, from a port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for sequence in range(packets):
            stranger.sendto(struct.pack("!BBHII", 0x80, 0, sequence, sequence * 160, 0xBAD) + MARK, target)
            time.sleep(0.002)


@pytest.mark.parametrize("spoken", [False, True], ids=["before the caller speaks", "while the caller speaks"])
def test_a_stranger_is_not_heard(build: Build, spoken: bool) -> None:
    edge = build()
    with RoutedPhone(edge.port) as phone:
        phone.start_media()
        phone.stop_media()
        assert phone.invite("echo").code == 200
        if spoken:
            hears_itself(phone)
        else:
            phone.stop_media()
        ((_, inside),) = edge.cell.sources if spoken else {phone.relay}
        inject(phone.relay)
        inject(("127.0.0.1", inside))
        phone.start_media()
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)
        assert not [packet for packet in edge.cell.packets if MARK in packet]
        assert not [packet for packet in phone.received if packet.payload == MARK]


def test_a_relay_that_learns_addresses_hears_a_caller_behind_nat(build: Build) -> None:
    """The SDP names an address from which nothing comes, as a NAT makes it."""
    edge = build(relay=relay_settings(strict_source=False))
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo", body=phone.sdp().replace(f"m=audio {phone.rtp_port}", "m=audio 9")).code == 200
        eventually(lambda: phone.received, "the address was not learnt")
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)


# --- within a call ----------------------------------------------------------------------------------------------------


def test_hold_and_resume_keep_the_ports_and_the_sound(build: Build) -> None:
    edge = build()
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo").code == 200
        began = phone.relay
        assert phone.transact("INVITE", phone.sdp("sendonly")).code == 200
        assert "a=recvonly" in phone.answers[-1]
        assert "a=sendonly" in edge.cell.offers[-1]
        assert phone.transact("INVITE", phone.sdp()).code == 200
        assert phone.relay == began
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)


def test_an_opus_caller_stays_one_when_the_cell_offers_again(build: Build) -> None:
    edge = build()
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo", body=opus(phone)).code == 200
        edge.cell.reinvite()
        eventually(lambda: any("m=audio" in text for text in list(phone.requests.queue)), "no re-INVITE")
        offer = next(text for text in list(phone.requests.queue) if "m=audio" in text)
        assert re.search(r"^m=audio \d+ RTP/AVP 96\r$", offer, re.M), offer


def test_an_offer_of_the_cell_within_the_call_is_relayed_too(build: Build) -> None:
    edge = build()
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo").code == 200
        hears_itself(phone)
        edge.cell.reinvite()
        eventually(lambda: any("m=audio" in text for text in list(phone.requests.queue)), "no re-INVITE")
        offer = next(text for text in list(phone.requests.queue) if "m=audio" in text)
        assert f"m=audio {phone.relay[1]} RTP/AVP 8 0 " in offer.replace("0\r", "0 ")
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)


def test_the_next_cells_answer_counts_after_a_refusal(build: Build) -> None:
    edge = build(EchoCell(refusal=503, early=True), EchoCell())
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo").code == 200
        assert len(edge.cells[0].offers) == 1
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)


@pytest.mark.parametrize("refusal", [0, 480, 486])
def test_nothing_stays_in_the_relay_when_the_call_is_over(build: Build, refusal: int) -> None:
    edge = build(EchoCell(refusal=refusal))
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo").code == (refusal or 200)
        if not refusal:
            assert calls(edge) == 1
            phone.bye()
        eventually(lambda: calls(edge) == 0, "the relay keeps the call")


def calls(edge: Edge) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        host, _, port = edge.relay.settings.control.rpartition(":")
        endpoint.settimeout(2)
        endpoint.connect((host, int(port)))
        endpoint.send(uuid.uuid4().hex.encode() + b" d7:command10:statisticse")
        found = re.search(rb"sessionstotali(\d+)e", endpoint.recv(65_535))
    assert found is not None
    return int(found[1])


# --- what is refused --------------------------------------------------------------------------------------------------

CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n"


@pytest.mark.parametrize(
    ("srtp", "profile", "code"),
    [
        ("off", "RTP/SAVP", 488),
        ("off", "RTP/AVP", 200),
        ("required", "RTP/AVP", 488),
        ("required", "RTP/SAVP", 200),
        ("offered", "RTP/WHAT", 488),
    ],
)
def test_encryption_by_trunk(build: Build, srtp: str, profile: str, code: int) -> None:
    edge = build(srtp=srtp)
    with RoutedPhone(edge.port) as phone:
        answer = phone.invite("echo", body=phone.sdp().replace("RTP/AVP", profile) + CRYPTO)
        assert answer.code == code
        assert len(edge.cell.offers) == (1 if code == 200 else 0)


def test_no_codec_of_the_trunk_is_488(build: Build) -> None:
    edge = build(codecs=("PCMA",))
    with RoutedPhone(edge.port) as phone:
        assert phone.invite("echo").code == 488
    assert not edge.cell.offers


def test_a_call_that_finds_no_port_is_503_and_the_next_may_find_one(build: Build) -> None:
    first, _ = free_range(12)
    edge = build(relay=relay_settings(ports=(first, first + 7)))
    with ExitStack() as stack:
        phones = [stack.enter_context(RoutedPhone(edge.port)) for _ in range(3)]
        codes = [phone.invite("echo").code for phone in phones]
        assert codes == sorted(codes)
        assert (codes[0], codes[-1]) == (200, 503)
        phones[0].bye()
        eventually(lambda: phones[-1].invite("echo").code == 200, "its ports were not given back")


# --- the relay is away ------------------------------------------------------------------------------------------------

OPUS = "m=audio 9 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\n"


def opus(phone: Phone) -> str:
    return phone.sdp().partition("m=audio")[0] + OPUS


def test_a_relay_that_dies_takes_the_sound_and_nothing_else(build: Build) -> None:
    edge = build()
    with RoutedPhone(edge.port) as phone, RoutedPhone(edge.port) as other:
        assert phone.invite("echo").code == 200
        hears_itself(phone)
        edge.relay.kill()
        assert other.invite("echo").code == 503
        assert len(edge.cell.offers) == 1
        assert phone.bye().code == 200
        with RtpengineServer(edge.relay.folder, edge.relay.settings):
            for _ in range(6):  # each of Kamailio's processes has its turn
                assert other.invite("echo").code == 200
                assert hears_itself(other, 100) == pytest.approx(TONE_LEVEL, rel=0.1)
                assert other.bye().code == 200
            eventually(lambda: calls(edge) == 0, "the relay keeps the calls")


def test_a_relay_that_hangs_is_given_up_soon(build: Build) -> None:
    edge = build()
    os.kill(edge.relay.process.pid, signal.SIGSTOP)
    try:
        with RoutedPhone(edge.port) as phone:
            began = time.monotonic()
            assert phone.invite("echo", timeout_s=5).code == 503
            waited = time.monotonic()
            assert phone.invite("echo").code == 503
            assert time.monotonic() - waited < (waited - began) / 2, "the second call waited for the relay too"
            os.kill(edge.relay.process.pid, signal.SIGCONT)
            eventually(lambda: phone.invite("echo").code == 200, "calls are refused for ever")
    finally:
        os.kill(edge.relay.process.pid, signal.SIGCONT)


def test_only_calls_that_need_the_relay_miss_it(build: Build) -> None:
    edge = build(relay=relay_settings(relay="needed"))
    edge.relay.kill()
    with RoutedPhone(edge.port) as phone, RoutedPhone(edge.port) as other:
        assert phone.invite("echo").code == 200
        assert phone.relay[1] == edge.cell.rtp_port
        assert hears_itself(phone) == pytest.approx(TONE_LEVEL, rel=0.05)
        assert phone.transact("INVITE", phone.sdp()).code == 200
        assert other.invite("echo", body=opus(other)).code == 503
        assert phone.bye().code == 200


def test_where_only_some_need_it_the_others_go_past_it(build: Build) -> None:
    edge = build(relay=relay_settings(relay="needed"))
    with RoutedPhone(edge.port) as phone, RoutedPhone6(edge.port) as other:
        assert phone.invite("echo").code == 200
        assert phone.relay[1] == edge.cell.rtp_port
        assert other.invite("echo").code == 200
        assert hears_itself(other) == pytest.approx(TONE_LEVEL, rel=0.05)
        assert calls(edge) == 1


# --- a real softphone -------------------------------------------------------------------------------------------------

SAID_HZ = 1000.0


@pytest.mark.peers
@pytest.mark.parametrize(
    ("codec", "modules", "account"),
    [
        ("opus/48000/2", ("opus",), ""),
        ("PCMA", ("srtp",), "mediaenc=srtp-mand"),
        ("opus/48000/2", ("opus", "dtls_srtp"), "mediaenc=dtls_srtp"),
        ("PCMA", ("ice",), "medianat=ice"),
    ],
    ids=["opus", "srtp", "opus-dtls", "ice"],
)
def test_a_softphone_hears_itself(
    build: Build, tmp_path: Path, codec: str, modules: tuple[str, ...], account: str
) -> None:
    edge = build(EchoCell(("PCMA",)))
    folder = tmp_path / "phone"
    folder.mkdir()
    rate_hz, channels = (48_000, 2) if codec.startswith("opus") else (8_000, 1)
    said = np.repeat(rtp.tone((SAID_HZ,), 20_000, rate_hz), channels)
    with wave.open(str(folder / "said.wav"), "wb") as file:
        file.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(said.tobytes())
    with Baresip(folder, codec, modules, account) as softphone:
        softphone.command("dial", f"sip:echo@127.0.0.1:{edge.port}")
        softphone.wait_for("CALL_ESTABLISHED")
        eventually(lambda: len(edge.cell.packets) > 60, f"nothing was heard inside:\n{softphone.log[-2000:]}")
        if codec == "PCMA":  # rtpengine takes no events of 8 kHz beside a codec of 48 kHz (RFC 4733, section 2.1)
            softphone.command("sndcode", "7")
            eventually(lambda: digits(edge.cell) == {7}, "the digit was not heard inside")
        softphone.command("hangup")
        softphone.wait_for("CALL_CLOSED")
    with wave.open(str(softphone.heard)) as file:
        assert file.getframerate() == rate_hz
        heard = np.frombuffer(file.readframes(file.getnframes()), np.int16)[::channels]
    middle = heard[len(heard) // 3 :][: rate_hz // 2]
    assert rtp.strongest_hz(middle, rate_hz) == pytest.approx(SAID_HZ, abs=5)
    # A stereo codec is mixed down and up again: 3 dB less.
    assert rtp.level(middle) == pytest.approx(rtp.level(said[:8000]), rel=0.4)


def digits(cell: EchoCell) -> set[int]:
    """Telephone-events (RFC 4733) that reached the cell."""
    event = re.search(r"^a=rtpmap:(\d+) telephone-event/8000", cell.offers[-1], re.M)
    assert event is not None
    return {packet[12] for packet in cell.packets if packet[1] & 0x7F == int(event[1])}


# --- a real cell ------------------------------------------------------------------------------------------------------

PLAN = """
tenant: relay
flows:
  echo: [answer, echo]
routes:
  - match: {to: echo}
    flow: echo
"""


def test_a_real_cell_echoes_a_caller_on_ipv6(tmp_path: Path) -> None:
    settings = relay_settings()
    with (
        ServerProcess(tmp_path / "cell", {"relay.yaml": PLAN}) as server,
        RtpengineServer(tmp_path / "relay", settings),
        MiniKamailio(tmp_path / "edge", [server.sip_port], settings, trunk()) as kamailio,
        RoutedPhone6(kamailio.port) as phone,
    ):
        assert phone.invite("echo").code == 200
        # PJMEDIA resamples to 16 kHz and back, which costs 2 dB.
        assert hears_itself(phone) == pytest.approx(0.795 * TONE_LEVEL, rel=0.05)
        assert phone.bye().code == 200
