"""The two watchdogs of a conversation. Pure: they are told what happens and answer what is to be done.

- agent silent: the state says that the agent speaks, but no sound leaves.
- caller unheard: a voice is there, but no transcript comes.
"""

from __future__ import annotations

from typing import Literal

Action = Literal["retry", "failed"]

CLEAR_VOICE_MS = 250
"""Less voice than this without words is a noise and no fault."""


class AgentSilent:
    """Looked at once a second while the agent has the floor. The first firing of a turn retries, the second fails."""

    def __init__(self, limit_ms: int) -> None:
        self._limit_ns = limit_ms * 1_000_000
        self._progress = 0
        self._since_ns = 0
        self._fired = 0

    def begin(self, now_ns: int) -> None:
        """A new turn of the agent."""
        self._fired = 0
        self._mark(now_ns, 0)

    def look(self, now_ns: int, played_ms: int, *, excused: bool) -> Action | None:
        """played_ms: sound that left so far. excused: a tool works or the caller is being listened to."""
        if excused or played_ms != self._progress:
            self._mark(now_ns, played_ms)
            return None
        if now_ns - self._since_ns < self._limit_ns:
            return None
        self._fired += 1
        self._mark(now_ns, 0)
        return "retry" if self._fired == 1 else "failed"

    def _mark(self, now_ns: int, progress: int) -> None:
        self._since_ns, self._progress = now_ns, progress


class CallerUnheard:
    """Told of every turn. The second clear voice in a row without words asks the caller again, the fourth fails."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def heard(self) -> None:
        self._in_a_row = 0

    def unheard(self, voiced_ms: int) -> Action | None:
        if voiced_ms < CLEAR_VOICE_MS:
            return None
        self._in_a_row += 1
        if self._in_a_row >= 4:
            return "failed"
        return "retry" if self._in_a_row == 2 else None
