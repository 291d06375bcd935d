"""Where the sound of a call goes: one function that reads aloud.

Owns the connections between a leg's media tick and those who listen to it. Refuses to wait, to write and to decide:
everything here runs once per 20 ms and call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sipserver.audio.dtmf import DtmfDetector
from sipserver.audio.frame import Frame
from sipserver.calls.answerer import FirstWords
from sipserver.calls.aside import Aside
from sipserver.calls.leg import Leg
from sipserver.calls.tape import Tape
from sipserver.events import DigitReceived

Mixing = Callable[[Frame, Frame], None]
"""Who gets what a party said and what we played to it, in place of its tape. As `Listener`."""

Listener = Callable[[Frame], None]
"""Who hears a party now: an agent's conversation, the recording of two. Loop thread; must not block."""


class Wiring:
    """The ears of one party. Loop thread. tape: records what it says and is told; None: for parties that are recorded
    only beside another one.
    """

    def __init__(self, leg: Leg, tape: Tape | None, on_digit: Callable[[DigitReceived], None], *, inband: bool) -> None:
        self._leg = leg
        self._tape = tape
        self._on_digit = on_digit
        self._inband = inband
        self._detector: DtmfDetector | None = None
        self._listener: Listener | None = None
        self._beside: Listener | None = None
        self._wanted: Callable[[], bool] = lambda: False
        self._mix: Mixing | None = None
        self._first_words: FirstWords | None = None
        self._hearing = True
        self._overhearing: list[Mixing] = []
        self.aside = Aside()
        self.deaf_beside = False
        """Who overhears the party gets silence."""
        if tape is not None:
            tape.watchers.append(self.settle)

    def settle(self) -> None:
        """Tell the leg whether anybody hears it. Call it when that may have changed: after each event of the leg."""
        wanted = (
            self._listener is not None
            or bool(self._overhearing)
            or (self._first_words is not None and self._first_words.wanted)
            or (self._wanted() if self._beside is not None else self._records or self._detects)
        )
        if wanted != self._hearing:
            self._hearing = wanted
            self._leg.hear(wanted)

    def on_media(self, inbound: Frame, outbound: Frame) -> None:
        """What the party said goes to the listener first: an echo must be queued before the next tick. Of one who is
        muted or on hold only digits are heard.
        """
        said, inbound = inbound, inbound if self.aside.heard else Frame.silence(inbound.at_ns)
        if self._listener is not None:
            self._listener(inbound)
        for overhear in self._overhearing:
            if self.deaf_beside:
                overhear(Frame.silence(inbound.at_ns), Frame.silence(outbound.at_ns))
            else:
                overhear(inbound, outbound)
        if self._first_words is not None:
            self._remember(self._first_words, inbound)
        if self._beside is not None:
            if self._wanted():
                self._beside(inbound)
            return
        if self._detects:
            self._hear_digits(said)
        if self._mix is not None:
            if self._wanted():
                self._mix(inbound, outbound)
        elif self._tape is not None:
            self._tape.hear(inbound, outbound)

    def remember(self) -> None:
        """Keep what the party says from its answer on, until `recall`, for a while. Call it before the answer."""
        self._first_words = FirstWords()
        self.settle()

    def answered(self) -> None:
        """The party has answered."""
        if self._first_words is not None:
            self._first_words.answered()

    def recall(self) -> Sequence[Frame]:
        """What `remember` has kept, without a gap up to now; then no more is kept. Nothing when it was not asked to, or
        when that was too long ago.
        """
        kept, self._first_words = self._first_words, None
        return kept.take() if kept is not None else ()

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Let `listener` hear the party for the length of a `with` block."""
        self._listener = listener
        self.settle()
        try:
            yield
        finally:
            self._listener = None
            self.settle()

    @contextmanager
    def overheard(self, by: Mixing) -> Iterator[None]:
        """For the length of a `with` block `by` gets what the party says and what we play to it, whoever else hears it.

        What other legs play to it in a bridge is not in it.
        """
        self._overhearing = [*self._overhearing, by]
        self.settle()
        try:
            yield
        finally:
            self._overhearing = [each for each in self._overhearing if each is not by]
            self.settle()

    @contextmanager
    def joined(self, beside: Listener, wanted: Callable[[], bool]) -> Iterator[None]:
        """For the length of a `with` block another party hears this one. While `wanted` (ask `settle` to look again),
        `beside` gets what it says instead of the tape. Its tones are sound for the other one, and no digits here.
        """
        self._beside, self._wanted = beside, wanted
        self.settle()
        try:
            yield
        finally:
            self._beside = None
            self.settle()

    @contextmanager
    def mixed(self, mix: Mixing, wanted: Callable[[], bool]) -> Iterator[None]:
        """For the length of a `with` block the party is in a room. While `wanted` (ask `settle` to look again), `mix`
        gets its sound instead of the tape. Its tones are digits, as ever.
        """
        self._mix, self._wanted = mix, wanted
        self.settle()
        try:
            yield
        finally:
            self._mix = None
            self.settle()

    @property
    def _records(self) -> bool:
        if self._mix is not None:
            return self._wanted()
        return self._tape is not None and self._tape.running

    @property
    def _detects(self) -> bool:
        return self._inband and self._leg.wants_inband_digits

    def _remember(self, first_words: FirstWords, inbound: Frame) -> None:
        first_words.hear(inbound)
        if not first_words.wanted:
            self._first_words = None
            self.settle()

    def _hear_digits(self, inbound: Frame) -> None:
        if self._detector is None:
            self._detector = DtmfDetector()
        for press in self._detector.hear(inbound):
            self._on_digit(DigitReceived(digit=press.digit, method="inband", duration_ms=press.duration_ms))
