"""Three parties at the whole server: who hears whom, and what each far end reads, when a caller is connected.

Callers, callees and third ones are the SIPp scenarios `caller-*`, `callee-*` and `third-*`. The caller's trunk is `pbx`
(127.0.0.1), which may transfer; `guest` (127.0.0.2) may not; callees are called by the trunk `two`.
"""

from __future__ import annotations

import re
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.until import wait_until
from tests.harness.records import Record
from tests.harness.server import ServerProcess, free_range
from tests.peers import rtp
from tests.peers.plan import write_wav
from tests.peers.rtp import G722_CODEC, PCMA, Script
from tests.peers.sipp import SCENARIOS
from tests.peers.three import HZ, Far, Three, three

pytestmark = pytest.mark.peers

STRANGER_HZ = 3000.0

LEFT_ALONE_S = 90.0
"""After a failure the far ends are gone: silence ends their calls, and the next test finds the legs free."""

PLAN = """
tenant: parties
flows:
  bridge: [{bridge: {to: "202", trunk: two, music: music.wav, on: {failed: end}}}]
  branch: [{bridge: {to: "202", trunk: two, ring_s: 2, on: {busy: sorry, no_answer: sorry, failed: sorry}}}]
  refused: [{bridge: {to: "202", trunk: two, ring_s: 2, on: {busy: end, no_answer: end, declined: end, failed: end}}}]
  silent: [{bridge: {to: "202", trunk: two, rtp_timeout_s: 3, on: {answered: sorry, failed: end}}}]
  blind: [{transfer: {to: "203", trunk: pbx, mode: blind, on: {busy: sorry, failed: sorry}}}]
  hasty: [{transfer: {to: "203", trunk: pbx, mode: blind, ring_s: 2, on: {no_answer: sorry, failed: end}}}]
  attended:
    - transfer: {to: "202", trunk: two, music: music.wav, on: {busy: sorry, no_answer: sorry, failed: sorry}}
  within:
    - transfer: {to: "202", trunk: pbx, music: music.wav, on: {failed: sorry}}
  warm:
    - transfer:
        {to: "202", trunk: two, mode: warm, music: music.wav, tts: espeak, announce: Here is a caller for you.,
         accept_s: 30, on: {declined: sorry, no_answer: sorry, failed: end}}
  idle: [{play: music.wav}, {wait: 60}]
  sorry: [{play: sorry.wav}, {wait: 60}]
routes:
""" + "".join(
    f"  - match: {{to: {name}}}\n    flow: {name}\n"
    for name in (
        "bridge",
        "branch",
        "refused",
        "silent",
        "blind",
        "hasty",
        "attended",
        "within",
        "warm",
        "idle",
    )
)


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """Of the trunks' hosts; a third one is called by the trunk of who transferred."""
    pbx, two = free_range(8)[0], free_range(8)[0]
    return {"pbx": pbx, "third": pbx, "two": two, "callee": two}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[ServerProcess]:
    trunks = [
        {
            "name": "pbx", "sources": ["127.0.0.1/32"], "host": f"127.0.0.1:{ports['pbx']}", "refer_to": ["203"],
            "replaces": True, "number_format": "as_is", "srtp": "off",
        },
        {"name": "two", "host": f"127.0.0.1:{ports['two']}", "number_format": "as_is", "srtp": "off"},
        {"name": "guest", "sources": ["127.0.0.2/32"], "srtp": "off"},
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="three-") as runtime:
        overrides = {
            "trunks": trunks,
            "fleet": {"runtime": runtime},
            "speech": {"tts": {"espeak": {"vendor": "espeak"}}},
        }
        process = ServerProcess(tmp_path_factory.mktemp("three"), {"parties.yaml": PLAN}, overrides)
        for name in ("music", "sorry"):
            write_wav(process.dialplans / f"{name}.wav", rtp.tone((HZ[name],), 30_000, 16_000), 16_000)
        with process:
            yield process
            assert "Traceback" not in process.log()


@pytest.fixture
def there(server: ServerProcess, tmp_path: Path, ports: dict[str, int]) -> Iterator[Three]:
    with three(server, tmp_path, ports) as parties:
        yield parties
    wait_until(lambda: calls_of(server) == 0, "every call ends", LEFT_ALONE_S)


def calls_of(server: ServerProcess) -> float:
    return sum(map(float, re.findall(r"^sipserver_calls\{.*\} (\S+)$", server.get("/metrics"), re.M)))


