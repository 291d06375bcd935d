"""JSON of strangers, as all dialects read it."""

from __future__ import annotations

import json
from typing import Any

from sipserver.errors import BadPayload
from sipserver.streams.bots.contract import Message


def json_object(message: Message) -> dict[str, Any]:
    """Raises BadPayload for binary, for what is no JSON, and for JSON that is no object."""
    if isinstance(message, bytes):
        raise BadPayload("binary where text is due")
    try:
        told = json.loads(message)
    except (ValueError, RecursionError) as problem:
        raise BadPayload("JSON that is not") from problem
    if not isinstance(told, dict):
        raise BadPayload("JSON that is no object")
    return told


def inner(told: dict[str, Any], name: str) -> dict[str, Any]:
    """An object within. Raises BadPayload when it is not there."""
    found = told.get(name)
    if not isinstance(found, dict):
        raise BadPayload(f"no `{name}` in a message about one")
    return found


def whole_samples(payload: bytes) -> bytes:
    """L16 as it came. Raises BadPayload for nothing, or for half a sample."""
    if not payload or len(payload) % 2:
        raise BadPayload(f"{len(payload)} bytes of L16")
    return payload
