"""Stands in for the worker process: `python -m tests.fakes.llm_worker MODE`, with the real protocol on its pipes.

serve: says where it listens and waits for the end of its input. dies: ends at once. hangs: says nothing, hears nothing.
"""

from __future__ import annotations

import json
import signal
import sys
import time

mode = sys.argv[1]
if mode == "serve":
    sys.stdout.write(json.dumps({"url": "http://127.0.0.1:9"}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
elif mode == "hangs":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)
