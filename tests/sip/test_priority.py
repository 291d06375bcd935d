from __future__ import annotations

import os
import threading

from sipserver.sip.priority import MEDIA_NICE, raise_priority


def test_one_thread_goes_first_where_that_is_permitted() -> None:
    seen: list[tuple[bool, int]] = []

    def media() -> None:
        before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        raised = raise_priority()
        after = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        seen.append((raised, after if raised else after - before))

    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=media)
    thread.start()
    thread.join()
    assert seen[0] in ((True, MEDIA_NICE), (False, 0))
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours
