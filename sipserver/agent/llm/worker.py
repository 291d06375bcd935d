"""The process that serves a GGUF file by llama.cpp on loopback: `python -m sipserver.agent.llm.worker`.

Owns one xllamacpp server on a free port of 127.0.0.1, and the end of its own life: it dies when the pipe on its
standard input closes, which happens however the parent ends, and (Linux) by PR_SET_PDEATHSIG. Says where it listens as
one line of JSON on standard output. The key that it demands comes in the environment: no other user can ask it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence

KEY_VARIABLE = "SIPSERVER_LLM_KEY"
_PR_SET_PDEATHSIG = 1
_CACHE_MIB = 512
"""Prompts kept in memory beside the slots: the system prompts of the agents."""
_NICE = 10
"""Words may wait for sound: the media clock, Whisper and the voice share the cores with the model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    options = parser.parse_args(arguments)
    _die_with_parent()
    address = serve(options.model, options.threads, options.context, options.slots)
    sys.stdout.write(json.dumps({"url": address}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # the native server has no other way to stop its threads at once


def serve(model: str, threads: int, context: int, slots: int) -> str:
    """Start the server; returns its address when it answers. Raises RuntimeError if the model cannot be loaded."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [os.environ[KEY_VARIABLE]]
    parameters.n_ctx = context * slots
    parameters.n_parallel = slots
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.cache_ram_mib = _CACHE_MIB
    parameters.verbosity = 0
    _keep[model] = server = xllamacpp.Server(parameters)
    return str(server.listening_address)


_keep: dict[str, object] = {}
"""The server stops when it is collected."""


def _die_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    os.nice(_NICE)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
