"""Where the sound of one call goes: to its port, and straight to other calls of the cell. Sip thread only.

Owns the call's port of the patch bay and the wires between calls. They are made anew whenever PJSIP makes a call's
stream anew; what is wanted stays in the call's line. Refuses to know dialogs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import pjsua2 as pj

from sipserver.log import logger
from sipserver.sip.patch_bay import LegPort, PatchBay
from sipserver.sip.port import NO_WIRES, MediaLine


class Neighbours(Protocol):
    """The sounds of the other calls."""

    patch_bay: PatchBay

    def sound_of(self, serial: int) -> CallSound | None:
        """None when the call is gone."""
        ...

    def feeders_of(self, serial: int) -> Iterable[CallSound]:
        """Those that are to be heard by this call."""
        ...


class CallSound:
    """serial: of the call, for its neighbours; it changes when another call takes its place.

    index: of the call's audio stream, None before there is one.
    """

    def __init__(self, call: pj.Call, serial: int, line: MediaLine, neighbours: Neighbours) -> None:
        self.serial = serial
        self.line = line
        self.index: int | None = None
        self._call = call
        self._neighbours = neighbours
        self._port: LegPort | None = None
        self._fed: set[int] = set()  # the calls that get our sound now

    def come(self, index: int, *, held: bool) -> None:
        """PJSIP has made the stream, for the first time or anew: nothing of it is connected. held: by the peer."""
        self.index, self.line.muted = index, held
        if self._port is None:
            self._port = self._neighbours.patch_bay.take(self.line)
        self._fed.clear()
        self._port.wire(self._call.getAudioMedia(index), self.line, afresh=True)
        self._feed()
        for feeder in self._neighbours.feeders_of(self.serial):
            feeder.lose(self.serial)
            feeder.wire()

    def wire(self) -> None:
        """Connect the sound as the line wants it now; nothing while there is none: `come` does the same."""
        if self._port is None or self.index is None:
            return
        if self.line.wanted != self.line.wired:
            self._port.wire(self._call.getAudioMedia(self.index), self.line, afresh=False)
        self._feed()

    def go(self) -> None:
        """The call is over. PJSIP removes its stream, and with it the wires."""
        for feeder in self._neighbours.feeders_of(self.serial):
            feeder.lose(self.serial)
        self._fed.clear()
        if self._port is not None:
            self._neighbours.patch_bay.give(self._port)
            self._port = None

    @property
    def heard(self) -> bool:
        """Whether anybody takes the sound that comes."""
        wired = self.line.wired
        return bool(wired.hears or wired.loops or self._fed)

    def feeds(self, serial: int) -> bool:
        """Whether another call is to hear this one."""
        return serial in self.line.wanted.feeds

    def lose(self, serial: int) -> None:
        """A neighbour's stream has gone or is new: it is not connected any more."""
        self._fed.discard(serial)

    def take_over(self, old: CallSound) -> None:
        """Become, for everybody, what the old one was: its serial, its line and the wires that they want. The old one
        is left without any.
        """
        feeders = tuple(self._neighbours.feeders_of(old.serial))
        for feeder in feeders:
            feeder._stop(old.serial)
        self.line.wanted = NO_WIRES  # no leg has this line, and none will
        old._unwire()
        self._unwire()
        self.serial, old.serial = old.serial, self.serial
        self.line, old.line = old.line, self.line
        self.line.muted, old.line.muted = old.line.muted, True
        if self._port is not None and old._port is not None:
            self._neighbours.patch_bay.exchange(self._port, old._port)
        elif old._port is not None:
            self._neighbours.patch_bay.give(old._port)
            old._port = None

    def _feed(self) -> None:
        """Let those hear us that are to, and no others. While our peer holds the call its sound goes nowhere."""
        wanted = frozenset() if self.line.muted else self.line.wanted.feeds
        for serial in self._fed - wanted:
            self._stop(serial)
        for serial in wanted - self._fed:
            if self._connect(serial, on=True):
                self._fed.add(serial)

    def _stop(self, serial: int) -> None:
        if serial in self._fed:
            self._fed.discard(serial)
            self._connect(serial, on=False)

    def _unwire(self) -> None:
        audio = self._audio()
        if self._port is not None and audio is not None:
            self._port.unwire(audio, self.line)
        for serial in tuple(self._fed):
            self._stop(serial)

    def _connect(self, serial: int, *, on: bool) -> bool:
        """Whether it could be done: the other one may have no sound (yet, or any more)."""
        other = self._neighbours.sound_of(serial)
        mine, theirs = self._audio(), other._audio() if other is not None else None
        if mine is None or theirs is None:
            return False
        try:
            (mine.startTransmit if on else mine.stopTransmit)(theirs)
        except pj.Error as error:
            logger("sip").debug("a wire between two calls could not be changed", reason=error.reason)
            return False
        return True

    def _audio(self) -> pj.AudioMedia | None:
        """The call's slot of the bridge, None while it has none."""
        if self._port is None or self.index is None:
            return None
        audio = self._call.getAudioMedia(self.index)
        return audio if audio.getPortId() >= 0 else None  # PJSIP would abort for a slot that is none
