"""Rooms of a process in which callers hear each other.

Owns who is in a room, whom each of them hears, what is said to all, and when the room is over. The sound of the members
stays inside the media engine: each pair of legs feeds each other, and nobody hears themselves. Frames come here only
while a recording runs. Refuses to let callers in (the step does) and to hang anybody up.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sipserver.audio import tones
from sipserver.audio.frame import Frame, Samples
from sipserver.calls.dialled import connect
from sipserver.calls.mix import Mix
from sipserver.calls.music import Music
from sipserver.calls.states import State
from sipserver.errors import CallerError, CapacityError, CarrierError
from sipserver.events import ConferenceJoined, ConferenceLeft, ConferenceMuted, Fault, LegEvent, LegHeld, LegResumed

if TYPE_CHECKING:
    from sipserver.calls.call import Call

MUTE = "*6"
"""What a member types to be heard no longer, or again."""

_MOST_QUEUED_MS = 10_000
"""A member to whom so much is still to be played is told nothing more: they would hear of the past."""

_DBM0 = -22.0


class RoomFull(CapacityError):
    """So many are in the room as the step allows."""


class RoomElsewhere(CapacityError):
    """Another process has a room of this name: its members cannot be heard here."""


class Claim(Protocol):
    async def close(self) -> None: ...


class Claims(Protocol):
    """Who says which process has a room, where there are several; the bus's leases are that."""

    async def contend(self, key: str, value: Mapping[str, Any]) -> Claim | None:
        """Hold a key; None while another process has it, or while nobody can know."""
        ...


@cache
def sound(name: str) -> Samples:
    """What members hear when somebody joins, leaves, or when their own voice is muted or heard again."""
    steps_hz = {"joined": (440, 660), "left": (660, 440), "muted": (330, 330), "unmuted": (550, 550)}[name]
    return np.concatenate([tones.tone((hz,), 90, (_DBM0,)) for hz in steps_hz])


class Member:
    """One caller in a room. Loop thread. number: which nobody else in this room gets, however often somebody comes."""

    def __init__(self, room: Room, call: Call, number: int, *, moderator: bool, music: Samples | None) -> None:
        self.room, self.call, self.number, self.moderator = room, call, number, moderator
        self.muted = False
        self.joined_ms = call.at_ms
        self.music = Music(call.leg.playout, np.zeros(0, np.int16) if music is None else music, f"room: {room.name}")
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._typed = ""

    @property
    def is_heard(self) -> bool:
        """A member on hold is not: their system's music is for nobody here."""
        return self.room.open and not self.muted and not self.call.held and self.call.wiring.aside.heard

    async def over(self) -> str:
        """Wait until the member has to leave: kicked | moderator_left."""
        return await asyncio.shield(self._over)

    @property
    def reason(self) -> str:
        return self._over.result() if self._over.done() else "hangup"

    def leave(self, reason: str) -> None:
        """The first reason stays."""
        if not self._over.done():
            self._over.set_result(reason)

    def mute(self, muted: bool, by: str) -> None:
        if muted != self.muted:
            self.muted = muted
            self.call.emit(ConferenceMuted(room=self.room.name, member=self.number, muted=muted, by=by))
            self.room.settle()
            self.play(sound("muted" if muted else "unmuted"))

    def press(self, digit: str) -> None:
        """A digit of the member: `*6` mutes, and lets be heard again."""
        self._typed = (self._typed + digit)[-len(MUTE) :]
        if self._typed == MUTE:
            self._typed = ""
            self.mute(not self.muted, "key")

    def play(self, samples: Samples) -> None:
        """Beside what the others say; not into somebody's music, nor to somebody whose call ends."""
        playout = self.call.leg.playout
        if self.call.state is State.ANSWERED and not self.music.on and playout.pending_ms < _MOST_QUEUED_MS:
            clip = playout.begin("room")
            clip.write_now(samples)
            clip.finish()

    def describe(self) -> dict[str, Any]:
        return {
            "member": self.number,
            "call": self.call.id,
            "moderator": self.moderator,
            "muted": self.muted,
            "held": self.call.held,
            "since_ms": self.call.at_ms - self.joined_ms,
        }


