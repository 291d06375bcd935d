"""Language tags (BCP 47) as engines and agents pass them: only the primary subtag decides what an engine can do."""

from __future__ import annotations

AUTO = "auto"


def primary(tag: str) -> str:
    """`de-AT` and `de_AT` -> `de`; `auto` stays `auto`."""
    return tag.replace("_", "-").partition("-")[0].lower()