def connected(
    there: Three, caller: str = "caller-200-bye", callee: str = "callee-200-far-end-bye", user: str = "bridge",
    **facts: object,
) -> tuple[Far, Far]:  # fmt: skip
    """Caller and callee talk. facts: of the caller."""
    called = there.listen("callee", callee)
    calling = there.place("caller", caller, user=user, **facts)
    there.hear_each_other()
    return calling, called


def leave(there: Three, reason: str = "caller_hangup", *, faults: int = 0) -> Record:
    """The caller hangs up, everybody was content, and the record says how it ended."""
    there.far["caller"].go_on()
    there.all_content()
    record = there.record(faults=faults)
    assert record.reason == reason
    return record


# --- a bridge begins and ends -----------------------------------------------------------------------------------------


def test_the_caller_hangs_up(there: Three) -> None:
    connected(there)
    there.far["caller"].go_on()
    there.all_content()
    record = there.record()
    assert record.reason == "caller_hangup"
    assert [end["reason"] for end in record.of("bridge.ended")] == ["caller_hangup"]
    assert [end["by"] for end in record.of("party.ended")] == ["us"]


def test_the_callee_hangs_up(there: Three) -> None:
    _, callee = connected(there, "caller-200-far-end-bye", "callee-200-bye")
    callee.go_on()
    there.all_content()
    record = there.record()
    assert record.reason == "callee_hangup"
    assert [end["by"] for end in record.of("party.ended")] == ["party"]


def test_early_media_is_heard_before_the_answer(there: Three) -> None:
    callee = there.listen("callee", "callee-183-200-far-end-bye")
    caller = there.place("caller", "caller-183-200-bye", user="bridge")
    caller.hears("callee")
    assert "SIP/2.0 200" not in caller.sipp.messages
    callee.go_on()
    there.hear_each_other()
    leave(there)


@pytest.mark.parametrize(
    ("callee", "caller", "reason"),
    [
        ("uas-486-busy", "caller-486-refused", "busy"),
        ("uas-603-declined", "caller-603-refused", "declined"),
        ("callee-180-cancelled", "caller-480-refused", "no_answer"),
        ("uas-503-unavailable", "caller-503-refused", "carrier_failed"),
    ],
)
def test_a_refusal_is_the_callers_too(there: Three, callee: str, caller: str, reason: str) -> None:
    there.listen("callee", callee)
    there.place("caller", caller, user="refused")
    there.all_content()
    record = there.record()
    assert (record.reason, record.answered) == (reason, False)


@pytest.mark.parametrize("callee", ["uas-486-busy", "callee-180-cancelled", "uas-503-unavailable"])
def test_a_branch_keeps_the_caller(there: Three, callee: str) -> None:
    there.listen("callee", callee)
    there.place("caller", "caller-200-bye", user="branch")
    there.far["caller"].hears("sorry")
    there.far["callee"].is_content()
    leave(there)


@pytest.mark.parametrize(
    ("caller", "callee"),
    [("caller-180-cancelled", "callee-180-cancelled"), ("caller-183-cancelled", "callee-183-cancelled")],
)
def test_a_caller_who_cancels_leaves_nobody_ringing(there: Three, caller: str, callee: str) -> None:
    there.listen("callee", callee)
    there.place("caller", caller, user="bridge")
    there.far["caller"].got(f"SIP/2.0 {caller[7:10]}")
    leave(there, "cancelled")


def test_a_callee_that_answers_and_sends_nothing_is_left(there: Three) -> None:
    there.listen("callee", "callee-200-far-end-bye", silent=True)
    there.place("caller", "caller-200-bye", user="silent").hears("sorry")
    there.far["callee"].is_content()
    record = leave(there)
    assert [end["reason"] for end in record.of("bridge.ended")] == ["media_timeout"]


def test_a_callee_that_dies_while_they_talk_is_left(there: Three) -> None:
    caller, callee = connected(there, user="silent")
    callee.dies()
    caller.hears("sorry")
    callee.is_buried()
    caller.go_on()
    caller.is_content()
    record = there.record()
    assert record.reason == "caller_hangup"
    assert [end["reason"] for end in record.of("bridge.ended")] == ["media_timeout"]


def test_a_caller_that_dies_while_they_talk_leaves_nobody_behind(there: Three) -> None:
    caller, callee = connected(there, user="silent")
    caller.dies()
    callee.is_content()
    caller.is_buried()
    assert there.record().reason == "media_timeout"


