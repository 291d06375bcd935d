from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.trunks import admittance
from sipserver.trunks.admittance import Asked, CallsPerSecond, Gatekeeper, Verdict
from sipserver.trunks.settings import TrunkSettings
from tests.fakes.digest import credentials
from tests.trunks.make import trunk

URI = "sip:100@server"
PASSWORDS = {"BOB": "bob's", "PBX": "pbx's"}
CARRIER = trunk("carrier", sources=["192.0.2.0/24", "2001:db8::/32"])
PBX = trunk("pbx", sources=["10.0.0.0/8"], users=[{"name": "pbx", "password_env": "PBX"}])
PHONES = trunk("phones", host="", users=[{"name": "bob", "password_env": "BOB"}])


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def keeper(*trunks: TrunkSettings, allow: tuple[str, ...] = (), clock: Clock | None = None) -> Gatekeeper:
    return Gatekeeper(trunks, PASSWORDS, allow, "acme", clock=clock or Clock())


def with_(*values: str) -> Callable[[], Asked]:
    return lambda: Asked(URI, values)


def unread() -> Asked:
    raise AssertionError("nobody had to prove anything")


@pytest.mark.parametrize("source", ["192.0.2.7:5060", "[2001:db8::7]:5060"])
def test_a_source_decides_the_trunk(source: str) -> None:
    judged = keeper(trunk("outbound-only"), CARRIER, PBX).judge("INVITE", source, unread)
    assert (judged.verdict, judged.trunk) == (Verdict.ADMIT, "carrier")


def test_strangers_are_refused_a_few_times_and_then_ignored() -> None:
    clock = Clock()
    door = keeper(CARRIER, clock=clock)
    verdicts = [door.judge("INVITE", "203.0.113.5:5060", unread).verdict for _ in range(admittance.REFUSALS + 2)]
    assert verdicts == [Verdict.REFUSE] * admittance.REFUSALS + [Verdict.DROP] * 2
    assert door.judge("INVITE", "203.0.113.6:5060", unread).verdict is Verdict.REFUSE
    clock.now_s += admittance.REFUSALS_S
    assert door.judge("INVITE", "203.0.113.5:9999", unread).verdict is Verdict.REFUSE


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "ACK", "BYE", "FOO", ""])
def test_other_requests_of_strangers_are_never_answered(method: str) -> None:
    for door in (keeper(CARRIER), keeper(PHONES), keeper(trunk("all", sources=["0.0.0.0/0"]))):
        assert door.judge(method, "203.0.113.5:5060", unread).verdict is Verdict.DROP
    assert keeper(CARRIER).judge(method, "192.0.2.7:5060", unread).verdict is Verdict.ADMIT


def test_who_is_from_nowhere_in_particular_proves_himself() -> None:
    door = keeper(CARRIER, PHONES)
    challenge = door.judge("INVITE", "203.0.113.5:5060", with_())
    assert challenge.verdict is Verdict.CHALLENGE
    proof = credentials(challenge.challenges[0], "bob", "bob's", URI)
    judged = door.judge("INVITE", "203.0.113.5:5060", with_('Digest realm="another"', proof))
    assert (judged.verdict, judged.trunk) == (Verdict.ADMIT, "phones")
    again = door.judge("INVITE", "203.0.113.5:5060", with_(proof))
    assert again.verdict is Verdict.CHALLENGE
    assert "stale=true" in again.challenges[0]


def test_a_user_proves_himself_from_his_trunks_sources_alone() -> None:
    door = keeper(PBX, PHONES)
    challenge = door.judge("INVITE", "10.1.1.1:5060", with_())
    assert challenge.verdict is Verdict.CHALLENGE
    as_pbx = credentials(challenge.challenges[1], "pbx", "pbx's", URI)
    assert door.judge("INVITE", "203.0.113.5:5060", with_(as_pbx)).verdict is Verdict.CHALLENGE
    as_bob = credentials(challenge.challenges[1], "bob", "bob's", URI)
    assert door.judge("INVITE", "10.1.1.1:5060", with_(as_bob)).verdict is Verdict.CHALLENGE
    assert door.judge("INVITE", "10.1.1.1:5060", with_(as_pbx)).trunk == "pbx"


def test_a_user_without_a_password_proves_nothing() -> None:
    door = Gatekeeper((PHONES,), {}, (), "acme", clock=Clock())
    challenge = door.judge("INVITE", "203.0.113.5:5060", with_())
    empty = credentials(challenge.challenges[0], "bob", "", URI)
    assert door.judge("INVITE", "203.0.113.5:5060", with_(empty)).verdict is Verdict.CHALLENGE


def test_who_guesses_is_ignored_soon_and_who_is_right_is_forgiven() -> None:
    door = keeper(PHONES)
    challenge = door.judge("INVITE", "203.0.113.5:5060", with_()).challenges[0]
    guesses = [credentials(challenge, "bob", f"guess {number}", URI) for number in range(admittance.REFUSALS + 1)]
    verdicts = [door.judge("INVITE", "203.0.113.5:5060", with_(guess)).verdict for guess in guesses]
    assert verdicts == [Verdict.CHALLENGE] * admittance.REFUSALS + [Verdict.DROP]
    right = credentials(challenge, "bob", "bob's", URI)
    assert door.judge("INVITE", "203.0.113.5:5060", with_(right)).verdict is Verdict.ADMIT


def test_who_only_asks_is_ignored_after_a_while() -> None:
    door = keeper(PHONES)
    verdicts = [door.judge("INVITE", "203.0.113.5:5060", with_()).verdict for _ in range(admittance.CHALLENGES + 1)]
    assert verdicts == [Verdict.CHALLENGE] * admittance.CHALLENGES + [Verdict.DROP]


def test_networks_of_the_settings_may_call_by_no_trunk() -> None:
    door = keeper(CARRIER, allow=("127.0.0.1/32",))
    judged = door.judge("INVITE", "127.0.0.1:5060", unread)
    assert (judged.verdict, judged.trunk) == (Verdict.ADMIT, "")
    assert door.judge("OPTIONS", "127.0.0.1:5060", unread).verdict is Verdict.ADMIT


def test_a_trunk_has_a_pace_and_others_have_their_own() -> None:
    clock = Clock()
    limited: dict[str, Any] = {"limits": {"calls_per_s": 2}}
    trunks = [trunk(name, sources=[f"192.0.2.{number}"], **limited) for number, name in enumerate("ab", 1)]
    door = keeper(*trunks, clock=clock)
    verdicts = [door.judge("INVITE", "192.0.2.1:5060", unread).verdict for _ in range(3)]
    assert verdicts == [Verdict.ADMIT, Verdict.ADMIT, Verdict.PACE]
    assert door.judge("INVITE", "192.0.2.2:5060", unread).verdict is Verdict.ADMIT
    clock.now_s += 1
    assert door.judge("INVITE", "192.0.2.1:5060", unread).verdict is Verdict.ADMIT


def test_without_a_limit_any_number_passes() -> None:
    pace = CallsPerSecond(0)
    assert all(pace.take() for _ in range(1000))


def test_memory_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admittance, "_MOST_ADDRESSES", 2)
    door = keeper(CARRIER)
    for address in ("203.0.113.1", "203.0.113.2", "203.0.113.3"):
        for _ in range(admittance.REFUSALS):
            door.judge("INVITE", f"{address}:5060", unread)
    assert door.judge("INVITE", "203.0.113.3:5060", unread).verdict is Verdict.DROP
    assert door.judge("INVITE", "203.0.113.1:5060", unread).verdict is Verdict.REFUSE  # the oldest were forgotten
