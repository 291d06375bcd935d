"""The ng protocol: what goes out comes back, and what happens when nobody answers."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.edge import ng

VALUES = st.recursive(
    st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_encoded_is_decoded(value: ng.Value) -> None:
    assert ng.decode(ng.encode(value)) == value


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_a_value_error(payload: bytes) -> None:
    try:
        value = ng.decode(payload)
    except (ValueError, RecursionError):
        return
    assert isinstance(value, str | int | list | dict)


def test_dictionaries_are_written_as_the_protocol_wants_them() -> None:
    assert ng.encode({"command": "ping", "a": [1, "x"]}) == b"d1:ali1e1:xe7:command4:pinge"


@pytest.mark.parametrize("cut", [b"", b"5:abc", b"i12", b"d1:ae", b"l1:a", b"d1:a1:b", b"4:pongx"])
def test_what_is_cut_off_is_refused(cut: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is Python's own here and there
        ng.decode(cut)


@pytest.mark.parametrize(
    ("control", "expected"), [("127.0.0.1:2223", ("127.0.0.1", 2223)), ("[::1]:2223", ("::1", 2223))]
)
def test_addresses(control: str, expected: tuple[str, int]) -> None:
    assert ng.address(control) == expected


async def test_nobody_listens(free_udp_port: int) -> None:
    with pytest.raises(ng.NoAnswer):
        await ng.ask(f"127.0.0.1:{free_udp_port}", "ping", timeout_s=5)


class Deaf:
    """Answers the question number `at`, by its script; keeps the cookies."""

    def __init__(self, at: int, answer: bytes) -> None:
        self.cookies: list[bytes] = []
        self._at, self._answer = at, answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.control = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while len(self.cookies) < self._at:
            question, peer = self._socket.recvfrom(4096)
            if not question:
                return
            self.cookies.append(question.partition(b" ")[0])
        self._socket.sendto(b"stale " + self._answer, peer)
        self._socket.sendto(self.cookies[-1] + b" " + self._answer, peer)

    def __enter__(self) -> Deaf:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", int(self.control.rpartition(":")[2])))
        self._thread.join()
        self._socket.close()


async def test_a_lost_question_is_repeated_with_its_cookie() -> None:
    with Deaf(2, b"d6:result4:ponge") as relay:
        assert await ng.ask(relay.control, "ping", timeout_s=5) == {"result": "pong"}
    assert len(relay.cookies) == 2
    assert len(set(relay.cookies)) == 1


async def test_silence_ends_at_the_deadline() -> None:
    with Deaf(99, b"") as relay:
        async with asyncio.timeout(5):
            with pytest.raises(ng.NoAnswer, match="did not answer"):
                await ng.ask(relay.control, "ping", timeout_s=0.1)


@pytest.mark.parametrize("answer", [b"d12:error-reason4:nope6:result5:errore", b"garbage", b"le"])
async def test_a_refusal_and_rubbish_are_no_answer(answer: bytes) -> None:
    with Deaf(1, answer) as relay, pytest.raises(ng.NoAnswer):
        await ng.ask(relay.control, "offer", timeout_s=5)