# --- within a bridge --------------------------------------------------------------------------------------------------


def test_the_caller_holds_and_the_callee_hears_music(there: Three) -> None:
    caller, callee = connected(there, "caller-hold-resume-bye")
    caller.go_on()
    callee.hears("music")
    caller.go_on()
    there.hear_each_other()
    leave(there)
    kinds = [kind for kind in there.record().kinds if kind in ("leg.held", "leg.resumed")]
    assert kinds == ["leg.held", "leg.resumed"]


def test_the_callee_holds_and_the_caller_hears_music(there: Three) -> None:
    caller, callee = connected(there, callee="callee-hold-resume-far-end-bye")
    callee.go_on()
    caller.hears("music")
    callee.go_on()
    there.hear_each_other()
    record = leave(there)
    assert [event.get("leg", "") for event in record.of("leg.held")] == ["party-1"]


@pytest.mark.parametrize(
    ("caller", "callee", "who", "done"),
    [
        ("caller-reinvite-488-bye", "callee-200-far-end-bye", "caller", "SIP/2.0 488"),
        ("caller-200-bye", "callee-reinvite-488-far-end-bye", "callee", "SIP/2.0 488"),
        ("caller-update-200-bye", "callee-200-far-end-bye", "caller", "CSeq: 2 UPDATE"),
        ("caller-200-bye", "callee-update-200-far-end-bye", "callee", "CSeq: 1 UPDATE"),
    ],
)
def test_an_offer_on_one_leg_leaves_the_talk_alone(there: Three, caller: str, callee: str, who: str, done: str) -> None:
    connected(there, caller, callee)
    other = there.far["callee" if who == "caller" else "caller"]
    before = len(re.findall(r"^(?:INVITE|UPDATE) sip", other.sipp.messages, re.M))
    there.far[who].go_on()
    there.far[who].got(done)
    heard = {name: len(far.rtp.heard.payloads) for name, far in there.far.items()}
    wait_until(
        lambda: all(len(far.rtp.heard.payloads) > heard[name] + 50 for name, far in there.far.items()), "a second"
    )
    there.hear_each_other()
    assert len(re.findall(r"^(?:INVITE|UPDATE) sip", other.sipp.messages, re.M)) == before
    leave(there)


@pytest.mark.parametrize(("one", "other"), [(PCMA, G722_CODEC), (G722_CODEC, PCMA)])
def test_codecs_differ(there: Three, one: rtp.Codec, other: rtp.Codec) -> None:
    there.listen("callee", "callee-200-far-end-bye", script=Script(other))
    there.place("caller", "caller-200-bye", user="bridge", script=Script(one))
    there.hear_each_other()
    leave(there)
    codecs = {event.get("leg", ""): event["codec"] for event in there.record().of("media.started")}
    assert codecs == {"": one.name, "party-1": other.name}


def test_digits_of_the_caller_are_events_at_the_callee_each_once(there: Three) -> None:
    caller, callee = connected(there)
    caller.rtp.press("17#")
    wait_until(lambda: len(callee.rtp.heard.digits()) >= 3, "three keys at the callee")
    there.hear_each_other()
    leave(there)
    assert callee.rtp.heard.digits() == "17#"


def test_digits_of_the_callee_are_events_at_the_caller_each_once(there: Three) -> None:
    caller, callee = connected(there)
    callee.rtp.press("90*")
    wait_until(lambda: len(caller.rtp.heard.digits()) >= 3, "three keys at the caller")
    there.hear_each_other()
    leave(there)
    assert caller.rtp.heard.digits() == "90*"


def test_digits_by_info_are_events_at_the_callee(there: Three) -> None:
    caller, callee = connected(there, "caller-info-digits-bye")
    caller.go_on()
    wait_until(lambda: len(callee.rtp.heard.digits()) >= 2, "two keys at the callee")
    leave(there)
    assert callee.rtp.heard.digits() == "42"


def test_digits_for_a_callee_without_events_are_tones(there: Three) -> None:
    caller, callee = connected(there, callee="callee-200-no-events-far-end-bye")
    caller.rtp.press("42")
    wait_until(lambda: len(tones(callee)) >= 2, "two keys at the callee")
    leave(there)
    assert tones(callee) == "42"


