"""Keeps Python's state of a native thread alive between callbacks.

A callback from a thread that Python did not start makes a thread state and throws it away again (PyGILState_Ensure and
PyGILState_Release, CPython C API, "Non-Python created threads"), with an mmap and a munmap each time. One more Ensure
keeps the state; it has to be deleted when the thread is gone. See docs/decisions/0007-clock-thread-keeps-its-state.md.
"""

from __future__ import annotations

import ctypes

_api = ctypes.pythonapi
_ensure = _api.PyGILState_Ensure
_ensure.restype = ctypes.c_int
_this_state = _api.PyGILState_GetThisThreadState
_this_state.restype = ctypes.c_void_p
_clear = _api.PyThreadState_Clear
_clear.argtypes, _clear.restype = (ctypes.c_void_p,), None
_delete = _api.PyThreadState_Delete
_delete.argtypes, _delete.restype = (ctypes.c_void_p,), None


class KeptState:
    """The state of one native thread at a time. `keep` runs on that thread, `drop` on another after it has ended."""

    def __init__(self) -> None:
        self._state: int | None = None

    @property
    def kept(self) -> bool:
        return self._state is not None

    def keep(self) -> None:
        """Within a callback: let this thread's state live on after it. Once a thread."""
        _ensure()
        self._state = _this_state()

    def drop(self) -> None:
        """Delete the state of a thread that has ended. Never while it runs: the interpreter would crash."""
        if self._state is not None:
            _clear(self._state)
            _delete(self._state)
            self._state = None
