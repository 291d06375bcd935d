"""The close codes that our WebSockets end with (RFC 6455, 7.4.1; those from 4000 on are ours)."""

from __future__ import annotations

import enum


class CloseCode(enum.IntEnum):
    """What ended a connection. docs/websockets.md says what a client should do about each."""

    DONE = 1000
    """The call, or whatever it was for, is over."""
    GOING_AWAY = 1001
    """We shut down: come back."""
    PROTOCOL = 1002
    """What came is not what the protocol says."""
    WRONG_KIND = 1003
    """Text where binary is due, or the other way round."""
    BROKEN = 1006
    """Never sent: the connection broke."""
    REFUSED = 1008
    """The token is not good for this, or too many messages came."""
    TOO_BIG = 1009
    """A message was longer than `gate.message_bytes`."""
    OURS = 1011
    """A fault of ours."""
    TOO_SLOW = 4000
    """Too much waited for the client."""
    SILENT = 4001
    """No answer to our pings."""
    TAKEN_OVER = 4002
    """Another connection has the call now."""
