"""Which port serves which call, how it is wired, and whether the media clock runs. Sip thread only.

Ports are kept for later calls: the bridge removes ports on its own clock, so a port that is never removed can never be
called after its end. The first ones are made before any call, so that their slots come before those of the streams:
the bridge serves slots in order. The clock (PJMEDIA's null sound device) runs while calls have media.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import pjsua2 as pj

from sipserver.log import logger
from sipserver.sip import native_port
from sipserver.sip.native_port import Jack, NativePort
from sipserver.sip.pcm import PcmCopy
from sipserver.sip.port import NO_WIRES, LegJack, MediaClock, MediaLine, Wires
from sipserver.sip.swig_port import SwigPort

REST_S = 0.2
"""How long a port rests after a call, so that none of its sound reaches the next one."""
LINGER_S = 2.0
"""How long the clock runs on after the last call: closing it blocks the thread for one tick."""

Port = NativePort | SwigPort


class LegPort:
    """The port of one call at a time."""

    def __init__(self, make: Callable[[Jack], Port]) -> None:
        self.jack = LegJack()
        self.port = make(self.jack)

    def wire(self, audio: pj.AudioMedia, line: MediaLine, *, afresh: bool) -> None:
        """Connect the call's sound as the line wants it. afresh: `audio` is new, nothing of it is connected yet."""
        self._change(audio, NO_WIRES if afresh else line.wired, wanted := line.wanted)
        line.wired = wanted

    def unwire(self, audio: pj.AudioMedia, line: MediaLine) -> None:
        """Disconnect the call's sound, whatever its line wants."""
        self._change(audio, line.wired, NO_WIRES)
        line.wired = NO_WIRES

    def _change(self, audio: pj.AudioMedia, before: Wires, wanted: Wires) -> None:
        if wanted.hears != before.hears:
            self.port.listen(audio, wanted.hears)
        if wanted.speaks != before.speaks:
            self.port.speak(audio, wanted.speaks)
        if wanted.loops != before.loops:
            (audio.startTransmit if wanted.loops else audio.stopTransmit)(audio)


class PatchBay:
    """spare: how many ports are made at once, for the calls of the cell and those that rest. copy: for pjsua2's ports,
    chosen only if they are needed.
    """

    def __init__(
        self, devices: pj.AudDevManager, clock: MediaClock, copy: Callable[[], PcmCopy], *, spare: int = 1
    ) -> None:
        self._devices = devices
        self._clock = clock
        self._make = self._maker(copy)
        self._busy: list[LegPort] = []
        self._running = False
        self._idle_since_s = time.monotonic()
        first = [LegPort(self._make) for _ in range(spare)]
        self._ticking = self._make(clock)
        self._ticking.tick()
        if any(leg.port.slot > self._ticking.slot for leg in first):
            logger("sip").warning("the conference bridge gives its slots in another order: sound comes a tick later")
        self._resting = deque((0.0, leg) for leg in first)

    def take(self, line: MediaLine) -> LegPort:
        """A port for a call, its clock running. Raises pj.Error or MemoryError when the bridge has no slot left."""
        if self._resting and time.monotonic() - self._resting[0][0] > REST_S:
            _, leg = self._resting.popleft()
        else:
            leg = LegPort(self._make)
        if not self._busy:
            self._clock.started()
        leg.jack.line = line
        self._busy.append(leg)
        self._share()
        if not self._running:
            self._devices.setNullDev()
            self._running = True
        return leg

    def give(self, leg: LegPort) -> None:
        """The call is over; nothing of it is heard any more."""
        leg.jack.line = None
        self._busy.remove(leg)
        self._share()
        if not self._busy:
            self._clock.stopped()
        self._resting.append((time.monotonic(), leg))
        self._idle_since_s = time.monotonic()

    def exchange(self, one: LegPort, other: LegPort) -> None:
        """Two calls exchange their lines: each port serves the other one's from now on."""
        one.jack.line, other.jack.line = other.jack.line, one.jack.line
        self._share()

    @property
    def running(self) -> bool:
        """Whether the clock runs."""
        return self._running

    def rest(self) -> None:
        """Stop the clock when no call has had media for a while. Called now and then."""
        if self._running and not self._busy and time.monotonic() - self._idle_since_s >= LINGER_S:
            self._stop_clock()

    def close(self) -> None:
        """Stop the clock and let go of all ports, before `libDestroy`. Keep this object until that has returned."""
        self._stop_clock()
        for leg in (*self._busy, *(leg for _, leg in self._resting)):
            leg.jack.line = None
            leg.port.destroy()
        self._ticking.destroy()

    def _maker(self, copy: Callable[[], PcmCopy]) -> Callable[[Jack], Port]:
        if native_port.usable():
            return NativePort
        chosen = copy()
        return lambda jack: SwigPort(jack, chosen)

    def _share(self) -> None:
        self._clock.lines = tuple(leg.jack.line for leg in self._busy if leg.jack.line is not None)

    def _stop_clock(self) -> None:
        if self._running:
            self._devices.setNoDev()  # returns when the clock's thread has ended
            self._clock.thread_state.drop()
            self._running = False
