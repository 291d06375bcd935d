"""Questions to rtpengine: the ng protocol, bencoded dictionaries behind a cookie in UDP datagrams.

Owns the encoding (BEP 3) and one question with its repetitions. Refuses to know what the answers mean. Source:
rtpengine's documentation, "The NG Control Protocol": a repeated cookie is answered again and not carried out again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sipserver.errors import CarrierError

Value = str | int | Sequence["Value"] | Mapping[str, "Value"]

NOTHING: Mapping[str, Value] = MappingProxyType({})
REPEAT_S = 0.3
"""A question without an answer is sent again, with the same cookie."""


class NoAnswer(CarrierError):
    """The relay did not answer in time, refused the question, or nobody listens there."""


def encode(value: Value) -> bytes:
    """Bencode; dictionaries by their keys in order, text as UTF-8."""
    match value:
        case str():
            text = value.encode()
            return b"%d:%s" % (len(text), text)
        case int():
            return b"i%de" % value
        case Mapping():
            return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"
        case _:
            return b"l" + b"".join(encode(item) for item in value) + b"e"


def decode(payload: bytes) -> Any:
    """str, int, list and dict. Raises ValueError for what is no bencoding, or more than one value."""
    value, end = _decode(payload, 0)
    if end != len(payload):
        raise ValueError(f"{len(payload) - end} bytes behind the value")
    return value


def _decode(payload: bytes, at: int) -> tuple[Any, int]:
    kind = payload[at : at + 1]
    if kind == b"i":
        end = payload.index(b"e", at)
        return int(payload[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items: list[Any] = []
        at += 1
        while payload[at : at + 1] != b"e":
            item, at = _decode(payload, at)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        if len(items) % 2:
            raise ValueError("a dictionary's last key has no value")
        return dict(zip(items[::2], items[1::2], strict=True)), at + 1
    colon = payload.index(b":", at)
    end = colon + 1 + int(payload[at:colon])
    if end > len(payload):
        raise ValueError("the text is cut off")
    return payload[colon + 1 : end].decode(errors="replace"), end


def address(control: str) -> tuple[str, int]:
    """Host and port out of `127.0.0.1:2223` or `[::1]:2223`. Raises ValueError."""
    host, _, port = control.rpartition(":")
    return host.strip("[]"), int(port)


async def ask(
    control: str, command: str, arguments: Mapping[str, Value] = NOTHING, *, timeout_s: float = 1.0
) -> dict[str, Any]:
    """One question; loop thread, safe to cancel. Raises NoAnswer, also for an answer that says `error`."""
    loop = asyncio.get_running_loop()
    cookie = secrets.token_hex(8).encode()
    answer: asyncio.Future[bytes] = loop.create_future()
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: _Ear(cookie, answer), remote_addr=address(control))
    except OSError as error:
        raise NoAnswer(f"rtpengine at {control}: {error}") from None
    question = cookie + b" " + encode({"command": command, **arguments})
    try:
        for wait_s in _pauses(timeout_s):
            transport.sendto(question)
            with contextlib.suppress(TimeoutError):
                reply = decode(await asyncio.wait_for(asyncio.shield(answer), wait_s))
                break
        else:
            raise NoAnswer(f"rtpengine at {control} did not answer within {timeout_s:g} s")
    except (OSError, ValueError) as error:
        raise NoAnswer(f"rtpengine at {control}: {error}") from None
    finally:
        transport.close()
        if not answer.cancel() and not answer.cancelled():
            answer.exception()  # looked at, so that a late one is not reported as forgotten
    if not isinstance(reply, dict) or reply.get("result") == "error":
        reason = reply.get("error-reason", "") if isinstance(reply, dict) else "no dictionary"
        raise NoAnswer(f"rtpengine at {control} refuses {command}: {reason}")
    return reply


def _pauses(timeout_s: float) -> Iterator[float]:
    while timeout_s > 0:
        yield min(REPEAT_S, timeout_s)
        timeout_s -= REPEAT_S


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, cookie: bytes, answer: asyncio.Future[bytes]) -> None:
        self._cookie, self._answer = cookie, answer

    def datagram_received(self, payload: bytes, _peer: Any) -> None:
        cookie, _, body = payload.partition(b" ")
        if cookie == self._cookie and not self._answer.done():
            self._answer.set_result(body)

    def error_received(self, error: Exception) -> None:
        """Nobody listens there (ICMP port unreachable)."""
        if not self._answer.done():
            self._answer.set_exception(error)
