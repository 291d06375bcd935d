"""The media clock goes before other work of the machine, if the system permits it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

MEDIA_NICE = -11
"""Between interactive work and the kernel's own threads, as audio servers choose it."""


def raise_priority() -> bool:
    """Of the calling thread alone: setpriority(2) takes thread ids on Linux. Needs CAP_SYS_NICE or RLIMIT_NICE.

    True when it was permitted. Without it a call hears what the scheduler's fairness leaves: that does on a machine
    that is not overloaded.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), MEDIA_NICE)
        return True
    return False
