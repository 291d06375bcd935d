"""A native thread (made by libc's pthread_create, not by Python) whose callbacks keep or lose their thread state."""

from __future__ import annotations

import ctypes

import pytest

from sipserver.sip.thread_state import KeptState

_libc = ctypes.CDLL(None)
_START = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_INNER = ctypes.CFUNCTYPE(None)


def on_native_thread(work) -> None:  # type: ignore[no-untyped-def]
    """Run `work` on a thread that libc made, and wait for its end."""
    thread = ctypes.c_ulong()
    start = _START(lambda _argument: work())
    assert _libc.pthread_create(ctypes.byref(thread), None, start, None) == 0
    assert _libc.pthread_join(thread, None) == 0


def states() -> int:
    """Thread states of the interpreter."""
    first = ctypes.pythonapi.PyInterpreterState_ThreadHead
    first.restype, first.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    following = ctypes.pythonapi.PyThreadState_Next
    following.restype, following.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    interpreter = ctypes.pythonapi.PyInterpreterState_Get
    interpreter.restype = ctypes.c_void_p
    count, state = 0, first(interpreter())
    while state:
        count, state = count + 1, following(state)
    return count


@pytest.mark.parametrize("rounds", [1, 20])
def test_a_kept_state_lives_until_it_is_dropped_and_leaves_nothing(rounds: int) -> None:
    before = states()
    for _ in range(rounds):
        kept = KeptState()
        on_native_thread(kept.keep)
        assert kept.kept
        assert states() == before + 1
        kept.drop()
        assert not kept.kept
    assert states() == before


def test_without_keep_a_callback_leaves_no_state() -> None:
    before = states()
    on_native_thread(lambda: None)
    assert states() == before


def test_drop_without_keep_does_nothing() -> None:
    before = states()
    KeptState().drop()
    assert states() == before
