"""RTP packets as they come from a network, in their order and one at a time.

Owns how long a packet waits, what counts as lost, and what is thrown away. Pure: a pull is the only time that it knows.
Refuses to know codecs: whoever pulls makes up what was lost.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_PACKETS = 50
"""More than a second does not wait: the oldest go."""
LEAST_WAIT = 1
MOST_WAIT = 10
"""Packets gathered before sound begins: one on a good path, one more for every time that a packet was too late."""
_SPARE = 2
"""So many that wait all the time beside the one that is due are more than needed."""
_LOOK_PULLS = 50
_MOST_GAP = 25
"""A larger hole in the numbers is another stream, not a loss."""
_HALF = 1 << 15


@dataclass(frozen=True, slots=True)
class Lost:
    """A packet did not come. next_payload: of the packet after it, which may carry its FEC (RFC 6716, 2.1.7)."""

    next_payload: bytes | None


class JitterBuffer:
    """`put` what came, `pull` what is due. One thread. Numbers are RTP's: 16 bit, timestamps 32 bit.

    A sender that pauses (DTX) goes on with the next number and a later timestamp: that it ran dry says nothing about
    the network then.

    received, lost, late (too late to be of use), duplicated, reordered, discarded: packets.
    """

    def __init__(self) -> None:
        self._packets: dict[int, bytes] = {}
        self._next: int | None = None
        self._newest = 0
        self._flows = False
        self._wait = LEAST_WAIT
        self._least: int | None = None
        self._pulls = self._idle = 0
        self._newest_at = 0
        self._step = 0
        self._dry = False
        self.received = self.lost = self.late = self.duplicated = self.reordered = self.discarded = 0

    @property
    def waiting(self) -> int:
        return len(self._packets)

    @property
    def wait(self) -> int:
        """How many packets are gathered before sound begins."""
        return self._wait

    def put(self, sequence: int, timestamp: int, payload: bytes) -> None:
        self.received += 1
        number = self._unwrapped(sequence)
        self._clock(number, timestamp)
        if self._next is None or abs(number - self._newest) > _MOST_GAP * 4:
            self._packets.clear()
            self._next = self._newest = number
            self._flows = False
        elif number < self._next:
            if self._flows or number < self._newest - MOST_WAIT:
                self.late += 1
                return
            self._next = number
        if number in self._packets:
            self.duplicated += 1
            return
        self.reordered += number < self._newest
        self._newest = max(self._newest, number)
        self._packets[number] = payload
        if len(self._packets) > MOST_PACKETS:
            self._skip_oldest()

    def pull(self) -> bytes | Lost | None:
        """What is due now; None: nothing came in time."""
        self._pulls += 1
        if not self._flows:
            self._idle += bool(self._packets)
            if len(self._packets) < self._wait and self._idle < self._wait:
                return None
            if not self._packets:
                return None
            self._flows, self._least, self._idle = True, None, 0
            self._next = min(self._packets)
        if not self._packets:
            self._flows, self._dry = False, True
            return None
        self._look()
        assert self._next is not None
        number = self._next
        oldest = min(self._packets) if number not in self._packets else number
        if oldest - number > _MOST_GAP:
            self.lost += oldest - number
            number = oldest
        self._next = number + 1
        payload = self._packets.pop(number, None)
        if payload is None:
            self.lost += 1
            return Lost(self._packets.get(number + 1))
        return payload

    def _clock(self, number: int, timestamp: int) -> None:
        """Learn how long packets are, and whether it ran dry because one was late."""
        if self._next is not None and number == self._newest + 1:
            step = (timestamp - self._newest_at) % (1 << 32)
            self._step = min(self._step, step) if self._step and step else self._step or step
            if self._dry and step <= self._step * 2:
                self._wait = min(MOST_WAIT, self._wait + 1)
            self._dry = False
        if self._next is None or number > self._newest:
            self._newest_at = timestamp

    def _look(self) -> None:
        """Once a second: a packet goes when more waited all the time than are ever needed."""
        waiting = len(self._packets) - 1
        self._least = waiting if self._least is None else min(self._least, waiting)
        if self._pulls % _LOOK_PULLS:
            return
        if self._least >= _SPARE:
            self._wait = max(LEAST_WAIT, self._wait - 1)
            self._skip_oldest()
        self._least = None

    def _skip_oldest(self) -> None:
        oldest = min(self._packets)
        del self._packets[oldest]
        self.discarded += 1
        self._next = oldest + 1

    def _unwrapped(self, sequence: int) -> int:
        if self._next is None:
            return sequence
        return self._newest + (sequence - self._newest + _HALF) % (2 * _HALF) - _HALF
