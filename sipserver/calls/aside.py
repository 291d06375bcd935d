"""Whether a party is muted, on hold or spoken to because somebody outside asked for it.

Owns these facts and who is told when they change. Refuses to know what that means: whoever joins the party with
others lets them hear it or not; alone with its dialplan it is the runner who waits. Not the hold of a telephone, which
is `Call.held`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Aside:
    """Loop thread."""

    def __init__(self) -> None:
        self._muted = False
        self._on_hold = False
        self._announced = False
        self._resumed = asyncio.Event()
        self._keepers: list[Callable[[], None]] = []

    @property
    def muted(self) -> bool:
        """Nobody hears the party."""
        return self._muted

    @property
    def on_hold(self) -> bool:
        """Nobody hears the party, and it hears music."""
        return self._on_hold

    @property
    def announced(self) -> bool:
        """It hears what somebody outside has said to it."""
        return self._announced

    @property
    def listens(self) -> bool:
        """It hears whom it is joined with."""
        return not (self._on_hold or self._announced)

    @property
    def heard(self) -> bool:
        return not (self._muted or self._on_hold)

    @property
    def kept(self) -> bool:
        """Somebody who joins the party with others sees to it."""
        return bool(self._keepers)

    def mute(self, on: bool) -> bool:
        """Whether that changes anything."""
        changes = on != self._muted
        self._muted = on
        self._tell(changes)
        return changes

    def hold(self, on: bool) -> bool:
        """Whether that changes anything."""
        changes = on != self._on_hold
        self._on_hold = on
        if not on:
            self._resumed.set()
        else:
            self._resumed.clear()
        self._tell(changes)
        return changes

    async def resumed(self) -> None:
        """Wait for the end of the hold."""
        if self._on_hold:
            await self._resumed.wait()

    @contextmanager
    def keeper(self, settle: Callable[[], None]) -> Iterator[None]:
        """For the length of a `with` block `settle` is called when something changes."""
        self._keepers.append(settle)
        try:
            yield
        finally:
            self._keepers.remove(settle)

    @contextmanager
    def announcement(self) -> Iterator[None]:
        """For the length of a `with` block the party hears what is played to it, and neither music nor anybody else.
        One at a time.
        """
        self._announced = True
        self._tell(True)
        try:
            yield
        finally:
            self._announced = False
            self._tell(True)

    def _tell(self, changes: bool) -> None:
        for settle in tuple(self._keepers) if changes else ():
            settle()