def tones(far: Far) -> str:
    """Keys as pairs of tones in what a far end has heard, each once, by windows of 40 ms."""
    samples, window = far.rtp.heard.signal(PCMA), 320
    clock = np.arange(window) / 8000
    found = [""]
    for start in range(0, len(samples) - window, window):
        piece = samples[start : start + window] * np.hanning(window)
        level = {
            hz: abs(np.mean(piece * np.exp(-2j * np.pi * hz * clock)))
            for pair in rtp.TONE_PAIRS.values()
            for hz in pair
        }
        keys = [key for key, pair in rtp.TONE_PAIRS.items() if min(level[hz] for hz in pair) > 400]
        if "".join(keys) != found[-1]:
            found.append("".join(keys))
    return "".join(found)


# --- transfers that the dialplan asks for -----------------------------------------------------------------------------


def test_blind_the_caller_goes_to_the_target(there: Three) -> None:
    there.place("caller", "caller-refer-202-notify-200", user="blind")
    there.all_content()
    record = there.record()
    assert record.reason == "transferred"
    assert [(end["outcome"], end["how"], end["code"]) for end in record.of("transfer.ended")] == [
        ("answered", "refer", 200)
    ]


@pytest.mark.parametrize(
    ("caller", "user", "outcome", "faults"),
    [
        ("caller-refer-202-notify-486-bye", "blind", "busy", 0),
        ("caller-refer-405-bye", "blind", "failed", 1),
        ("caller-refer-603-bye", "blind", "failed", 1),
        ("caller-refer-202-silent-bye", "hasty", "no_answer", 0),
    ],
)
def test_blind_a_caller_that_was_not_taken_hears_us_again(
    there: Three, caller: str, user: str, outcome: str, faults: int
) -> None:
    there.place("caller", caller, user=user).hears("sorry")
    record = leave(there, faults=faults)
    assert [end["outcome"] for end in record.of("transfer.ended")] == [outcome]


def test_blind_the_caller_hangs_up_before_the_last_word(there: Three) -> None:
    there.place("caller", "caller-refer-202-silent-bye", user="blind").got("202 Accepted")
    record = leave(there)
    assert [end["outcome"] for end in record.of("transfer.ended")] == ["caller_gone"]


def test_attended_the_caller_hears_music_and_then_the_target(there: Three) -> None:
    callee = there.listen("callee", "callee-183-200-far-end-bye")
    there.place("caller", "caller-200-bye", user="attended").hears("music")
    callee.go_on()
    there.hear_each_other()
    record = leave(there)
    assert [(end["outcome"], end["how"]) for end in record.of("transfer.ended")] == [("answered", "bridge")]


def test_attended_the_server_leaves_where_both_know_replaces_at_one_trunk(there: Three) -> None:
    callee = there.listen("callee", "callee-200-replaces-far-end-bye", "pbx")
    caller = there.place("caller", "caller-refer-replaces-notify-200", user="within")
    there.all_content()
    record = there.record()
    assert record.reason == "transferred"
    assert [(end["outcome"], end["how"]) for end in record.of("transfer.ended")] == [("answered", "replaces")]
    refer_to = re.search(r"^Refer-To:.*Replaces=([^%>?]+)", caller.sipp.messages, re.M | re.I)
    assert refer_to
    assert f"Call-ID: {refer_to[1]}" in callee.sipp.messages


def test_attended_the_bridge_stays_where_replaces_fails(there: Three) -> None:
    there.listen("callee", "callee-200-replaces-far-end-bye", "pbx")
    caller = there.place("caller", "caller-refer-replaces-notify-503-bye", user="within")
    caller.got("503 Service")
    there.hear_each_other()
    there.happened("transfer.ended")
    assert [end["how"] for record in there.so_far() for end in record.of("transfer.ended")] == ["bridge"]
    leave(there)


def test_attended_a_busy_target_leaves_the_caller_here(there: Three) -> None:
    there.listen("callee", "uas-486-busy")
    there.place("caller", "caller-200-bye", user="attended").hears("sorry")
    record = leave(there)
    assert [end["outcome"] for end in record.of("transfer.ended")] == ["busy"]


def test_attended_the_caller_hangs_up_while_the_target_rings(there: Three) -> None:
    there.listen("callee", "callee-180-cancelled")
    there.place("caller", "caller-200-bye", user="attended").hears("music")
    there.far["callee"].got("180 Ringing")
    record = leave(there)
    assert [end["outcome"] for end in record.of("transfer.ended")] == ["caller_gone"]


