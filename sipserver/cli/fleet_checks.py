"""What `sipserver doctor` looks at when the settings describe a fleet: edge, Redis, database, the plan of cells.

Owns the same kind of judgement as `checks`; changes nothing. Blocks for up to seconds.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import uuid

from sipserver.bus import table
from sipserver.cli.checks import Finding, check_port, ok, problem, warning
from sipserver.edge.edge import Edge
from sipserver.errors import SettingsError, SipServerError
from sipserver.fleet import plan
from sipserver.settings import Settings
from sipserver.store.database import Database, DatabaseAway

PJSIP_CALLS = 4
"""What the PJSIP of PyPI holds; the supervisor asks the one that is linked."""
LONGEST_SOCKET = 107
KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM, "tls": socket.SOCK_STREAM}


def fleet(settings: Settings) -> list[Finding]:
    """Nothing for a single server."""
    if settings.mode != "fleet":
        return []
    return [*cells(settings), *edge(settings), bus(settings), database(settings)]


def cells(settings: Settings) -> list[Finding]:
    """Enough ports for the cells, and sockets whose names the kernel takes."""
    found = []
    try:
        made = plan.make(settings, PJSIP_CALLS, os.cpu_count() or 1)
    except SettingsError as wrong:
        found.append(problem("cells", wrong.reason, f"widen {wrong.key} or lower fleet.calls"))
    else:
        found.append(ok("cells", f"{made.cells} of {made.inbound_calls} calls, places for {len(made.slots)}"))
    longest = str(settings.fleet.runtime / "supervisor.sock")
    if len(longest.encode()) > LONGEST_SOCKET:
        found.append(problem("runtime folder", f"{longest} is too long for a socket", "shorten fleet.runtime"))
    return found


def edge(settings: Settings) -> list[Finding]:
    """Kamailio takes what is rendered from the settings, and its ports are free or its own."""
    wanted = settings.edge
    if not wanted.enabled:
        return [ok("edge", "another machine's")]
    if shutil.which(wanted.program) is None:
        return [problem("edge", f"{wanted.program} is not installed", "tools/setup fleet, or apt-get install kamailio")]
    if wanted.rtpengine is not None and shutil.which(wanted.rtpengine.program) is None:
        return [problem("edge", "rtpengine is not installed", "tools/setup fleet, or remove edge.rtpengine")]
    return asyncio.run(_edge(settings))


async def _edge(settings: Settings) -> list[Finding]:
    kamailio = Edge(settings.edge, settings.trunks, settings.sip.codecs)
    try:
        await kamailio.check()
        runs = await kamailio.adopt()
    except SipServerError as wrong:
        return [problem("edge", str(wrong), "correct edge or trunks in the settings")]
    finally:
        await kamailio.leave()
    found = [ok("edge", "its configuration is valid" + ("; it runs" if runs else ""))]
    if not runs:
        found += [
            check_port(f"edge {socket_.transport}", socket_.host, socket_.port, KINDS[socket_.transport], "edge.listen")
            for socket_ in settings.edge.listen
        ]
    if settings.edge.open:
        found.append(warning("trunks", "edge.open lets everybody call", "name trunks and set edge.open: false"))
    elif not settings.trunks:
        found.append(problem("trunks", "there is none: every call is refused", "name who may call under trunks"))
    return found


def bus(settings: Settings) -> Finding:
    """Redis answers."""
    return asyncio.run(_bus(settings))


async def _bus(settings: Settings) -> Finding:
    redis = table.make(settings.bus, node="doctor", run=uuid.uuid4().hex)
    try:
        await redis.open()
        up = redis.up
        await redis.close()
    except SettingsError as wrong:
        return problem("Redis", str(wrong), "correct bus in the settings")
    if up:
        return ok("Redis", "answers")
    return problem("Redis", "does not answer", "start it, or correct bus.url: the fleet's processes need it to start")


def database(settings: Settings) -> Finding:
    """The database answers; its tables are made at the first start."""
    return asyncio.run(_database(settings))


async def _database(settings: Settings) -> Finding:
    try:
        opened = Database(settings.store)
        version = await opened.version()
        await opened.close()
    except DatabaseAway as away:
        return warning("database", str(away), "start it; until then records wait on disk")
    except SettingsError as wrong:
        return problem("database", str(wrong), "correct store in the settings")
    return ok("database", f"answers, tables of version {version}" if version else "answers, without tables yet")
