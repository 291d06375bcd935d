"""Kamailio as a registrar and proxy: phones and servers register at it with a password, and call each other through it.

A call to a registered user goes to where he registered; REGISTER and INVITE must answer a digest challenge. It runs in
a folder of its own on one port (UDP and TCP, TLS on another one if it is given a certificate), and can go away and come
back, as registrars do. Loop thread; use `running`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sipserver.edge import rpc
from tests.fakes.sip_peer import SipPeer
from tests.harness.server import free_port, free_sip_port

REALM = "registrar.test"
START_S = 10.0
STOP_S = 3.0

_CONFIG = """#!KAMAILIO
debug=0
log_stderror=yes
fork=yes
children=1
tcp_children=1
auto_aliases=no
dns=no
disable_core_dump=yes
max_while_loops=100
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
{tls_listen}
alias={realm}

loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "htable.so"
loadmodule "jsonrpcs.so"
{tls_module}

modparam("jsonrpcs", "transport", 4)
modparam("jsonrpcs", "dgram_socket", "{folder}/rpc")
modparam("usrloc", "db_mode", 0)
modparam("registrar", "max_expires", {max_expires})
modparam("registrar", "min_expires", {min_expires})
modparam("registrar", "default_expires", {max_expires})
modparam("auth", "secret", "a secret of the tests")
modparam("auth", "algorithm", "{algorithm}")
modparam("rr", "append_fromtag", 1)
modparam("htable", "htable", "users=>size=4")

request_route {{
	if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
	if (is_method("CANCEL")) {{
		if (t_check_trans()) t_relay();
		exit;
	}}
	if (has_totag()) {{
		if (loose_route() || is_method("ACK")) {{ t_relay(); exit; }}
		sl_send_reply("404", "Not Here");
		exit;
	}}
	t_check_trans();
	if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
	if (is_method("REGISTER")) {{
		if ($sht(users=>$au) == $null || !pv_www_authenticate("{realm}", "$sht(users=>$au)", "0")) {{
			www_challenge("{realm}", "1");
			exit;
		}}
		save("location");
		exit;
	}}
	if (!is_method("INVITE")) {{ sl_send_reply("405", "Method Not Allowed"); exit; }}
	if ($sht(users=>$au) == $null || !pv_proxy_authenticate("{realm}", "$sht(users=>$au)", "0")) {{
		proxy_challenge("{realm}", "1");
		exit;
	}}
	consume_credentials();
	record_route();
	if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
	t_relay();
}}

event_route[htable:mod-init] {{
{users}
}}
"""

_TLS_CONFIG = """[server:default]
method = TLSv1.2
verify_certificate = no
require_certificate = no
private_key = {key}
certificate = {certificate}

[client:default]
method = TLSv1.2
verify_certificate = no
require_certificate = no
"""


@dataclass(frozen=True, slots=True)
class Tls:
    certificate: Path
    key: Path


@dataclass
class Registrar:
    """users: their passwords. max_expires: longest registration that it grants; min_expires: 423 below it."""

    folder: Path
    users: Mapping[str, str]
    max_expires: int = 3600
    min_expires: int = 0
    algorithm: str = ""  # empty: MD5
    tls: Tls | None = None
    port: int = field(default_factory=free_sip_port)
    tls_port: int = field(default_factory=free_port)

    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port`, as settings write it."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when it answers. It has forgotten all registrations."""
        config = self.folder / "registrar.cfg"
        config.write_text(self._config())
        with (self.folder / "registrar.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it forks and returns
                ["kamailio", "-DD", "-f", config, "-m", "32", "-M", "4", "-w", self.folder, "-Y", self.folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        async with asyncio.timeout(START_S):
            while not await _answers(self.port):
                assert self._process.poll() is None, (self.folder / "registrar.log").read_text()
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """At once, as when the machine dies; all of its processes."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)

    async def contacts(self) -> dict[str, str]:
        """The address at which each user registered last."""
        answer = await rpc.ask(self.folder / "rpc", "ul.dump")
        entries = [entry["Info"] for domain in answer["Domains"] for entry in domain["Domain"]["AoRs"]]
        return {entry["AoR"]: entry["Contacts"][-1]["Contact"]["Address"] for entry in entries}

    async def forget(self, user: str) -> None:
        """Drop the user's registration, as if it had expired."""
        await rpc.ask(self.folder / "rpc", "ul.rm", "location", user)

    def _config(self) -> str:
        users = "\n".join(f'\t$sht(users=>{name}) = "{password}";' for name, password in self.users.items())
        tls_listen = tls_module = ""
        if self.tls is not None:
            text = _TLS_CONFIG.format(key=self.tls.key, certificate=self.tls.certificate)
            (self.folder / "tls.cfg").write_text(text)
            tls_listen = f"enable_tls=yes\nlisten=tls:127.0.0.1:{self.tls_port}"
            tls_module = f'loadmodule "tls.so"\nmodparam("tls", "config", "{self.folder}/tls.cfg")'
        return _CONFIG.format(
            port=self.port, realm=REALM, folder=self.folder, users=users, tls_listen=tls_listen, tls_module=tls_module,
            max_expires=self.max_expires, min_expires=self.min_expires, algorithm=self.algorithm,
        )  # fmt: skip


@asynccontextmanager
async def running(folder: Path, users: Mapping[str, str], **facts: Any) -> AsyncIterator[Registrar]:
    registrar = Registrar(folder, users, **facts)
    try:
        await registrar.start()
        yield registrar
    finally:
        await registrar.stop()


async def _answers(port: int) -> bool:
    async with SipPeer.open(port) as peer:
        peer.send(peer.call().request("OPTIONS"))
        try:
            await peer.receive(200, timeout_s=0.3)
        except TimeoutError:
            return False
    return True