def announced(there: Three, callee: str) -> tuple[Far, Far]:
    """The target hears the announcement, and the caller hears music."""
    called = there.listen("callee", callee)
    caller = there.place("caller", "caller-200-bye", user="warm")
    caller.hears("music")
    wait_until(lambda: rtp.level(called.rtp.heard.signal(PCMA)) > 300, "the announcement")
    return caller, called


def test_warm_the_target_accepts(there: Three) -> None:
    _, callee = announced(there, "callee-200-far-end-bye")
    callee.rtp.press("1")
    there.hear_each_other()
    record = leave(there)
    assert [(end["mode"], end["outcome"]) for end in record.of("transfer.ended")] == [("warm", "answered")]


@pytest.mark.parametrize("how", ["another key", "bye"])
def test_warm_the_target_does_not_want(there: Three, how: str) -> None:
    caller, callee = announced(there, "callee-200-bye" if how == "bye" else "callee-200-far-end-bye")
    if how == "bye":
        callee.go_on()
    else:
        callee.rtp.press("2")
    callee.is_content()
    caller.hears("sorry")
    record = leave(there)
    assert [end["outcome"] for end in record.of("transfer.ended")] == ["declined"]


def test_warm_the_caller_hangs_up_while_the_target_listens(there: Three) -> None:
    announced(there, "callee-200-far-end-bye")
    record = leave(there)
    assert [end["outcome"] for end in record.of("transfer.ended")] == ["caller_gone"]


# --- transfers that a peer asks for -----------------------------------------------------------------------------------


def test_the_caller_transfers_and_the_third_takes_its_place(there: Three) -> None:
    third = there.listen("third", "callee-200-bye")
    caller, _ = connected(there, "caller-refers-202-notify-200-bye", refer_to="sip:203@elsewhere.invalid")
    caller.go_on()
    there.hear_each_other("third", "callee")
    caller.go_on()
    caller.is_content()
    there.hear_each_other("third", "callee")
    third.go_on()
    there.all_content()
    record = there.record()
    assert [(event["by"], event.get("leg", "")) for event in record.of("leg.replaced")] == [("refer", "")]
    assert record.reason == "caller_hangup"


def test_after_a_consultation_the_third_is_asked_to_let_the_caller_go(there: Three) -> None:
    """Attended transfer by a PBX (RFC 5589, section 7.1): Refer-To names the dialog that our INVITE shall replace."""
    third = there.listen("third", "third-200-replacing-bye")
    replaces = "consulted%40127.0.0.1%3Bto-tag%3Da%3Bfrom-tag%3Db"
    refer_to = f"sip:203@elsewhere.invalid?Replaces={replaces}"
    caller, _ = connected(there, "caller-refers-202-notify-200-bye", refer_to=refer_to)
    caller.go_on()
    there.hear_each_other("third", "callee")
    caller.go_on()
    caller.is_content()
    there.hear_each_other("third", "callee")
    third.go_on()
    there.all_content()
    assert [event["by"] for event in there.record().of("leg.replaced")] == ["refer"]


def test_a_busy_third_changes_nothing(there: Three) -> None:
    there.listen("third", "uas-486-busy")
    caller, _ = connected(there, "caller-refers-202-notify-486-bye", refer_to="sip:203@elsewhere.invalid")
    caller.go_on()
    caller.got("SIP/2.0 486")
    there.hear_each_other()
    record = leave(there)
    assert not record.of("leg.replaced")


def test_a_third_that_rings_is_given_up_when_the_caller_leaves(there: Three) -> None:
    third = there.listen("third", "callee-180-cancelled")
    caller, _ = connected(there, "caller-refers-202-bye", refer_to="sip:203@elsewhere.invalid")
    caller.go_on()
    third.got("180 Ringing")
    there.hear_each_other()
    leave(there)


@pytest.mark.parametrize(
    ("refer_to", "host"), [("sip:elsewhere@127.0.0.1", "127.0.0.1"), ("sip:203@127.0.0.1", "127.0.0.2")]
)
def test_a_transfer_that_no_policy_allows_changes_nothing(there: Three, refer_to: str, host: str) -> None:
    caller, _ = connected(there, "caller-refers-603-bye", refer_to=refer_to, host=host)
    caller.go_on()
    caller.got("SIP/2.0 603")
    there.hear_each_other()
    record = leave(there)
    assert [event["code"] for event in record.of("refer.received")] == [603]


