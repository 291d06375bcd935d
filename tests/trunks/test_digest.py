from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.trunks import digest
from sipserver.trunks.digest import DigestServer, Proof
from tests.fakes.digest import credentials

URI = "sip:100@192.0.2.1:5060"
USERS = {"bob": 'p"a$s w\\ord'}


class Clock:
    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def check(server: DigestServer, value: str, uri: str = URI) -> Proof:
    return server.check(value, "INVITE", uri, USERS.get).proof


def test_the_answer_of_rfc_7616_is_the_expected_one() -> None:
    """Section 3.9.1: both of its examples."""
    text = (
        'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm={}, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
        'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="x"'
    )
    answers = {
        "MD5": "8ca523f5e9506fed4657c9700eebdbec",
        "SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
    }
    for algorithm, answer in answers.items():
        fields = digest.parse(text.format(algorithm))
        assert fields is not None
        assert digest.response(fields, "GET", "Circle of Life") == answer


@pytest.mark.parametrize("number", [0, 1])
def test_either_algorithm_proves_a_user(number: int) -> None:
    server = DigestServer("acme")
    challenges = server.challenges()
    assert ["algorithm=SHA-256" in one for one in challenges] == [True, False]  # RFC 8760: the preferred one first
    assert check(server, credentials(challenges[number], "bob", USERS["bob"], URI)) is Proof.GOOD


def test_a_nonce_serves_many_requests_and_no_request_twice() -> None:
    server = DigestServer("acme")
    challenge = server.challenges()[0]
    values = [credentials(challenge, "bob", USERS["bob"], URI, count=count) for count in (1, 2, 2, 1, 7, 3)]
    assert [check(server, value) for value in values] == [
        Proof.GOOD, Proof.GOOD, Proof.REPLAYED, Proof.REPLAYED, Proof.GOOD, Proof.REPLAYED,
    ]  # fmt: skip


def test_nonces_expire_and_those_of_others_are_stale() -> None:
    clock = Clock()
    server = DigestServer("acme", nonce_s=60, clock=clock)
    value = credentials(server.challenges()[0], "bob", USERS["bob"], URI)
    clock.now_s += 61
    assert check(server, value) is Proof.STALE
    assert "stale=true" in server.challenges(stale=True)[0]
    other = DigestServer("acme", clock=clock)
    assert check(server, credentials(other.challenges()[0], "bob", USERS["bob"], URI)) is Proof.STALE
    future = credentials(server.challenges()[0], "bob", USERS["bob"], URI)
    clock.now_s -= 3600
    assert check(server, future) is Proof.STALE


def test_a_wrong_password_is_not_told_apart_from_an_unknown_user() -> None:
    server = DigestServer("acme")
    challenge = server.challenges()[0]
    assert check(server, credentials(challenge, "bob", "wrong", URI)) is Proof.WRONG
    assert check(server, credentials(challenge, "eve", "wrong", URI)) is Proof.WRONG
    assert check(server, credentials(challenge, "bob", "", URI)) is Proof.WRONG


@pytest.mark.parametrize(
    "changes",
    [
        {"qop": "auth-int"},
        {"qop": ""},
        {"nc": "1"},
        {"nc": "zzzzzzzz"},
        {"cnonce": ""},
        {"algorithm": "MD5-sess"},
        {"uri": "sip:200@192.0.2.1:5060"},
        {"uri": "sip:100@192.0.2.2:5060"},
        {"response": "0" * 64},
        {"response": ""},
        {"response": "ü"},
    ],
)
def test_what_we_did_not_ask_for_is_wrong(changes: dict[str, str]) -> None:
    server = DigestServer("acme")
    value = credentials(server.challenges()[0], "bob", USERS["bob"], URI, changes=changes)
    assert check(server, value) is Proof.WRONG


def test_ports_and_parameters_of_the_target_may_differ() -> None:
    server = DigestServer("acme")
    value = credentials(server.challenges()[0], "bob", USERS["bob"], "sip:100@192.0.2.1;transport=udp")
    assert check(server, value) is Proof.GOOD


def test_another_realm_or_scheme_proves_nothing() -> None:
    server, other = DigestServer("acme"), DigestServer("other")
    assert check(server, credentials(other.challenges()[0], "bob", USERS["bob"], URI)) is Proof.NOTHING
    for value in ("", "Basic Ym9iOng=", "Digest", "Digest realm", 'Digest realm="acme', "Digest " + "x=y, " * 2000):
        assert check(server, value) is Proof.NOTHING


def test_forgotten_counts_make_their_nonces_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "MOST_NONCES", 3)
    clock = Clock()
    server = DigestServer("acme", clock=clock)
    values = []
    for _ in range(5):
        clock.now_s += 0.01
        values.append(credentials(server.challenges()[0], "bob", USERS["bob"], URI))
    assert [check(server, value) for value in values] == [Proof.GOOD] * 5
    assert [check(server, value) for value in values] == [Proof.STALE] * 2 + [Proof.REPLAYED] * 3


@given(st.one_of(st.text(), st.text(alphabet='Digest =",\\abc').map(lambda text: f"Digest {text}")))
def test_garbage_is_never_an_error_and_never_good(value: str) -> None:
    assert check(DigestServer("acme"), value) is not Proof.GOOD


@given(st.dictionaries(st.sampled_from(["username", "realm", "nonce", "uri", "nc", "qop", "response", "x"]), st.text()))
def test_quoted_fields_are_read_as_they_were_meant(fields: dict[str, str]) -> None:
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in fields.items()}
    text = "Digest " + ", ".join(f'{name}="{value}"' for name, value in escaped.items())
    if len(text) <= 4096 and fields:
        assert digest.parse(text) == fields
