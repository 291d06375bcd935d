"""Secrets and signatures as the Standard Webhooks specification has them.

Owns how a secret is made and which headers a message gets. Refuses to keep secrets.
Source: standard-webhooks/standard-webhooks, spec/standard-webhooks.md, "Symmetric signatures".
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES, SHORTEST_BYTES = 32, 24
"""The specification wants 24 to 64."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def usable(secret: str) -> bool:
    """Whether it is one that signs."""
    try:
        return len(base64.b64decode(secret.removeprefix(PREFIX), validate=True)) >= SHORTEST_BYTES
    except ValueError:
        return False


def headers(message_id: str, at: datetime, payload: str, keys: Sequence[str]) -> Mapping[str, str]:
    """Of one attempt. at: of this attempt, aware, so that a receiver may refuse what is old. keys: secrets, each of
    which signs; a receiver is content with one.
    """
    at = at.astimezone(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(key).sign(message_id, at, payload) for key in keys),
    }