def dialog(far: Far) -> str:
    """The caller's dialog, as an INVITE that replaces it names it."""
    answer = re.search(r"SIP/2.0 200.*?^From:.*?tag=(\S+).*?^To:.*?tag=(\S+)", far.sipp.messages, re.M | re.S | re.I)
    assert answer
    return f"{far.sipp.sip_call_id};to-tag={answer[2]};from-tag={answer[1]}"


def test_a_third_replaces_the_caller(there: Three) -> None:
    caller, _ = connected(there, "caller-200-far-end-bye")
    third = there.place("third", "third-replaces-200-bye", user="bridge", replaces=dialog(caller))
    there.hear_each_other("third", "callee")
    caller.is_content()
    third.go_on()
    there.all_content()
    record = there.record()
    assert [event["by"] for event in record.of("leg.replaced")] == ["replaces"]
    assert record.reason == "caller_hangup"


@pytest.mark.parametrize(
    ("scenario", "host", "change"),
    [("third-replaces-603-refused", "127.0.0.2", ""), ("third-replaces-481-refused", "127.0.0.1", "no-")],
)
def test_a_third_that_may_not_or_names_no_dialog_replaces_nobody(
    there: Three, scenario: str, host: str, change: str
) -> None:
    caller, _ = connected(there)
    third = there.place("third", scenario, user="bridge", host=host, replaces=change + dialog(caller))
    third.is_content()
    there.hear_each_other()
    record = leave(there)
    assert not record.of("leg.replaced")


# --- limits and strangers ---------------------------------------------------------------------------------------------


def test_a_cell_without_a_free_leg_keeps_the_caller(there: Three) -> None:
    """A bridge and somebody who listens take three of the four legs: the next caller has the last one."""
    connected(there)
    there.place("listener", "caller-200-bye", user="idle", tone="third").hears("music")
    late = there.place("late", "caller-200-bye", user="branch", tone="third")
    late.hears("sorry")
    there.hear_each_other()
    for name in ("late", "listener", "caller"):
        there.far[name].go_on()
    there.all_content()
    assert [end["outcome"] for end in there.record("late").of("party.ended")] == ["failed"]
    assert {there.record(name).reason for name in ("caller", "late", "listener")} == {"caller_hangup"}


class Stranger(threading.Thread):
    """Somebody else sends loud sound to where a leg listens, until the block is left. got: packets that it received."""

    def __init__(self, media: tuple[str, int]) -> None:
        super().__init__()
        self._media, self._over = media, threading.Event()
        self.got = 0

    def run(self) -> None:
        encode, sound = PCMA.encoder(), rtp.tone((STRANGER_HZ,), 20, 8000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            sender.setblocking(False)
            count = 0
            while not self._over.wait(0.02):
                head = struct.pack("!BBHII", 0x80, 8, count + 30_000 & 0xFFFF, count * 160 + 1_000_000, 0xBAD)
                sender.sendto(head + encode(sound), self._media)
                count += 1
                with suppress(BlockingIOError):
                    while sender.recv(2048):
                        self.got += 1

    def __enter__(self) -> Stranger:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def test_a_stranger_in_the_middle_is_noticed_and_neither_heard_nor_sent_to(there: Three, server: ServerProcess) -> None:
    """As long as the caller goes on sending, the stranger's packets, which have another SSRC, change nothing."""
    caller, callee = connected(there)
    before = metric(server, "sipserver_media_source_changed_total")
    with Stranger(caller.rtp.media) as stranger:
        there.happened("media.source_changed")
        heard = len(callee.rtp.heard.payloads), len(caller.rtp.heard.payloads)
        wait_until(lambda: len(callee.rtp.heard.payloads) > heard[0] + 60, "a second at the callee")
        there.hear_each_other()
        wait_until(lambda: len(caller.rtp.heard.payloads) > heard[1] + 60, "a second at the caller")
        assert stranger.got == 0
    record = leave(there)
    assert metric(server, "sipserver_media_source_changed_total") > before
    assert {event.get("leg", "") for event in record.of("media.source_changed")} == {""}


def test_every_scenario_of_three_is_run() -> None:
    files = {file.stem for role in ("caller", "callee", "third") for file in SCENARIOS.glob(f"{role}-*.xml")}
    mine = Path(__file__).read_text()
    assert not {name for name in files if f'"{name}"' not in mine}


def metric(server: ServerProcess, name: str) -> float:
    found = re.search(rf"^{name} ([0-9.]+)$", server.get("/metrics"), re.M)
    assert found, name
    return float(found[1])
