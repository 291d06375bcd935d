"""A caller of the echo who never stops talking, and what of it came back: the gaps that a person would hear."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Self

from tests.harness.phone import PACKET_NS, PACKET_SAMPLES, Packet, tone
from tests.harness.routed_phone import RoutedPhone

LOUD = 1_000
BUFFERED_NS = 400_000_000
"""How long sound may be on its way from the caller through the jitter buffer and back."""
ECHO_S = 5.0


class Talker(RoutedPhone):
    """`call`, then listen to `echo_again` and `gaps_ms`. Use as a context manager."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self._talking = threading.Event()
        self._talk = threading.Thread(target=self._keep_talking, daemon=True)

    def call(self, user: str = "echo") -> Self:
        """Call, talk, return when the echo is heard. Fails when it is not, everything closed."""
        try:
            answer = self.invite(user)
            assert answer.code == 200, answer.text
            self.start_media()
            self._talking.set()
            self._talk.start()
            self.echo_again()
        except BaseException:
            self.close()
            raise
        return self

    def echo_again(self, timeout_s: float = ECHO_S) -> None:
        """Sound that arrives after this call. Fails when none does."""
        asked_ns = time.perf_counter_ns()
        deadline = time.monotonic() + timeout_s
        while not any(packet.at_ns > asked_ns and packet.level > LOUD for packet in self.received[-20:]):
            assert time.monotonic() < deadline, "no echo is heard"
            time.sleep(0.02)

    def echo_for(self, seconds: float) -> None:
        """Until so much echo has come since this call."""
        asked_ns = time.perf_counter_ns()
        deadline = time.monotonic() + seconds + ECHO_S
        while len(self.loud(asked_ns)) * 0.02 < seconds:
            assert time.monotonic() < deadline, "the echo has gaps"
            time.sleep(0.02)

    def loud(self, since_ns: int) -> Sequence[Packet]:
        return [packet for packet in list(self.received) if packet.at_ns >= since_ns and packet.level > LOUD]

    def longest_gap_ms(self, since_ns: int) -> float:
        """The longest time without sound since then (perf_counter_ns), in milliseconds of the RTP clock: what a jitter
        buffer cannot hide. Late packets are no gap, missing ones are. Less the time for which the caller itself stood
        still about then: a machine that halts as a whole says nothing about who is on it."""
        loud = sorted(self.loud(since_ns), key=lambda packet: packet.timestamp)
        gaps = [
            (after.timestamp - before.timestamp) / 8 - 20 - self._halted_ms(before.at_ns, after.at_ns)
            for before, after in itertools.pairwise(loud)
            if after.timestamp - before.timestamp > PACKET_SAMPLES
        ]
        return max(gaps, default=0.0)

    def _halted_ms(self, from_ns: int, to_ns: int) -> float:
        """By how much its packets were late, which are due every 20 ms, a moment before this time and in it."""
        sent = [at_ns for at_ns in list(self.sent_ns) if from_ns - BUFFERED_NS <= at_ns <= to_ns + PACKET_NS]
        late = [(after - before - PACKET_NS) / 1e6 for before, after in itertools.pairwise(sent)]
        return sum(each for each in late if each > 20)

    def _keep_talking(self) -> None:
        sound = tone(200)
        while not self._closed.is_set():
            if self._outgoing.qsize() < 20:
                self.say(sound)
            else:
                self._closed.wait(0.1)

    def close(self) -> None:
        super().close()
        if self._talk.is_alive():
            self._talk.join(2)
