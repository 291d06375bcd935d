"""The far end of a stream as a leg drives it: keeps what it was told, and plays nothing."""

from __future__ import annotations

from sipserver.streams.contract import StreamOffer, WireFormat


class StreamLine:
    """Satisfies `streams.contract.Line`. said: marks, clears and hang-ups in order. payloads: sound that was sent."""

    def __init__(self, wire: WireFormat = "l16_16", *, lead_ms: int = 0, marks: bool = True) -> None:
        self.wire: WireFormat = wire
        self.lead_ms, self.marks, self.can_refer = lead_ms, marks, False
        self.payloads: list[bytes] = []
        self.said: list[str] = []
        self.presses = False
        """Whether the protocol has digits."""

    @property
    def mark_names(self) -> list[str]:
        return [each.split()[1] for each in self.said if each.startswith("mark")]

    def play(self, payload: bytes) -> None:
        self.payloads.append(payload)

    def mark(self, name: str) -> None:
        self.said.append(f"mark {name}")

    def clear(self) -> None:
        self.said.append("clear")

    async def press(self, digits: str, duration_ms: int) -> bool:
        if self.presses:
            self.said.append(f"press {digits}")
        return self.presses

    async def refer(self, to_uri: str) -> int:
        self.said.append("refer")
        return 200

    async def hang_up(self, code: int, reason: str) -> None:
        self.said.append(f"hang up {code}")


def offer(direction: str = "inbound") -> StreamOffer:
    return StreamOffer(
        direction=direction,
        from_uri="sip:anna@voice.invalid",
        from_user="anna",
        to_uri="sip:demo@voice.invalid",
        to_user="demo",
        source="192.0.2.1",
        sip_call_id="c1",
    )
