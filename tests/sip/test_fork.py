"""Cells forked from one parent that has imported everything: no two of them may name a thing alike."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

_CELLS = 4
_PARENT = """
import asyncio, json, os, sys
from sipserver.calls.ids import new_id
from sipserver.sip.cell import Cell
from sipserver.sip.settings import SipSettings
from tests.fakes.sip_peer import SipPeer, sdp

async def cell(number):
    legs = asyncio.Queue()
    first = 21_000 + number * 20
    cell = Cell(SipSettings(port=0, rtp_ports=(first, first + 19)), legs.put_nowait, goodbye_s=0.2)
    await cell.start()
    async with SipPeer.open(cell.sip_port) as peer:
        media = await peer.rtp()
        leg = await cell.dial(f"sip:a@127.0.0.1:{peer.port}")
        invite = await peer.receive("INVITE")
        peer.answer(invite, "200 OK", body=sdp(media.port))
        await leg.answered()
        packet = await media.receive()
    await cell.stop()
    return {"id": new_id(), "invite": invite, "rtp": [packet.ssrc, packet.sequence, packet.timestamp]}

told = []
for number in range(int(sys.argv[1])):
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.write(theirs, json.dumps(asyncio.run(cell(number))).encode())
        os._exit(0)
    os.close(theirs)
    told.append(os.fdopen(ours))
for pipe in told:
    print(pipe.read())
"""


def test_forked_cells_are_strangers_to_each_other() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _PARENT, str(_CELLS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    cells = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert len(cells) == _CELLS, told.stderr
    for pattern in (r"branch=(\S+)", r"From:.*;tag=(\S+)", r"Call-ID: (\S+)"):  # PJSIP draws them
        assert len({re.findall(pattern, cell["invite"])[0] for cell in cells}) == _CELLS, pattern
    assert len({cell["id"] for cell in cells}) == _CELLS
    assert len({cell["rtp"][0] for cell in cells}) == _CELLS
