"""`python -m tools.events_document`: write docs/events.md anew, from the classes of the events."""

from __future__ import annotations

from pathlib import Path

from sipserver.events import catalogue

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/events.md"

if __name__ == "__main__":
    DOCUMENT.write_text(catalogue.page())
