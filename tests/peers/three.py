"""Three parties and the whole server: SIPp far ends, each with an RTP peer that says a tone of its own.

Owns starting them, telling a scenario to go on (a MESSAGE in its dialog, which the scenarios `caller-*`, `callee-*` and
`third-*` wait for), and who hears whom. Everything is ended with the block. Refuses to know what should happen.
"""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.fakes.until import PATIENCE_S, wait_until
from tests.harness.records import Record, records
from tests.harness.server import ServerProcess
from tests.peers.rtp import TELEPHONE_EVENT, Codec, RtpPeer, Script, level, strongest_hz
from tests.peers.sipp import Sipp

HZ = {"caller": 600.0, "callee": 1000.0, "third": 1400.0, "music": 1900.0, "sorry": 2300.0}
"""Who, or what, is known by which tone."""


@dataclass
class Far:
    """One far end. name: whose tone it says."""

    name: str
    sipp: Sipp
    rtp: RtpPeer
    codec: Codec

    def hears(self, who: str) -> None:
        """Wait until the last half second that came is the tone of somebody, or `nobody`."""

        def now() -> bool:
            samples = self.rtp.heard.signal(self.codec)[-self.codec.rate_hz // 2 :]
            if who == "nobody":
                return len(samples) > 0 and level(samples) < 200
            return level(samples) > 500 and abs(strongest_hz(samples, self.codec.rate_hz) / HZ[who] - 1) < 0.03

        wait_until(lambda: now() or self.sipp.is_over, f"{self.name} hears {who}")
        assert now(), f"{self.name} does not hear {who}:\n{self.sipp.trace}"

    def go_on(self) -> None:
        """The scenario waits for a word of ours at one or more places: do the next thing."""
        seen = self.sipp.messages.count("MESSAGE sip:cue")
        call_id = re.search(r"^Call-ID: *(\S+)", self.sipp.messages, re.M | re.I)
        assert call_id, self.sipp.trace
        text = (
            f"MESSAGE sip:cue@{self.sipp.host}:{self.sipp.port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{uuid.uuid4().hex}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:cue@127.0.0.1>;tag={uuid.uuid4().hex}\r\nTo: <sip:cue@127.0.0.1>\r\n"
            f"Call-ID: {call_id[1]}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), (self.sipp.host, self.sipp.port))
        wait_until(lambda: self.sipp.messages.count("MESSAGE sip:cue") > seen, f"{self.name} gets its cue")

    def got(self, what: str) -> None:
        """Wait until a message with this text was received or sent."""
        wait_until(lambda: what in self.sipp.messages or self.sipp.is_over, f"{what} at {self.name}")
        assert what in self.sipp.messages, self.sipp.trace

    def dies(self) -> None:
        """Not a word and not a sound any more, as from a machine without power."""
        self.sipp.__exit__()
        self.rtp.fall_silent()

    def is_buried(self) -> None:
        """Somebody else gets the server's BYE at last, which would otherwise be sent, and hold a leg, for 32 s (RFC
        3261, timer F).
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as grave:
            grave.bind((self.sipp.host, self.sipp.port))
            grave.settimeout(PATIENCE_S)
            text, peer = grave.recvfrom(65_535)
            head = text.decode(errors="replace").split("\r\n\r\n")[0].split("\r\n")
            assert head[0].startswith("BYE "), head[0]
            kept = [line for line in head if line.lower().startswith(("via:", "from:", "to:", "call-id:", "cseq:"))]
            grave.sendto("\r\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0", "", ""]).encode(), peer)

    def is_content(self) -> None:
        """The scenario went as it is written, to its end."""
        assert self.sipp.wait() == 0, f"{self.name}:\n{self.sipp.trace}"


@dataclass
class Three:
    """server: has trunks whose hosts are the ports in `ports`. Far ends by name in `far`."""

    server: ServerProcess
    folder: Path
    ports: Mapping[str, int]
    stack: ExitStack
    far: dict[str, Far] = field(default_factory=dict)

    def place(self, name: str, scenario: str, **facts: object) -> Far:
        """Somebody calls the server. facts: `user`, whom; `host`, its own address; the rest as in `listen`."""
        return self._start(name, scenario, self.server.sip_port, 0, **facts)

    def listen(self, name: str, scenario: str, trunk: str = "", **facts: object) -> Far:
        """Somebody waits for a call by a trunk. facts: `script`, what to send; `tone`: whose, if not that of the name;
        `silent`: nothing at all; more keys of the scenario.
        """
        return self._start(name, scenario, 0, self.ports[trunk or name], **facts)

    def _start(self, name: str, scenario: str, server_port: int, port: int, **facts: object) -> Far:
        script = facts.pop("script", Script())
        assert isinstance(script, Script)
        if not script.tone_hz:
            script = replace(script, tone_hz=HZ[str(facts.pop("tone", name))])
        user, host = str(facts.pop("user", "")), str(facts.pop("host", "127.0.0.1"))
        rtp = self.stack.enter_context(RtpPeer(script, host))
        if facts.pop("silent", False):
            rtp.fall_silent()
        keys = {"rtp_port": rtp.port, "formats": script.codec.payload_type, "event": TELEPHONE_EVENT, **facts}
        folder = self.folder / f"{name}-{len(self.far)}"
        folder.mkdir()
        sipp = Sipp(
            scenario, folder, server_port, user=user, limit_s=120, port=port, host=host,
            unique=f"-{uuid.uuid4().hex[:8]}",
            keys={key: str(value) for key, value in keys.items()},
        )  # fmt: skip
        self.far[name] = far = Far(name, self.stack.enter_context(sipp), rtp, script.codec)
        return far

    def hear_each_other(self, one: str = "caller", other: str = "callee") -> None:
        self.far[one].hears(other)
        self.far[other].hears(one)

    def all_content(self, *names: str) -> None:
        for name in names or tuple(self.far):
            self.far[name].is_content()

    def record(self, name: str = "caller", *, faults: int = 0) -> Record:
        """Of the call that a far end placed, once it is closed. faults: so many are told in it."""
        call_id = self.far[name].sipp.sip_call_id

        def closed() -> Record | None:
            return next((each for each in self.so_far(call_id) if each.kinds[-1:] == ["call.ended"]), None)

        wait_until(closed, f"the end of {name}'s call")
        record = closed()
        assert record is not None
        assert len(record.of("fault.other")) == faults, record.of("fault.other")
        return record

    def so_far(self, call_id: str = "") -> list[Record]:
        return records(self.server.database, call_id or self.far["caller"].sipp.sip_call_id)

    def happened(self, kind: str, at_least: int = 1, call_id: str = "") -> None:
        """Wait for an event in the record of the caller's call."""
        wait_until(lambda: sum(len(each.of(kind)) for each in self.so_far(call_id)) >= at_least, kind)


@contextmanager
def three(server: ServerProcess, folder: Path, ports: Mapping[str, int]) -> Iterator[Three]:
    with ExitStack() as stack:
        yield Three(server, folder, ports, stack)
