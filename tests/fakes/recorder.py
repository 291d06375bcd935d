"""A recorder whose disk takes no time: for tests in virtual time, which does not wait for a thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sipserver.calls.recording import Recorder, Recording


class InstantRecorder(Recorder):
    """full_disk: nothing can be written any more."""

    full_disk = False

    def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def start(self, path: Path, *, tenant: str, stereo: bool = True, on_failure: Callable[[str], None]) -> Recording:
        recording = Recording(self, path, tenant, stereo, on_failure)
        recording.open()
        return recording

    def put(self, work: Any) -> None:
        if not hasattr(work, "left"):
            work.recording.close()
        elif self.full_disk:
            work.recording._fail(OSError(28, "No space left on device"))
        else:
            work.recording.write(work)
