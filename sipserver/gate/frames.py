"""A text message as a WebSocket frame of a server (RFC 6455, 5.2): for what is told to many, and made once. Pure."""

from __future__ import annotations

import struct

_FINAL_TEXT = 0x81
_SHORT, _MIDDLE = 126, 1 << 16


def text_frame(text: str) -> bytes:
    """Unmasked and uncompressed, as `Connection` has agreed on with each client."""
    payload = text.encode()
    length = len(payload)
    if length < _SHORT:
        return struct.pack("!BB", _FINAL_TEXT, length) + payload
    if length < _MIDDLE:
        return struct.pack("!BBH", _FINAL_TEXT, 126, length) + payload
    return struct.pack("!BBQ", _FINAL_TEXT, 127, length) + payload
