"""What a cell has before it is forked."""

from __future__ import annotations

import threading
from pathlib import Path

from sipserver.audio.hold_music import gentle
from sipserver.fleet import cell
from sipserver.settings import Settings


def test_the_warm_parent_makes_the_music_that_its_cells_share(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text("tenant: acme\nflows:\n  main: [echo]\nroutes: [{flow: main}]\n")
    gentle.cache_clear()
    threads = threading.active_count()
    cell.preload(Settings(dialplans=tmp_path), strict=True)
    assert gentle.cache_info().currsize == 1
    assert threading.active_count() == threads
