"""Every SIPp scenario in `tests/sipp_scenarios/` against one server, and what the call's record then says.

SIPp itself checks the messages; here we check that it was content, what was heard, and how the record ends. The calls
run three at a time before the first result is looked at, because a session refresh alone takes 45 s.
"""

from __future__ import annotations

import signal
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.harness.phone import Phone
from tests.harness.records import Record, ended, records
from tests.harness.server import ServerProcess
from tests.peers import rtp, sipp
from tests.peers.plan import PLAN, PROMPT_HZ, write_prompt
from tests.peers.rtp import PCMA, PCMU, Script
from tests.peers.sipp import SCENARIOS, Outcome

pytestmark = pytest.mark.peers

Check = Callable[[Outcome, Record], None]


@dataclass(frozen=True, slots=True)
class Case:
    """user: whom SIPp calls. reason: how the record ends, empty when there must be none. refused_first: how the record
    of an INVITE before that ends. hears: the codec and pitch that must come back. checks: what else the outcome and the
    record must show.
    """

    user: str = "echo"
    reason: str = "caller_hangup"
    refused_first: str = ""
    script: Script | None = None
    hears: tuple[rtp.Codec, float] | None = None
    checks: tuple[Check, ...] = ()
    tcp: bool = False
    options: tuple[str, ...] = ()
    limit_s: float = sipp.LIMIT_S


# --- what else must be true -------------------------------------------------------------------------------------------


def has(*kinds: str) -> Check:
    """The events happened, in this order."""

    def check(_outcome: Outcome, record: Record) -> None:
        seen = iter(record.kinds)
        assert all(kind in seen for kind in kinds), f"{kinds} not in order in {record.kinds}"

    return check


def lacks(*kinds: str) -> Check:
    def check(_outcome: Outcome, record: Record) -> None:
        assert not set(kinds) & set(record.kinds)

    return check


def codec(*names: str) -> Check:
    """Media ran with these codecs, one after the other."""

    def check(_outcome: Outcome, record: Record) -> None:
        assert [event["codec"] for event in record.of("media.started")] == list(names)

    return check


def digits(text: str, method: str) -> Check:
    def check(_outcome: Outcome, record: Record) -> None:
        assert "".join(event["digit"] for event in record.of("digit.received")) == text
        assert {event["method"] for event in record.of("digit.received")} == {method}
        assert [(event["name"], event["value"]) for event in record.of("variable.set")] == [("choice", text)]
        assert "right" in {event["flow"] for event in record.of("step.entered")}

    return check


def refused_with(code: int) -> Check:
    def check(_outcome: Outcome, record: Record) -> None:
        assert record.sip_code == code
        assert not record.answered

    return check


def received_at_least(packets: int) -> Check:
    def check(_outcome: Outcome, record: Record) -> None:
        assert record.of("media.rtp")[-1]["received"] >= packets

    return check


def answer_sent_again(outcome: Outcome, _record: Record) -> None:
    assert outcome.trace.count("SIP/2.0 200 OK") >= 3  # the answer, the same again, and the answer to the BYE


def tone_in_both_channels(_outcome: Outcome, record: Record) -> None:
    """The caller's side of the recording is what SIPp sent back: the server's own tone."""
    recording = Path(record.recording)
    with wave.open(str(recording)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 16_000)
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
    for channel in range(2):
        assert rtp.strongest_hz(samples[:, channel], 16_000) == pytest.approx(PROMPT_HZ, abs=15)
    assert record.recording_status == "complete"


def early_media_heard(outcome: Outcome, _record: Record) -> None:
    assert rtp.strongest_hz(outcome.heard.signal(PCMA), 8000) == pytest.approx(PROMPT_HZ, abs=15)


def pause_on_hold(outcome: Outcome, _record: Record) -> None:
    """Far fewer packets than the whole call would have had: nothing was sent to a caller who does not listen."""
    assert len(outcome.heard.payloads) < outcome.sent - 20


# --- the table --------------------------------------------------------------------------------------------------------

TONE = Script(tone_hz=1000)
HEARD = (PCMA, 1000.0)
NO_CALL = Case(reason="")

