"""Which port serves which call, and whether the media clock runs. Sip thread only.

Ports are made when first needed and kept for later calls: the bridge removes ports on its own clock, so a port that is
never removed can never be called after its end. The clock (PJMEDIA's null sound device) runs while calls have media.
"""

from __future__ import annotations

import time
from collections import deque

import pjsua2 as pj

from sipserver.audio.frame import FRAME_MS, RATE_HZ
from sipserver.sip.pcm import PcmCopy
from sipserver.sip.port import LegPort, MediaClock, MediaLine

REST_S = 0.2
"""How long a port rests after a call, so that none of its sound reaches the next one."""
LINGER_S = 2.0
"""How long the clock runs on after the last call: closing it blocks the thread for one tick."""


class PatchBay:
    def __init__(self, devices: pj.AudDevManager, clock: MediaClock, copy: PcmCopy) -> None:
        self._devices = devices
        self._clock = clock
        self._copy = copy
        self._resting: deque[tuple[float, LegPort]] = deque()
        self._busy: dict[int, LegPort] = {}  # slot -> port
        self._running = False
        self._idle_since_s = time.monotonic()

    def take(self, line: MediaLine) -> LegPort:
        """A port for a call, its clock running. Raises pj.Error when the bridge has no slot left."""
        if self._resting and time.monotonic() - self._resting[0][0] > REST_S:
            _, port = self._resting.popleft()
        else:
            port = self._make()
        if not self._busy:
            self._clock.started()
        port.line = line
        self._busy[port.getPortId()] = port
        self._choose_leader()
        if not self._running:
            self._devices.setNullDev()
            self._running = True
        return port

    def give(self, port: LegPort) -> None:
        """The call is over; nothing of it is heard any more."""
        port.line = None
        port.leads = False
        self._busy.pop(port.getPortId(), None)
        self._choose_leader()
        if not self._busy:
            self._clock.stopped()
        self._resting.append((time.monotonic(), port))
        self._idle_since_s = time.monotonic()

    def rest(self) -> None:
        """Stop the clock when no call has had media for a while. Called now and then."""
        if self._running and not self._busy and time.monotonic() - self._idle_since_s >= LINGER_S:
            self._stop_clock()

    def close(self) -> None:
        """Stop the clock and destroy all ports, before `libDestroy`."""
        self._stop_clock()
        for port in (*self._busy.values(), *(port for _, port in self._resting)):
            port.line = None
            pj.AudioMediaPort.__swig_destroy__(port)
        self._busy.clear()
        self._resting.clear()

    def _stop_clock(self) -> None:
        if self._running:
            self._devices.setNoDev()  # returns when the clock's thread has ended
            self._clock.thread_state.drop()
            self._running = False

    def _choose_leader(self) -> None:
        last = max(self._busy, default=None)
        for slot, port in self._busy.items():
            port.leads = slot == last

    def _make(self) -> LegPort:
        port = LegPort(self._clock, self._copy)
        pcm = pj.MediaFormatAudio()
        pcm.init(pj.PJMEDIA_FORMAT_L16, RATE_HZ, 1, FRAME_MS * 1000, 16)
        port.createPort("leg", pcm)
        return port
