"""Lines between the phone page and a server that a test can break, and what went over the page's WebSocket."""

from __future__ import annotations

import asyncio
import json
import re

from playwright.async_api import Page, Route, WebSocket


class TcpLine:
    """Between a page and the server: `cut` breaks every connection; until `mend` new ones are refused, or held."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._whole, self._holds = asyncio.Event(), False
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.tried = asyncio.Event()
        """Somebody wanted to connect while it was cut."""

    async def __aenter__(self) -> TcpLine:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()
        self.mend()
        await asyncio.gather(*self._carrying)

    def cut(self, *, hold: bool = False) -> None:
        self._holds = hold
        self._whole.clear()
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        if not self._whole.is_set():
            self.tried.set()
            if not self._holds:
                writer.transport.abort()
                return
            await self._whole.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        both = {writer, far_writer}
        self._writers |= both
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        self._writers -= both

    @staticmethod
    async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while payload := await reader.read(65_536):
                writer.write(payload)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


class _Side(asyncio.DatagramProtocol):
    """One end of a UDP line: what comes here leaves at the other one."""

    def __init__(self, line: UdpLine) -> None:
        self._line = line
        self.other = self
        self.transport: asyncio.DatagramTransport
        self.peer: tuple[str, int] | None = None

    def datagram_received(self, payload: bytes, address: tuple[str, int]) -> None:
        self.peer = address
        if not self._line.is_cut and self.other.peer is not None:
            self.other.transport.sendto(payload, self.other.peer)


class UdpLine:
    """The only way of WebRTC between a page and the server. is_cut: nothing passes. refuses: no offer reaches the
    server. answers: while clear, what the server answers waits.
    """

    def __init__(self) -> None:
        self.is_cut = self.refuses = False
        self.answers = asyncio.Event()
        self.answers.set()
        self._tried = asyncio.Semaphore(0)
        self._sides: list[_Side] = []

    async def __aenter__(self) -> UdpLine:
        return self

    async def __aexit__(self, *_: object) -> None:
        for side in self._sides:
            side.transport.close()

    async def carry(self, route: Route) -> None:
        """For `page.route`: both ends are told our addresses in the place of each other's."""
        if route.request.method not in ("POST", "PATCH"):
            await route.continue_()
            return
        if self.refuses:
            self._tried.release()
            await route.abort()
            return
        browser, server = await self._side(), await self._side()
        browser.other, server.other = server, browser
        answer = await route.fetch(post_data=self._by(server, route.request.post_data or ""))
        found = re.search(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", await answer.text())
        assert found is not None
        server.peer = (found[1], int(found[2]))
        self._tried.release()
        await self.answers.wait()
        await route.fulfill(response=answer, body=self._by(browser, await answer.text()))

    async def tries(self, count: int) -> None:
        """Wait until so many more offers of the page were answered or refused, the first one of its call among them."""
        for _ in range(count):
            await self._tried.acquire()

    async def _side(self) -> _Side:
        loop = asyncio.get_running_loop()
        transport, side = await loop.create_datagram_endpoint(lambda: _Side(self), local_addr=("0.0.0.0", 0))
        side.transport = transport
        self._sides.append(side)
        return side

    @staticmethod
    def _by(side: _Side, sdp: str) -> str:
        port = side.transport.get_extra_info("sockname")[1]
        ours = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host"
        return re.sub(r"a=candidate:[^\r\n]*", ours, sdp)


class Wire:
    """What went over the last WebSocket of a page."""

    def __init__(self, page: Page) -> None:
        self._sent: list[str | bytes] = []
        self._came: list[str | bytes] = []
        page.on("websocket", self._follow)

    def _follow(self, socket: WebSocket) -> None:
        self._sent.clear()
        self._came.clear()
        socket.on("framesent", self._note_sent)
        socket.on("framereceived", self._note_came)

    def _note_sent(self, message: str | bytes) -> None:
        self._sent.append(message)

    def _note_came(self, message: str | bytes) -> None:
        self._came.append(message)

    def resumed_at(self) -> int:
        """So many samples the server had got before."""
        told = [json.loads(message) for message in self._came if isinstance(message, str)]
        return next(int(message["received"]) for message in told if message["type"] == "resumed")

    def sound(self) -> list[tuple[int, int]]:
        """From which sample to which each message of sound went."""
        messages = [message for message in self._sent if isinstance(message, bytes)]
        begins = [int.from_bytes(message[:8]) for message in messages]
        return [(at, at + len(message) // 2 - 4) for at, message in zip(begins, messages, strict=True)]