CASES = {
    "uac-183-early-media": Case("early", script=Script(), checks=(early_media_heard, has("leg.answered"))),
    "uac-200-echo-bye": Case(
        checks=(has("call.started", "call.routed", "leg.answered", "leg.disconnected", "call.ended"),)
    ),
    "uac-200-echo-rtp": Case(script=TONE, hears=HEARD, checks=(codec("PCMA"), received_at_least(40))),
    "uac-200-echo-rtpstream": Case(checks=(codec("PCMA"), received_at_least(40))),
    "uac-200-g722": Case(
        script=Script(rtp.G722_CODEC, tone_hz=5000), hears=(rtp.G722_CODEC, 5000.0), checks=(codec("G722"),)
    ),
    "uac-200-headers-branch": Case("headers", "dialplan_hangup", script=TONE),
    "uac-200-late-offer": Case(script=TONE, hears=HEARD),
    "uac-200-pcma": Case(script=TONE, hears=HEARD, checks=(codec("PCMA"),)),
    "uac-200-pcmu": Case(script=Script(PCMU, tone_hz=1000), hears=(PCMU, 1000.0), checks=(codec("PCMU"),)),
    **{
        f"uac-200-ptime-{ptime}": Case(script=Script(PCMU, ptime, tone_hz=1000), hears=(PCMU, 1000.0))
        for ptime in (10, 30, 60)
    },
    "uac-200-record-rtp-echo": Case(
        "record", "dialplan_hangup", checks=(tone_in_both_channels,), options=("-rtp_echo",)
    ),
    "uac-200-retransmitted-until-ack": Case(checks=(answer_sent_again,)),
    "uac-200-server-bye": Case("quick", "dialplan_hangup"),
    "uac-200-tcp": Case(tcp=True, script=TONE),
    "uac-200-two-m-lines": Case(script=TONE, hears=HEARD),
    "uac-404-no-route": Case("nobody", "no_route", checks=(refused_with(404),)),
    "uac-415-body-not-sdp": NO_CALL,
    "uac-420-bad-extension": NO_CALL,
    "uac-422-session-interval-too-small": Case(refused_first="leg_lost"),
    "uac-486-dialplan-busy": Case("busy", "busy", checks=(refused_with(486),)),
    "uac-488-no-codec": NO_CALL,
    "uac-603-hangup-before-answer": Case("refuse", "rejected", checks=(refused_with(603),)),
    "uac-603-headers-missing": Case("headers", "rejected", checks=(refused_with(603),)),
    "uac-ack-without-sdp-ends": Case(reason="leg_lost"),
    "uac-bye-481-no-dialog": NO_CALL,
    "uac-bye-before-answer": Case("slow", "cancelled"),
    "uac-cancel-481-no-call": NO_CALL,
    "uac-cancel-487": Case("slow", "cancelled", checks=(refused_with(487),)),
    "uac-dtmf-inband": Case(
        "menu", "dialplan_hangup", script=Script(digits="427", method="inband"), checks=(digits("427", "inband"),)
    ),
    "uac-dtmf-info": Case("menu", "dialplan_hangup", script=Script(), checks=(digits("427", "info"),)),
    "uac-dtmf-info-plain": Case("menu", "dialplan_hangup", script=Script(), checks=(digits("427", "info"),)),
    "uac-dtmf-rfc4733": Case(
        "menu", "dialplan_hangup", script=Script(digits="427"), checks=(digits("427", "rfc4733"),)
    ),
    "uac-dtmf-rfc4733-no-marker": Case(
        "menu",
        "dialplan_hangup",
        script=Script(digits="427", method="rfc4733-no-marker"),
        checks=(digits("427", "rfc4733"),),
    ),
    "uac-hold-inactive": Case(script=TONE, hears=HEARD, checks=(has("leg.held", "leg.resumed"), pause_on_hold)),
    "uac-hold-resume": Case(script=TONE, hears=HEARD, checks=(has("leg.held", "leg.resumed"),)),
    "uac-hold-zero-address": Case(script=TONE, hears=HEARD, checks=(has("leg.held", "leg.resumed"), pause_on_hold)),
    "uac-info-481-no-dialog": NO_CALL,
    "uac-message-405": NO_CALL,
    "uac-notify-405": NO_CALL,
    "uac-options-200": NO_CALL,
    "uac-options-in-dialog-200": Case(),
    "uac-publish-405": NO_CALL,
    "uac-refer-405": NO_CALL,
    "uac-refer-refused": Case(),
    "uac-register-405": NO_CALL,
    "uac-reinvite-no-codec-call-goes-on": Case(script=TONE, hears=HEARD, checks=(codec("PCMA"),)),
    "uac-reinvite-codec-change": Case(
        script=Script(PCMU, tone_hz=1000), hears=(PCMU, 1000.0), checks=(codec("PCMA", "PCMU"),)
    ),
    "uac-retransmit-invite-one-call": Case("slow"),
    "uac-session-timer-uac-refreshes": Case(script=TONE, hears=HEARD),
    "uac-session-timer-uas-refreshes": Case(script=TONE, hears=HEARD, limit_s=70),
    "uac-subscribe-405": NO_CALL,
    "uac-update-481-no-dialog": NO_CALL,
}

