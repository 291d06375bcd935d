"""How fast transfers are: REFER to its 202, and the target's 200 to sound between caller and target.

One server, far ends of our own on UDP. A target "hears the caller" with the first RTP packet that has its tone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.party import Party, parties_at, tones_in
from tests.harness.server import ServerProcess
from tools.bench.report import Row, spread

TIMES = 30
PLAN = """
tenant: bench
targets: ["callee@*"]
flows:
  attended:
    - answer
    - transfer: {{to: "sip:callee@127.0.0.1:{port}", mode: attended, on: {{failed: end}}}}
  echo: [answer, echo]
routes:
  - match: {{to: attended}}
    flow: attended
  - match: {{to: echo}}
    flow: echo
"""
TRUNKS = [{"name": "pbx", "sources": ["127.0.0.1/32"], "refer_to": ["callee"]}]


async def connected_ms(server: ServerProcess, caller: Party, callee: Party) -> float:
    """From the target's 200 to the first packet with the caller's tone."""
    call = await caller.dials("attended", "Allow: INVITE, ACK, CANCEL, BYE\r\n")
    await callee.is_called()
    callee.media.pending()
    callee.peer.answer(callee.invite, "200 OK", body=callee.sdp, tag="callee")
    began = time.perf_counter()
    while "caller" not in tones_in([(await callee.media.receive()).payload] * 10):
        pass
    took = (time.perf_counter() - began) * 1000
    await callee.peer.receive("ACK")
    callee.peer.send(callee.request("BYE"))
    await callee.peer.receive(200)
    caller.peer.answer(await caller.peer.receive("BYE"), "200 OK")
    await caller.silence()
    del call
    return took


async def accepted_ms(caller: Party, callee: Party) -> float:
    """From a REFER to the server to its 202."""
    call = await caller.dials("echo")
    refer = call.request("REFER", headers=f"Refer-To: <sip:callee@127.0.0.1:{callee.peer.port}>\r\n")
    began = time.perf_counter()
    caller.peer.send(refer)
    await caller.peer.receive(202)
    took = (time.perf_counter() - began) * 1000
    callee.peer.answer(await callee.is_called(), "486 Busy Here")
    await caller.peer.receive("NOTIFY")
    await call.transact("BYE")
    await caller.silence()
    return took


async def _measure(folder: Path) -> tuple[list[float], list[float]]:
    async with parties_at(0, "caller", "callee") as (caller, callee):
        plan = {"bench.yaml": PLAN.format(port=callee.peer.port)}
        with ServerProcess(folder, plan, {"trunks": TRUNKS}) as server:
            for party in (caller, callee):
                party.peer.server_port = server.sip_port
            connected = [await connected_ms(server, caller, callee) for _ in range(TIMES)]
            accepted = [await accepted_ms(caller, callee) for _ in range(TIMES)]
    return connected, accepted


def measure(folder: Path) -> Sequence[Row]:
    connected, accepted = asyncio.run(_measure(folder))
    return [
        Row(
            "Attended transfer: target's 200 to the caller's sound there",
            spread(connected, digits=1),
            "<= 60 ms",
            f"{TIMES} transfers; packets are 20 ms apart",
        ),
        Row("Blind transfer: REFER to 202", spread(accepted, digits=1), "<= 30 ms", f"{TIMES} transfers"),
    ]