class Room:
    """Made by `Rooms`. moderated: its members hear each other only while a moderator is there."""

    def __init__(self, tenant: str, name: str) -> None:
        self.tenant, self.name = tenant, name
        self.moderated = False
        self.members: list[Member] = []
        self.mix: Mix[Member] = Mix(self._record, lambda member: member.is_heard)
        self._numbers = itertools.count(1)
        self._feeds: set[tuple[Member, Member]] = set()

    @property
    def open(self) -> bool:
        return not self.moderated or any(member.moderator for member in self.members)

    def make(self, call: Call, *, moderator: bool, music: Samples | None, most: int) -> Member:
        """A member who is not in yet. Raises RoomFull."""
        if len(self.members) >= most:
            raise RoomFull(f"{len(self.members)} are in the room")
        return Member(self, call, next(self._numbers), moderator=moderator, music=music)

    def enter(self, member: Member) -> None:
        self.members.append(member)
        self.mix.add(member)
        count = len(self.members)
        member.call.emit(ConferenceJoined(self.name, member.number, count, member.moderator))
        self.settle()

    def leave(self, member: Member) -> None:
        """Nobody hears the member any more, nor they anybody. The last moderator takes all others along."""
        was_open = self.open
        self.members.remove(member)
        self.mix.remove(member)
        lasted_ms = member.call.at_ms - member.joined_ms
        member.call.emit(ConferenceLeft(self.name, member.number, member.reason, len(self.members), lasted_ms))
        if was_open and not self.open:
            for other in self.members:
                other.leave("moderator_left")
        self.settle()

    def settle(self) -> None:
        """Let everybody hear whom they are to hear, and music whoever has nobody to hear."""
        hear = [member for member in self.members if member.call.wiring.aside.listens]
        wanted = {(one, other) for one in self.members for other in hear if one is not other and one.is_heard}
        for one, other in self._feeds - wanted:
            _feed(one, other, False)
        for member in self.members:
            hears_others = self.open and len(self.members) > 1 and member in hear
            if hears_others or member.call.wiring.aside.announced:
                member.music.stop()
            else:
                member.music.start()
        for one, other in wanted - self._feeds:
            _feed(one, other, True)
        self._feeds = wanted

    def tell(self, samples: Samples, *, but: Member | None = None) -> None:
        """To everybody who is not alone or waiting."""
        for member in self.members:
            if member is not but:
                member.play(samples)

    def records(self) -> bool:
        """Whether any member's recording runs: everybody has to be heard then."""
        return any(member.call.tape.running for member in self.members)

    def tapes_changed(self) -> None:
        for member in self.members:
            member.call.wiring.settle()

    def describe(self) -> dict[str, Any]:
        members = [member.describe() for member in self.members]
        return {"tenant": self.tenant, "room": self.name, "open": self.open, "members": members}

    @staticmethod
    def _record(member: Member, said: Frame, heard: Frame) -> None:
        member.call.tape.hear(said, heard)


class Rooms:
    """The rooms of a process. Loop thread. claims: None where there is no other process."""

    def __init__(self, claims: Claims | None = None) -> None:
        self._claims = claims
        self._rooms: dict[tuple[str, str], Room] = {}
        self._held: dict[tuple[str, str], Claim] = {}
        self._lock = asyncio.Lock()

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._rooms.values()))

    def member(self, call_id: str) -> Member | None:
        """The member that a call is; None if it is in no room."""
        return next((member for room in self for member in room.members if member.call.id == call_id), None)

    @asynccontextmanager
    async def joined(
        self, call: Call, name: str, *, most: int, moderator: bool, moderated: bool, music: Samples | None
    ) -> AsyncIterator[Member]:
        """In the room for the length of an `async with` block. The first one opens it, the last one closes it.

        Raises RoomFull, RoomElsewhere. Safe to cancel anywhere.
        """
        key = (call.tenant, name)
        try:
            async with self._lock:
                await self._claim(key)
            room = self._rooms.get(key) or Room(*key)
            member = room.make(call, moderator=moderator, music=music, most=most)
            self._rooms[key] = room
            room.moderated = room.moderated or moderated or moderator
            room.enter(member)
            try:
                with _attached(member):
                    yield member
            finally:
                room.leave(member)
                await member.music.close()
        finally:
            await self._give_up(key)

    async def _claim(self, key: tuple[str, str]) -> None:
        if self._claims is None or key in self._held:
            return
        claim = await self._claims.contend(f"room/{key[0]}/{key[1]}", {})
        if claim is None:
            raise RoomElsewhere("another process has this room, or it cannot be known which one")
        self._held[key] = claim

    async def _give_up(self, key: tuple[str, str]) -> None:
        """Close a room that nobody is in any more."""
        async with self._lock:
            room = self._rooms.get(key)
            if room is not None and room.members:
                return
            self._rooms.pop(key, None)
            if (claim := self._held.pop(key, None)) is not None:
                await claim.close()


class NoMember(CallerError):
    """A call that is in no room."""

    sip_code = 481
    http_code = 404


def _feed(one: Member, other: Member, on: bool) -> None:
    try:
        connect(one.call.leg, other.call.leg, on)
    except CarrierError as problem:  # a leg that has just gone; its call ends
        one.call.emit(Fault(where="conference", error=str(problem)))


@contextmanager
def _attached(member: Member) -> Iterator[None]:
    """What a member types and holds, and their sound while recordings run, comes to the room."""
    call, room = member.call, member.room

    def on_event(event: LegEvent) -> None:
        if isinstance(event, LegHeld | LegResumed):
            room.settle()

    def hear(said: Frame, played: Frame) -> None:
        room.mix.hear(member, said, played)

    with (
        call.digits.handed_to(member.press),
        call.wiring.mixed(hear, room.records),
        call.wiring.aside.keeper(room.settle),
    ):
        call.listener = on_event
        call.tape.watchers.append(room.tapes_changed)
        try:
            yield
        finally:
            call.listener = None
            call.tape.watchers.remove(room.tapes_changed)
