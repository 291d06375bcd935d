"""The phone behind a proxy that stays in the dialog (Record-Route), on IPv4 or IPv6, with an early or a late offer."""

from __future__ import annotations

import re
import socket
from typing import Self

from tests.harness.phone import Phone, Response


class RoutedPhone(Phone):
    """late: the INVITE has no SDP, the ACK answers the offer of the 200. answers: every 2xx to an INVITE, as text."""

    def __init__(self, server_port: int, *, late: bool = False) -> None:
        self._routes = ""
        self.late = late
        self.answers: list[str] = []
        super().__init__(server_port)

    @property
    def relay(self) -> tuple[str, int]:
        """Where the answer says that RTP goes."""
        assert self.media is not None
        return self.media

    def request(
        self, method: str, body: str = "", headers: str = "", *, branch: str = "", sequence: int | None = None
    ) -> str:
        if self.late and method == "INVITE" and "tag=" not in self.to:
            body = ""
        if self.late and method == "ACK":
            body = self.sdp()
        routes = self._routes if "tag=" in self.to else ""
        return super().request(method, body, routes + headers, branch=branch, sequence=sequence)

    def __enter__(self) -> Self:
        return self

    def _follow(self, answer: Response) -> None:
        super()._follow(answer)
        self.answers.append(answer.text)
        if not self._routes:
            found = re.findall(r"^Record-Route\s*:\s*(.*?)\r?$", answer.text, re.I | re.M)
            self._routes = "".join(f"Route: {route}\r\n" for route in reversed(found))


class RoutedPhone6(RoutedPhone):
    """The same on ::1."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self.server = ("::1", server_port)

    @staticmethod
    def _bound() -> socket.socket:
        endpoint = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        endpoint.bind(("::1", 0))
        endpoint.settimeout(0.2)
        return endpoint

    def sdp(self, direction: str = "sendrecv", formats: str = "0 101", ptime: int = 20) -> str:
        return super().sdp(direction, formats, ptime).replace("IN IP4 127.0.0.1", "IN IP6 ::1")

    def request(
        self, method: str, body: str = "", headers: str = "", *, branch: str = "", sequence: int | None = None
    ) -> str:
        head, _, content = (
            super().request(method, body, headers, branch=branch, sequence=sequence).partition("\r\n\r\n")
        )
        own = re.sub(rf"127\.0\.0\.1:({self.sip_port}|{self.server[1]})", r"[::1]:\1", head)
        return f"{own}\r\n\r\n{content}"

    def _follow(self, answer: Response) -> None:
        super()._follow(answer)
        if self._media is not None:
            self._media = ("::1", self._media[1])
