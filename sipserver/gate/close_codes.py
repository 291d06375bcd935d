"""Why a WebSocket ends, as its close code and reason say (RFC 6455, 7.4). docs/websockets.md lists them.

Codes below 4000 have the RFC's meaning; those from 4000 on are ours, shaped like the HTTP status they resemble.
"""

from __future__ import annotations

import enum


class Close(enum.IntEnum):
    """`reason` is what the client reads where nobody says it better."""

    DONE = 1000
    GOING_AWAY = 1001
    BROKEN_PROTOCOL = 1002
    WRONG_TYPE = 1003
    NO_CODE = 1005
    LOST = 1006
    NOT_UTF8 = 1007
    TOO_MANY_MESSAGES = 1008
    TOO_LONG = 1009
    OUR_FAULT = 1011
    TRY_LATER = 1013
    BAD_MESSAGE = 4400
    KEY_OVER = 4401
    NOT_ALLOWED = 4403
    NOT_FOUND = 4404
    SILENT = 4408
    REPLACED = 4409
    TOO_SLOW = 4429

    @property
    def reason(self) -> str:
        return _REASONS[self]


_REASONS = {
    Close.DONE: "",
    Close.GOING_AWAY: "the server is shutting down",
    Close.BROKEN_PROTOCOL: "this breaks the WebSocket protocol",
    Close.WRONG_TYPE: "this kind of message is not taken here",
    Close.NO_CODE: "the peer gave no code",
    Close.LOST: "the connection was lost",
    Close.NOT_UTF8: "text that is not UTF-8",
    Close.TOO_MANY_MESSAGES: "too many messages",
    Close.TOO_LONG: "the message is too long",
    Close.OUR_FAULT: "internal error",
    Close.TRY_LATER: "no room now, try again later",
    Close.BAD_MESSAGE: "this message cannot be understood",
    Close.KEY_OVER: "the API key was revoked, or is over",
    Close.NOT_ALLOWED: "not allowed",
    Close.NOT_FOUND: "no such call or user",
    Close.SILENT: "nothing was heard of you, not even an answer to a ping",
    Close.REPLACED: "another connection took the place of this one",
    Close.TOO_SLOW: "you read too slowly",
}


def reason_of(code: int) -> str:
    """The reason of one of our codes; empty for others."""
    try:
        return Close(code).reason
    except ValueError:
        return ""