OTHER_STATE = {"uac-486-over-capacity-retry-after", "uac-503-draining"}
"""They need a server of their own; their tests are below."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("sipp-server")
    process = ServerProcess(folder, {"peers.yaml": PLAN})
    write_prompt(process.dialplans)
    with process:
        yield process


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """The calls of all cases that this run selects, the longest first."""
    folder = tmp_path_factory.mktemp("sipp")
    (folder / "tone.alaw").write_bytes(PCMA.encoder()(rtp.tone((1000.0,), 1000, 8000)))
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = {str(item.callspec.params["name"]) for item in functions if item.function is test_scenario}

    def run(name: str) -> Outcome:
        case = CASES[name]
        return sipp.call(
            name,
            folder,
            server.sip_port,
            case.script,
            user=case.user,
            tcp=case.tcp,
            limit_s=case.limit_s,
            options=case.options,
        )

    with ThreadPoolExecutor(3) as pool:
        running = {name: pool.submit(run, name) for name in sorted(names, key=lambda name: -CASES[name].limit_s)}
    return {name: future.result() for name, future in running.items()}


def test_every_scenario_is_run() -> None:
    files = {file.stem for file in SCENARIOS.glob("uac-*.xml")}
    assert files == CASES.keys() | OTHER_STATE
    assert not CASES.keys() & OTHER_STATE


@pytest.mark.parametrize("name", sorted(CASES))
def test_scenario(name: str, outcomes: dict[str, Outcome], server: ServerProcess) -> None:
    case, outcome = CASES[name], outcomes[name]
    assert outcome.code == 0, outcome.trace
    if not case.reason:
        assert not records(server.database, outcome.sip_call_id)
        return
    found = ended(server.database, outcome.sip_call_id)
    assert [record.reason for record in found] == [reason for reason in (case.refused_first, case.reason) if reason]
    record = found[-1]
    assert "fault.other" not in record.kinds
    if case.hears:
        heard, hz = outcome.heard.signal(case.hears[0]), case.hears[1]
        assert rtp.strongest_hz(heard, case.hears[0].rate_hz) == pytest.approx(hz, rel=0.02)
        assert rtp.level(heard) > 2000
    for check in case.checks:
        check(outcome, record)


def test_the_server_outlived_them_all(outcomes: dict[str, Outcome], server: ServerProcess) -> None:
    assert outcomes.keys() <= CASES.keys()
    with Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
    assert "Traceback" not in server.log()


# --- other states of the server ---------------------------------------------------------------------------------------


def test_over_capacity_is_486_with_retry_after(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server", {"peers.yaml": PLAN}, {"sip": {"inbound_calls": 1, "retry_after_s": 7}})
    write_prompt(server.dialplans)
    with server, Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
        outcome = sipp.call("uac-486-over-capacity-retry-after", tmp_path, server.sip_port)
        assert outcome.code == 0, outcome.trace
        assert "Retry-After: 7" in outcome.trace
        phone.bye()
        assert sipp.call("uac-200-echo-bye", tmp_path, server.sip_port).code == 0
        metrics = server.get("/metrics")
    refused = [line for line in metrics.splitlines() if "limit" in line or "capacity" in line or "refused" in line]
    assert any(line.endswith(" 1.0") for line in refused), metrics


def test_draining_is_503_and_the_running_call_ends_at_the_deadline(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server", {"peers.yaml": PLAN}, {"calls": {"drain_s": 4}})
    write_prompt(server.dialplans)
    server.start()
    try:
        with Phone(server.sip_port) as phone:
            assert phone.invite("echo").code == 200
            server.signal(signal.SIGTERM)
            while server.takes_calls():
                assert server.process is not None
                assert server.process.poll() is None
            outcome = sipp.call("uac-503-draining", tmp_path, server.sip_port)
            assert outcome.code == 0, outcome.trace
            assert not phone.ended.is_set()
            assert phone.ended.wait(10)
    finally:
        assert server.stop() == 0
    reasons = {record.reason for record in ended(server.database)}
    assert reasons == {"drain"}
