"""One thing that the agent says: clauses that become clips, behind a gate that may still be closed.

Owns what of it was heard. Refuses to synthesise and to decide. While the gate is closed (speculation) sound is kept
here; `release` hands all of it to the playout at once, without an await in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sipserver.audio.frame import Samples
from sipserver.audio.playout import Clip, Playout
from sipserver.events import Emit, Spoken

_MS_PER_CHARACTER = 65
"""How long a character takes to speak, to place a cut in a clause whose sound was not complete yet."""


def cut_at_word(text: str, heard_ms: int, audio_ms: int) -> str:
    """The words of text that fit into heard_ms of audio_ms, taking all characters as equally long."""
    if heard_ms >= audio_ms:
        return text if audio_ms > 0 else ""
    end = len(text) * heard_ms // audio_ms
    if end < len(text) and text[end].isspace():
        return text[:end].rstrip()
    return text[:end].rpartition(" ")[0].rstrip()


@dataclass(slots=True)
class _Clause:
    text: str
    part: int
    aside: bool
    held: list[Samples] = field(default_factory=list)
    clip: Clip | None = None
    complete: bool = False
    heard: str = ""
    settled: bool = False


class Saying:
    """Loop thread. One Saying uses a playout at a time: `cut` flushes all of it."""

    def __init__(self, playout: Playout, emit: Emit, *, held: bool = False) -> None:
        self._playout, self._emit = playout, emit
        self._released = not held
        self._cut = False
        self._clauses: list[_Clause] = []
        self._mouth = asyncio.Lock()
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def begun(self) -> bool:
        """Sound that is no aside was handed to the playout."""
        return any(clause.clip is not None and clause.clip.queued_ms > 0 for clause in self._said())

    @property
    def taken(self) -> bool:
        """The media clock has taken the first frame of it."""
        return any(clause.clip is not None and clause.clip.played_ms > 0 for clause in self._said())

    @property
    def heard_ms(self) -> int:
        """Milliseconds played so far, asides included."""
        return sum(clause.clip.played_ms for clause in self._clauses if clause.clip is not None)

    def heard(self, part: int | None = None) -> str:
        """What the caller heard of it, without asides; only of one part if given. Final after `cut` or `finished`."""
        texts = (clause.heard for clause in self._said() if part is None or clause.part == part)
        return " ".join(text for text in texts if text)

    def summary(self) -> Spoken:
        """All clauses as one. Not emitted: every clause has its own event."""
        return Spoken(
            text=" ".join(clause.text for clause in self._said()),
            heard=self.heard(),
            heard_ms=self.heard_ms,
            audio_ms=sum(clause.clip.queued_ms for clause in self._clauses if clause.clip is not None),
            complete=not self._cut and all(clause.complete for clause in self._clauses),
        )

    def release(self) -> None:
        """Open the gate: what was kept goes to the playout now, what comes later goes straight through."""
        if self._released:
            return
        self._released = True
        for clause in self._clauses:
            clip = self._clip(clause)
            for samples in clause.held:
                clip.write_now(samples)
            clause.held.clear()
            if clause.complete:
                clip.finish()

    async def add(self, text: str, chunks: AsyncIterator[Samples], *, part: int = 0, aside: bool = False) -> None:
        """Say one clause. Returns when its sound is queued (or kept). aside: heard, but no part of what is said.

        Raises what the iterator raises, after what came until then was queued. Safe to cancel.
        """
        async with self._mouth:
            if self._cut:
                return
            clause = _Clause(text, part, aside)
            self._clauses.append(clause)
            try:
                async for samples in chunks:
                    if self._released:
                        await self._clip(clause).write(samples)
                    else:
                        clause.held.append(samples)
                clause.complete = True
            finally:
                if clause.clip is not None:
                    clause.clip.finish()

    async def finished(self) -> bool:
        """Wait until everything added was played (True) or cut (False). Safe to cancel."""
        if self._watchers:
            await asyncio.wait(self._watchers)
        return not self._cut

    def cut(self) -> None:
        """Stop: flush the playout and settle what was heard. Idempotent; nothing sounds from the next frame on."""
        if self._cut:
            return
        self._cut = True
        if self._released:
            self._playout.flush()
        for clause in self._clauses:
            self._settle(clause)

    def _said(self) -> list[_Clause]:
        return [clause for clause in self._clauses if not clause.aside]

    def _clip(self, clause: _Clause) -> Clip:
        if clause.clip is None:
            clause.clip = self._playout.begin(clause.text)
            self._watchers.append(asyncio.create_task(self._watch(clause, clause.clip), name="clause heard"))
        return clause.clip

    async def _watch(self, clause: _Clause, clip: Clip) -> None:
        if not await clip.heard():
            self._cut = True
        self._settle(clause)

    def _settle(self, clause: _Clause) -> None:
        clip = clause.clip
        if clause.settled or clip is None:
            return
        clause.settled = True
        audio_ms = clip.queued_ms if clause.complete else max(clip.queued_ms, len(clause.text) * _MS_PER_CHARACTER)
        clause.heard = cut_at_word(clause.text, clip.played_ms, audio_ms)
        self._emit(Spoken(clause.text, clause.heard, clip.played_ms, audio_ms, clause.heard == clause.text))
