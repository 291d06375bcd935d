"""The server's side of a WebSocket whose client broke a rule that aiohttp's parser enforces: the client is told.

Owns the close frame with a reason, and the wait until the client can have read it. aiohttp sends none and closes at
once; with the rest of a long message unread, TCP resets the connection, and the client never learns why.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from sipserver.gate.close_codes import Close

LINGER_S = 1.0
LOOK_S = 0.02

_BROKEN = frozenset({Close.BROKEN_PROTOCOL, Close.NOT_UTF8, Close.TOO_LONG})


class ServerSocket(web.WebSocketResponse):
    """`web.WebSocketResponse` without compression and pings of its own. message_bytes: the longest message (aiohttp
    counts from the first one that is too long)."""

    def __init__(self, *, message_bytes: int, protocols: tuple[str, ...] = ()) -> None:
        super().__init__(compress=False, autoping=False, max_msg_size=message_bytes + 1, protocols=protocols)

    async def close(self, *, code: int = Close.DONE, message: bytes = b"", drain: bool = True) -> bool:
        """As aiohttp's, which comes here with a bare code when its parser refused what the client sent."""
        if code in _BROKEN and not message and not self.closed:
            with contextlib.suppress(ConnectionError, RuntimeError, OSError):
                await self._say_why(Close(code))
        return await super().close(code=code, message=message, drain=drain)

    async def _say_why(self, why: Close) -> None:
        """What still comes is thrown away meanwhile: aiohttp does that after an error of its parser."""
        await self.send_frame(why.to_bytes(2, "big") + why.reason.encode(), WSMsgType.CLOSE)
        request = self._req
        if request is None or request.transport is None:
            return
        if request.transport.can_write_eof():
            request.transport.write_eof()
        for _ in range(round(LINGER_S / LOOK_S)):
            if not request.protocol.connected:
                break
            await asyncio.sleep(LOOK_S)
