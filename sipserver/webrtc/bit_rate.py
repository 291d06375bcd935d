"""How many bits a browser gets: Opus' bit rate, FEC and DTX follow its receiver reports (RFC 3550, 6.4.1). Pure.

Owns the decision and its hysteresis. Refuses to know RTCP, encoders and clocks: each report is a step.

Loss that FEC can mend does not mean that the path is full; much loss, or a round trip that grows, does. So the rate
falls at once and rises slowly, and nothing changes for less than a tenth. It does not fall below what FEC needs while
packets are lost: a thinner voice with holes is the worse one.
"""

from __future__ import annotations

from dataclasses import dataclass

_FALLS_AT = 10.0
_HOLDS_AT = 4.0
_FEC_ON, _FEC_OFF = 2.0, 0.5
"""Loss in percent."""
_FEC_FROM = {5: 26_000, 10: 20_000, 15: 18_000}
"""The bit rates from which on libopus writes FEC at 16 kHz, by the loss in percent that it is told to prepare for.
Measured with libopus 1.3.1; more loss than 15 % changes nothing."""
_LEAST_WITH_FEC = _FEC_FROM[15]
_DELAY_MS = 150.0
"""So much more than the shortest round trip that was seen means that packets queue up."""
_GOOD_REPORTS = 3
_LEAST_CHANGE = 0.1
_SMOOTH = 0.5


@dataclass(frozen=True, slots=True)
class Sending:
    """bit_rate: bit/s. loss_percent: what FEC prepares for; 0: no FEC. dtx: silence is not sent."""

    bit_rate: int
    loss_percent: int = 0
    dtx: bool = False

    @property
    def fec(self) -> bool:
        return self.loss_percent > 0


class BitRate:
    """`report` every time the browser tells. lowest, highest: bit/s; it begins with the highest."""

    def __init__(self, lowest: int, highest: int) -> None:
        if not 6_000 <= lowest <= highest:
            raise ValueError(f"bit rates from {lowest} to {highest}: Opus begins at 6000")
        self._lowest, self._highest = lowest, highest
        self._rate = float(highest)
        self._loss: float | None = None
        self._shortest_ms: float | None = None
        self._good = 0
        self._told = Sending(highest)

    @property
    def sending(self) -> Sending:
        """What holds now."""
        return self._told

    @property
    def loss_percent(self) -> float:
        """Smoothed."""
        return self._loss or 0.0

    def report(self, loss_percent: float, round_trip_ms: float | None) -> Sending | None:
        """What is to hold from now on, if that is something else than before."""
        self._loss = loss_percent if self._loss is None else self._loss + _SMOOTH * (loss_percent - self._loss)
        queues = self._queues(round_trip_ms)
        if self._loss >= _FALLS_AT or loss_percent >= 2 * _FALLS_AT:
            self._step(0.75)
        elif queues:
            self._step(0.85)
        elif self._loss >= _HOLDS_AT:
            self._good = 0
        else:
            self._good += 1
            if self._good >= _GOOD_REPORTS:
                self._rate = min(self._highest, self._rate * 1.12)
        return self._decided()

    def _queues(self, round_trip_ms: float | None) -> bool:
        if round_trip_ms is None:
            return False
        if self._shortest_ms is None or round_trip_ms < self._shortest_ms:
            self._shortest_ms = round_trip_ms
        return round_trip_ms > self._shortest_ms + _DELAY_MS

    def _step(self, factor: float) -> None:
        self._good = 0
        self._rate = max(self._lowest, self._rate * factor)

    def _decided(self) -> Sending | None:
        before, loss = self._told, self.loss_percent
        fec = loss >= _FEC_ON or (before.fec and loss > _FEC_OFF)
        fec = fec and self._highest >= _LEAST_WITH_FEC
        if fec:
            self._rate = max(self._rate, _LEAST_WITH_FEC)
        moved = abs(self._rate - before.bit_rate) >= _LEAST_CHANGE * before.bit_rate
        ends = (self._lowest, self._highest, _LEAST_WITH_FEC)
        at_an_end = self._rate in ends and self._rate != before.bit_rate
        rate = round(self._rate) if moved or at_an_end else before.bit_rate
        span = self._highest - self._lowest
        dtx = self._rate <= self._lowest + span * (0.5 if before.dtx else 0.25) and span > 0
        sending = Sending(rate, self._prepared(rate) if fec else 0, dtx)
        if sending == before:
            return None
        self._told = sending
        return sending

    def _prepared(self, rate: int) -> int:
        """The loss that FEC prepares for: what there is, and as much as it takes to have any at this rate."""
        before, loss = self._told, self.loss_percent
        prepared = min(30, 5 * (1 + int(loss // 5)))
        if before.fec and abs(prepared - before.loss_percent) <= 5 and loss < before.loss_percent:
            prepared = before.loss_percent
        return next(
            (step for step, least in _FEC_FROM.items() if step >= prepared and rate >= least), max(prepared, 15)
        )
