"""A real rtpengine on free ports, and a small Kamailio that uses it by the real `media.cfg.j2`.

The Kamailio here has no rule of the edge (no ACL, no dispatcher): it passes calls to the first cell and, after a 503,
to the next. So what is tested with it is the relay alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import jinja2

from sipserver.edge.media import media_routes
from sipserver.edge.rtpengine import config_file, log_file, render
from sipserver.edge.settings import EdgeSettings, RtpengineSettings
from sipserver.trunks.settings import TrunkSettings
from tests.harness.server import ROOT, free_port, free_range, free_sip_port

READY_S = 10

_KAMAILIO = """#!KAMAILIO
debug=2
log_stderror=yes
fork=yes
children=2
disable_tcp=yes
auto_aliases=no
shm_force_alloc=no
{% for host in ("127.0.0.1", "[::1]") %}listen=udp:{{ host }}:{{ port }}
{% endfor -%}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "sdpops.so"
modparam("rr", "enable_full_lr", 1)
modparam("rr", "append_fromtag", 1)
modparam("tm", "fr_timer", 2000)
{% include "media.cfg.j2" %}
request_route {
	if (has_totag()) {
		if (!loose_route()) {
			if (is_method("ACK") && t_check_trans()) t_relay();
			exit;
		}
		$var(inside) = 0;
		if (is_direction("upstream")) $var(inside) = 1;
		if (is_method("INVITE|UPDATE")) {
			route(MEDIA_OFFER);
			if ($rc < 0) {
				send_reply("$var(media_code)", "$var(media_reason)");
				exit;
			}
			t_on_reply("ANSWERED");
		}
		if (is_method("ACK")) route(MEDIA_ANSWER);
		if (is_method("BYE")) route(MEDIA_DELETE);
		t_relay();
		exit;
	}
	if (is_method("CANCEL")) {
		route(MEDIA_DELETE);
		if (t_check_trans()) t_relay();
		exit;
	}
	if (!is_method("INVITE")) exit;
	t_check_trans();
	record_route();
	$var(inside) = 0;
	$avp(trunk) = "{{ trunk }}";
	route(MEDIA_OFFER);
	if ($rc < 0) {
		send_reply("$var(media_code)", "$var(media_reason)");
		exit;
	}
	t_on_reply("ANSWERED");
	t_on_failure("NEXT");
	$du = "sip:127.0.0.1:{{ cells[0] }}";
	t_relay();
}
onreply_route[ANSWERED] {
	route(MEDIA_ANSWER);
}
failure_route[NEXT] {
	if (t_is_canceled()) exit;
{%- if cells | length > 1 %}
	if (t_check_status("503") && $du != "sip:127.0.0.1:{{ cells[1] }}") {
		$du = "sip:127.0.0.1:{{ cells[1] }}";
		t_on_reply("ANSWERED");
		t_on_failure("NEXT");
		t_relay();
		exit;
	}
{%- endif %}
	route(MEDIA_DELETE);
}
"""


def relay_settings(**changes: object) -> RtpengineSettings:
    """On free ports; outside on both families of loopback."""
    first, last = free_range(400)
    return RtpengineSettings.model_validate(
        {
            "control": f"127.0.0.1:{free_port()}",
            "interfaces": ("outside/127.0.0.1", "outside/::1", "inside/127.0.0.1"),
            "ports": (first, last),
            **changes,
        }
    )


class RtpengineServer:
    """rtpengine by its rendered file, as a child of the test. Use as a context manager."""

    def __init__(self, folder: Path, settings: RtpengineSettings) -> None:
        self.folder, self.settings = folder, settings

    def __enter__(self) -> RtpengineServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        config_file(self.folder).write_text(render(self.settings, self.folder))
        with log_file(self.folder).open("ab") as log:
            self.process = subprocess.Popen(
                [self.settings.program, f"--config-file={config_file(self.folder)}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        host, _, port = self.settings.control.rpartition(":")
        _wait(
            lambda: _answers(host, int(port), uuid.uuid4().hex.encode() + b" d7:command4:pinge", b"pong"),
            self.process,
            log_file(self.folder),
        )
        return self

    def cpu_s(self) -> float:
        """User and system CPU seconds of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)


class MiniKamailio:
    """Kamailio with the media routes and nothing else. cells: SIP ports on 127.0.0.1. port: its own, UDP."""

    def __init__(
        self,
        folder: Path,
        cells: Sequence[int],
        relay: RtpengineSettings | None,
        trunk: TrunkSettings,
        cell_codecs: Sequence[str] = ("G722", "PCMA", "PCMU"),
    ) -> None:
        self.folder, self.port = folder, free_sip_port()
        self.log = folder / "kamailio.log"
        loader = jinja2.ChoiceLoader(
            [jinja2.DictLoader({"kamailio.cfg": _KAMAILIO}), jinja2.FileSystemLoader(ROOT / "etc/kamailio")]
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "kamailio.cfg"
        self.file.write_text(
            jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
            .get_template("kamailio.cfg")
            .render(
                media=media_routes(EdgeSettings(rtpengine=relay), (trunk,), cell_codecs),
                port=self.port,
                cells=cells,
                trunk=trunk.name,
                codecs=(trunk,),
            )
        )

    def __enter__(self) -> MiniKamailio:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["kamailio", "-DD", "-f", str(self.file), "-Y", str(self.folder), "-m", "32", "-M", "4"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        _wait(lambda: _bound(self.port), self.process, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _wait(ready: object, process: subprocess.Popen[bytes], log: Path) -> None:
    assert callable(ready)
    deadline = time.monotonic() + READY_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.02)


def _answers(host: str, port: int, question: bytes, answer: bytes) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.settimeout(0.2)
        endpoint.connect((host, port))
        try:
            endpoint.send(question)
            return answer in endpoint.recv(4096)
        except OSError:
            return False


def _bound(port: int) -> bool:
    """Somebody has bound this UDP port (proc(5), net/udp). To try to bind it would keep Kamailio from doing so."""
    rows = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(int(row.split()[1].rpartition(":")[2], 16) == port for row in rows)
