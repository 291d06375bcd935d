"""What a tenant may be called: the same in dialplans, settings, keys and users. Pure."""

from __future__ import annotations

import re

from sipserver.errors import CallerError

PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
WORDS = "a tenant's name has small letters, digits, - and _, 63 at most, and begins with a letter or a digit"
_NAME = re.compile(PATTERN)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def checked(text: str) -> str:
    """The same. Raises CallerError."""
    if not is_name(text):
        raise CallerError(f"{text!r}: {WORDS}")
    return text
