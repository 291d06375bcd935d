"""What a cell has before it is forked."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sipserver.audio.hold_music import gentle
from sipserver.fleet import cell
from sipserver.settings import Settings

PLAN = "tenant: acme\nflows:\n  main: [echo]\nroutes: [{flow: main}]\n"


def test_the_warm_parent_makes_the_music_that_its_cells_share(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(PLAN)
    gentle.cache_clear()
    threads = threading.active_count()
    cell.preload(Settings(dialplans=tmp_path), strict=True)
    assert gentle.cache_info().currsize == 1
    assert threading.active_count() == threads


@pytest.mark.parametrize("phone", [True, False])
def test_the_warm_parent_imports_the_doors_that_its_gateways_open(tmp_path: Path, phone: bool) -> None:
    (tmp_path / "acme.yaml").write_text(PLAN)
    program = (
        "import sys\nfrom pathlib import Path\nfrom sipserver.fleet import cell, gateway\n"
        "from sipserver.settings import Settings\n"
        f"cell.preload(Settings(dialplans=Path({str(tmp_path)!r}), http={{'phone': {phone}}}), strict=True)\n"
        "print('sipserver.doors' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[-1] == str(phone)
