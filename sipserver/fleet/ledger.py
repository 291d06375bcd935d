"""Which processes of this machine live: one small file each in `fleet.runtime`, so that a supervisor that comes after a
dead one knows whom it inherits.

Owns the files. Refuses to know what becomes of the heirs. A process id alone would not do: it may belong to somebody
else by now, so the time of its start is compared too (proc(5), stat, field 22).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Life:
    """kind, name, run: as in ChildSpec. started: ticks since the machine's start, as the kernel counts."""

    run: str
    kind: str
    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return self.started != 0 and started(self.pid) == self.started


class Ledger:
    """All methods block on the disk for a moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> list[Life]:
        """Make the folder; what an earlier supervisor wrote and did not strike out."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lives = []
        for file in sorted(self._folder.glob("*.json")):
            try:
                lives.append(Life(**json.loads(file.read_text())))
            except (TypeError, ValueError):  # half a file: the machine stopped in the middle of it
                file.unlink()
        return lives

    def write(self, run: str, kind: str, name: str, pid: int) -> None:
        life = Life(run, kind, name, pid, started(pid))
        (self._folder / f"{run}.json").write_text(json.dumps(asdict(life)))

    def strike(self, run: str) -> None:
        """It is dead, and everybody who must know has been told."""
        (self._folder / f"{run}.json").unlink(missing_ok=True)


def started(pid: int) -> int:
    """0 if there is no such process, or only what is left of one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
