"""`python -m tools.api_document`: write the table of operations in docs/api.md anew."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sipserver.api.rest import reference
from sipserver.api.rest.operations import Operation
from sipserver.asking import Here
from sipserver.bus import table
from sipserver.bus.contract import Json
from sipserver.control_plane import ControlPlane
from sipserver.settings import Settings

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/api.md"


async def operations() -> Sequence[Operation]:
    """Those that a server offers; none is asked."""

    async def nobody(_verb: str, _arguments: Json) -> Json:
        raise NotImplementedError

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "var").mkdir()
        settings = Settings().resolved(Path(folder) / "etc")
        bus = table.make(settings.bus, node="document", run="document")
        plane = ControlPlane(settings, Here(nobody), bus)
        await plane.close()
        return plane.offered


if __name__ == "__main__":
    DOCUMENT.write_text(reference.filled(DOCUMENT.read_text(), asyncio.run(operations())))
