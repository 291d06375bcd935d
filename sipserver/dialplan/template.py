"""`{name}` in texts: replaced by a variable's value. No attributes, no format specifications, no code.

`{{` and `}}` are braces. A variable without a value becomes the empty string and is reported. `check` refuses at load
what `render`, which never fails in a call, leaves as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME = r"[A-Za-z_][A-Za-z0-9_]*|header\.[A-Za-z0-9_-]+"

_TOKEN = re.compile(r"\{\{|\}\}|\{(" + NAME + r")\}|[{}]")
_MEANT = re.compile(r"[{}][^{}]{0,30}\}?")


@dataclass(frozen=True, slots=True)
class Rendered:
    """unknown: names without a value, in order of appearance, each once."""

    text: str
    unknown: tuple[str, ...] = ()


def render(text: str, variables: Mapping[str, str]) -> Rendered:
    """Fill in the variables. Header names are looked up in lower case. Never raises; values are not rendered again."""
    unknown: dict[str, None] = {}

    def fill(token: re.Match[str]) -> str:
        name = token[1]
        if name is None:
            return {"{{": "{", "}}": "}"}.get(token[0], token[0])
        value = variables.get(canonical(name))
        if value is None:
            unknown[name] = None
            return ""
        return value

    return Rendered(_TOKEN.sub(fill, text), tuple(unknown))


def names(text: str) -> tuple[str, ...]:
    """The variables that a text uses, in order of appearance, canonical, each once."""
    return tuple(dict.fromkeys(canonical(token[1]) for token in _TOKEN.finditer(text) if token[1]))


def canonical(name: str) -> str:
    """`header.X-Account` and `header.x-account` are one variable; all other names are kept."""
    return name.lower() if name[:7].lower() == "header." else name


def check(text: str) -> None:
    """Raises ValueError for a brace that is neither `{name}` nor doubled."""
    for token in _TOKEN.finditer(text):
        if token[0] in "{}":
            meant = _MEANT.match(text, token.start())
            raise ValueError(
                f"`{meant[0] if meant else token[0]}` is not a variable like `{{name}}` or `{{header.x-name}}`;"
                " write `{{` and `}}` for braces"
            )
