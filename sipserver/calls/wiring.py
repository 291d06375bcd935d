"""Where the sound of a call goes: one function that reads aloud.

Owns the connections between a leg's media tick and those who listen to it. Refuses to wait, to write and to decide:
everything here runs once per 20 ms and call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sipserver.audio.dtmf import DtmfDetector
from sipserver.audio.frame import Frame
from sipserver.calls.leg import Leg
from sipserver.calls.tape import Tape
from sipserver.events import DigitReceived

Listener = Callable[[Frame], None]
"""Who hears the caller now: an agent's conversation or the echo. Loop thread; must not block."""


class Wiring:
    """The ears of one call. Loop thread."""

    def __init__(self, leg: Leg, tape: Tape, on_digit: Callable[[DigitReceived], None], *, inband: bool) -> None:
        self._leg = leg
        self._tape = tape
        self._on_digit = on_digit
        self._inband = inband
        self._detector: DtmfDetector | None = None
        self._listener: Listener | None = None
        self._hearing = True
        tape.changed = self.settle

    def settle(self) -> None:
        """Tell the leg whether anybody hears it. Call it when that may have changed: after each event of the leg."""
        wanted = self._listener is not None or self._tape.running or (self._inband and self._leg.wants_inband_digits)
        if wanted != self._hearing:
            self._hearing = wanted
            self._leg.hear(wanted)

    def on_media(self, inbound: Frame, outbound: Frame) -> None:
        """What the caller said goes to the listener first: an echo must be queued before the next tick."""
        if self._listener is not None:
            self._listener(inbound)
        if self._inband and self._leg.wants_inband_digits:
            self._hear_digits(inbound)
        self._tape.hear(inbound, outbound)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Let `listener` hear the caller for the length of a `with` block."""
        self._listener = listener
        self.settle()
        try:
            yield
        finally:
            self._listener = None
            self.settle()

    def _hear_digits(self, inbound: Frame) -> None:
        if self._detector is None:
            self._detector = DtmfDetector()
        for press in self._detector.hear(inbound):
            self._on_digit(DigitReceived(digit=press.digit, method="inband", duration_ms=press.duration_ms))
