"""Who has the floor in a conversation: the state, and the one who speaks for the agent.

state       agent begins     sound of the caller       agent is cut or has finished     conversation ends
LISTENING   -> SPEAKING      -                         -                                -> CLOSING
SPEAKING    (again)          -> DECIDING, or muted     -> LISTENING                     -> CLOSING
DECIDING    -> SPEAKING      (being judged)            -> LISTENING once judged         -> CLOSING
CLOSING     -                -                         -                                -
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable

from sipserver.agent.announcement import Speaker
from sipserver.agent.reply import Answer
from sipserver.audio.playout import Playout


class FloorState(enum.Enum):
    LISTENING = enum.auto()
    SPEAKING = enum.auto()
    DECIDING = enum.auto()
    CLOSING = enum.auto()


class Floor:
    """Loop thread; nothing blocks. on_change is called with every new state."""

    def __init__(self, playout: Playout, on_change: Callable[[FloorState], None]) -> None:
        self._playout, self._on_change = playout, on_change
        self._state = FloorState.LISTENING
        self.speaker: Speaker | None = None
        """Who speaks for the agent; None when nobody does. Stays while a sound over it is judged."""
        self._task: asyncio.Task[Answer] | None = None

    @property
    def state(self) -> FloorState:
        return self._state

    @property
    def closing(self) -> bool:
        return self._state is FloorState.CLOSING

    def become(self, state: FloorState) -> None:
        """Change the state; nothing leads out of CLOSING."""
        if self._state is not FloorState.CLOSING and self._state is not state:
            self._state = state
            self._on_change(state)

    def give(self, speaker: Speaker, task: asyncio.Task[Answer]) -> None:
        """The agent speaks. task: what runs the speaker."""
        self.speaker, self._task = speaker, task
        self.become(FloorState.SPEAKING)

    def finished(self, speaker: Speaker) -> bool:
        """A speaker's task has ended. False if it had lost the floor before. The state stays as it is."""
        if speaker is not self.speaker:
            return False
        self.speaker = self._task = None
        return True

    def take(self) -> None:
        """The agent falls silent now: what was heard of it is kept, the rest is flushed and its task cancelled."""
        speaker, task = self.speaker, self._task
        self.speaker = self._task = None
        if speaker is not None:
            speaker.cut()
        if task is not None:
            task.cancel()
        self._playout.flush()
        self.become(FloorState.LISTENING)
