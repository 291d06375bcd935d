"""What strangers send, as all protocols of streams read it: JSON objects, parts of them, sound in base64. Pure."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

from sipserver.errors import BadPayload


def json_object(message: str | bytes) -> dict[str, Any]:
    """Raises BadPayload for binary, for what is no JSON, and for JSON that is no object."""
    told = _parsed(message)
    if not isinstance(told, dict):
        raise BadPayload("JSON that is no object")
    return told


def json_message(message: str | bytes, kind: str) -> tuple[str, dict[str, Any]]:
    """An object, and the text in it that says what kind of message it is. Raises BadPayload as `json_object` does, and
    for an object that does not say.
    """
    told = _parsed(message)
    if not isinstance(told, dict) or not isinstance(said := told.get(kind), str):
        raise BadPayload(f"a message without `{kind}`")
    return said, told


def inner(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object within. Raises BadPayload when it is not there."""
    found = told.get(name)
    if not isinstance(found, dict):
        raise BadPayload(f"a message without `{name}`")
    return found


def base64_payload(told: Mapping[str, Any]) -> bytes:
    """The `payload` of a message. Raises BadPayload when there is none, or one that is not base64."""
    payload = told.get("payload")
    if not isinstance(payload, str):
        raise BadPayload("a message without payload")
    try:
        return binascii.a2b_base64(payload, strict_mode=True)
    except (binascii.Error, ValueError) as problem:
        raise BadPayload(f"`payload` is not base64: {problem}") from None


def whole_samples(payload: bytes) -> bytes:
    """L16 as it came. Raises BadPayload for nothing, or for half a sample."""
    if not payload or len(payload) % 2:
        raise BadPayload(f"{len(payload)} bytes of L16")
    return payload


def _parsed(message: str | bytes) -> Any:
    if isinstance(message, bytes):
        raise BadPayload("binary where text is due")
    try:
        return json.loads(message)
    except (ValueError, RecursionError) as problem:
        raise BadPayload(f"not JSON: {problem}") from None
