"""Settings to files: nothing breaks out, Kamailio reads them, and the command line does it all."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sipserver.cli.main import main
from sipserver.edge import render
from sipserver.edge.cells import CellAddress, Entry, merge, parse
from sipserver.edge.cells import render as render_cells
from sipserver.edge.edge import Edge
from sipserver.edge.settings import EdgeSettings, Listen, RtpengineSettings, TlsSettings
from sipserver.errors import SettingsError
from sipserver.trunks.settings import DigestUser, TrunkLimits, TrunkSettings
from tests.harness.server import free_sip_port
from tests.servers.kamailio import edge_settings

LAB = TrunkSettings(name="lab", sources=("127.0.0.1/32",))
PHONES = TrunkSettings(name="phones", users=(DigestUser(name="bob", password_env="BOB"),))


def rendered(edge: EdgeSettings, *trunks: TrunkSettings, **passwords: str) -> str:
    texts = render.render(
        edge,
        trunks,
        ("PCMA", "PCMU"),
        places=render.Places(Path("/edge"), Path("/edge/rpc.sock")),
        secrets=render.Secrets("ab" * 16, "cd" * 16),
        passwords=passwords,
    )
    return "\n".join(texts.values())


@pytest.mark.parametrize(
    "edge",
    [
        EdgeSettings(inside='127.0.0.1"\nloadmodule "exec.so'),
        EdgeSettings(inside="127.0.0.1:5060"),
        EdgeSettings(listen=(Listen(transport="udp", host="127.0.0.1\nlisten=udp:0.0.0.0"),)),
        EdgeSettings(listen=(Listen(transport="udp", host="127.0.0.1", advertise='a" b'),)),
        EdgeSettings(listen=(Listen(transport="udp", host="127.0.0.1", advertise="host:port"),)),
        EdgeSettings(listen=(Listen(transport="tls", host="127.0.0.1"),)),
        EdgeSettings(
            listen=(Listen(transport="tls", host="127.0.0.1"),),
            tls=TlsSettings(certificate=Path("/a\nverify_certificate = no"), key=Path("/b")),
        ),
    ],
)
def test_no_setting_breaks_out(edge: EdgeSettings) -> None:
    with pytest.raises(SettingsError):
        rendered(edge, LAB)


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "a$var(b)", "a;b", "a#b", "ä", "a'b", "a\0b"])
def test_what_may_not_stand_in_a_string(text: str) -> None:
    for check in (render.quoted, render.word, render.path):
        with pytest.raises(SettingsError):
            check(text)


@pytest.mark.parametrize(
    ("advertise", "shown"),
    [
        ("203.0.113.7", "203.0.113.7:5060"),
        ("sip.example.org:5070", "sip.example.org:5070"),
        ("2001:db8::7", "[2001:db8::7]:5060"),
        ("[2001:db8::7]", "[2001:db8::7]:5060"),
        ("[2001:db8::7]:5070", "[2001:db8::7]:5070"),
    ],
)
def test_advertised_addresses(advertise: str, shown: str) -> None:
    edge = EdgeSettings(listen=(Listen(transport="udp", host="127.0.0.1", advertise=advertise),))
    assert f"advertise {shown} " in rendered(edge, LAB)


def test_passwords_leave_as_hashes_only() -> None:
    text = rendered(EdgeSettings(), LAB, PHONES, BOB='p"a$s')
    assert 'p"a$s' not in text
    assert hashlib.md5(b'bob:sipserver:p"a$s', usedforsecurity=False).hexdigest() in text
    with pytest.raises(SettingsError, match="BOB"):
        rendered(EdgeSettings(), PHONES)


def test_a_user_of_two_trunks_without_sources_is_refused() -> None:
    other = PHONES.model_copy(update={"name": "others"})
    with pytest.raises(SettingsError, match="bob"):
        rendered(EdgeSettings(), PHONES, other, BOB="x")


def test_the_list_keeps_names_and_what_left() -> None:
    one, two = CellAddress("10.0.0.1", 5100, 4), CellAddress("10.0.0.1", 5101, 4, run="r1")
    first = {entry.uri: entry for entry in merge([one, two], {}, lambda: "new")}
    assert [entry.name for entry in first.values()] == ["10.0.0.1:5100:new", "10.0.0.1:5101:r1"]
    assert list(merge([one, two], first, lambda: "other")) == list(first.values())

    dead = {**first, one.uri: Entry("10.0.0.1:5100:new", one.uri, 4, "inactive")}
    assert merge([one, two], dead, lambda: "other")[0] == dead[one.uri]

    left = {entry.uri: entry for entry in merge([two], first, lambda: "other")}
    assert left[one.uri].state == "disabled"
    back = {entry.uri: entry for entry in merge([one, two], left, lambda: "other")}
    assert back[one.uri] == Entry("10.0.0.1:5100:other", one.uri, 4)
    next_run = CellAddress("10.0.0.1", 5101, 4, run="r2")
    assert merge([next_run], first, lambda: "other")[0].name == "10.0.0.1:5101:r2"
    draining = CellAddress("10.0.0.1", 5101, 4, draining=True, run="r1")
    assert merge([draining], first, lambda: "other")[0] == Entry("10.0.0.1:5101:r1", two.uri, 4, "disabled")

    assert render_cells(left.values(), "udp:10.0.0.9:5059").splitlines()[1:] == [
        "1 sip:10.0.0.1:5101 8 2 duid=10.0.0.1:5101:r1;maxload=4;socket=udp:10.0.0.9:5059",
        "1 sip:10.0.0.1:5100 4 1 duid=10.0.0.1:5100:new;maxload=4;socket=udp:10.0.0.9:5059",
    ]


def test_cells_of_several_machines_come_in_turn() -> None:
    cells = [CellAddress(f"10.0.0.{machine}", 5100 + number, 4) for machine in (1, 2) for number in range(3)]
    more = CellAddress("fd00::3", 5100, 4)
    listed = [entry.uri for entry in merge([*cells, more], {}, lambda: "x")]
    assert listed == [
        "sip:10.0.0.1:5100",
        "sip:10.0.0.2:5100",
        "sip:[fd00::3]:5100",
        *(f"sip:10.0.0.{machine}:{port}" for port in (5101, 5102) for machine in (1, 2)),
    ]


def test_the_list_is_read_back() -> None:
    entries = merge(
        [CellAddress("10.0.0.1", 5100, 4), CellAddress("10.0.0.2", 5100, 2, draining=True)], {}, lambda: "x"
    )
    read = parse(render_cells(entries, "udp:10.0.0.9:5059"))
    assert [(entry.name, entry.uri, entry.calls) for entry in read] == [
        ("10.0.0.1:5100:x", "sip:10.0.0.1:5100", 4),
        ("10.0.0.2:5100:x", "sip:10.0.0.2:5100", 2),
    ]


@pytest.mark.peers
async def test_a_thousand_cells(tmp_path: Path) -> None:
    """More than Kamailio could tell about in full."""
    edge = Edge(edge_settings(tmp_path), (LAB,), ("PCMA",), {})
    many = [CellAddress(f"127.0.{n // 100 + 1}.1", 20_000 + n % 100, 4) for n in range(1000)]
    try:
        await edge.start(many)
        await edge.set_cells(many[:-1])
        states = (await edge.state()).cells
        assert len(states) == 1000
        assert [cell.state for cell in states if cell.uri == many[-1].uri] == ["disabled"]
    finally:
        await edge.stop()


@pytest.mark.parametrize(
    "facts", [{"host": "a;b"}, {"port": 0}, {"port": 70_000}, {"calls": -1}, {"run": "a b"}, {"run": "a;maxload=9"}]
)
def test_what_is_no_cell(facts: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        CellAddress(**{"host": "127.0.0.1", "port": 5100, "calls": 4, **facts})


# --- Kamailio reads them ----------------------------------------------------------------------------------------------

_ALL: dict[str, tuple[dict[str, Any], tuple[TrunkSettings, ...]]] = {
    "nothing": ({}, ()),
    "a trunk": ({}, (LAB,)),
    "users": ({"digest": "SHA-256"}, (LAB, PHONES)),
    "limits": ({}, (LAB.model_copy(update={"limits": TrunkLimits(calls_per_s=5)}),)),
    "open, in the open": ({"open": True, "topology_hiding": False}, ()),
    "one transport": ({"listen": (Listen(transport="udp", host="::1"),)}, (LAB,)),
    "calls out": (
        {
            "listen": (
                Listen(transport="udp", host="127.0.0.1"),
                Listen(transport="udp", host="::1", advertise="2001:db8::7"),
                Listen(transport="tcp", host="::1", port=5070),
            ),
            "rtpengine": RtpengineSettings(),
        },
        (
            TrunkSettings(name="name", host="sip.example.net", limits=TrunkLimits(calls_per_s=5)),
            TrunkSettings(name="four", host="192.0.2.1:5070", srtp="required", codecs=("opus",)),
            TrunkSettings(name="six", host="[2001:db8::1]", transport="tcp", srtp="off"),
            TrunkSettings(name="proxy", registrar="example.net", outbound_proxy="[2001:db8::1]:5062"),
        ),
    ),
    "calls out, in the open": ({"topology_hiding": False}, (TrunkSettings(name="out", host="192.0.2.1"),)),
    "the whole world": ({}, (TrunkSettings(name="all", sources=("0.0.0.0/0", "::/0")),)),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", _ALL)
async def test_kamailio_understands(tmp_path: Path, name: str) -> None:
    changes, trunks = _ALL[name]
    await Edge(EdgeSettings(folder=tmp_path, **changes), trunks, ("PCMA",), {"BOB": "x"}).check()


@pytest.mark.peers
async def test_a_mistake_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Edge(EdgeSettings(folder=tmp_path), (LAB,), ("PCMA",), {})
    texts = edge.render()
    line = texts[render.CONFIG].count("\n") + 1
    texts[render.CONFIG] += "nonsense here\n"
    monkeypatch.setattr(edge, "render", lambda: texts)
    with pytest.raises(SettingsError) as told:
        await edge.check()
    assert told.value.line == line
    assert str(told.value).startswith(f"{tmp_path}/kamailio.cfg:{line}: edge: Kamailio: ")


@pytest.mark.peers
async def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    nobody_has = Listen(transport="udp", host="203.0.113.250")
    with pytest.raises(SettingsError, match=r"203\.0\.113\.250"):
        await Edge(EdgeSettings(folder=tmp_path, listen=(nobody_has,)), (LAB,), ("PCMA",), {}).start()
    with pytest.raises(SettingsError, match="no-such-program"):
        await Edge(EdgeSettings(folder=tmp_path, program="no-such-program"), (LAB,), ("PCMA",), {}).start()


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def settings_file(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "sipserver.yaml"
    edge = {
        "folder": str(tmp_path / "edge"),
        "listen": [{"transport": "udp", "host": "127.0.0.1", "port": free_sip_port()}],
        "inside_port": free_sip_port(),
        "memory_mb": 64,
    }
    trunks = [{"name": "lab", "sources": ["127.0.0.1/32"]}]
    file.write_text(yaml.safe_dump({"edge": edge, "trunks": trunks}))
    yield file
    asyncio.run(_stopped(EdgeSettings(folder=tmp_path / "edge")))


async def _stopped(settings: EdgeSettings) -> None:
    edge = Edge(settings, (LAB,), (), {})
    await edge.adopt()
    await edge.stop()


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["edge", *words])
    return int(ended.value.code or 0)


@pytest.mark.peers
def test_the_command_line(settings_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ("--config", str(settings_file))
    assert _run("status", *config) == 1
    assert "no edge runs" in capsys.readouterr().err
    assert _run("reload", *config) == 1
    assert _run("check", *config) == 0
    assert capsys.readouterr().out.endswith("ok\n")
    assert _run("render", *config) == 0
    assert "kamailio.cfg" in capsys.readouterr().out

    assert _run("start", *config, "--cell", "127.0.0.1:5100:4") == 0
    assert "started, pid " in capsys.readouterr().out
    assert _run("start", *config) == 0
    assert "runs already" in capsys.readouterr().out
    assert _run("reload", *config, "--cell", "127.0.0.1:5100:4", "--cell", "127.0.0.1:5101:2") == 0
    assert "taken over" in capsys.readouterr().out
    assert _run("status", *config, "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert {(cell["uri"], cell["calls_at_most"]) for cell in state["cells"]} == {
        ("sip:127.0.0.1:5100", 4),
        ("sip:127.0.0.1:5101", 2),
    }
    assert _run("status", *config) == 0
    assert "takes calls" in capsys.readouterr().out

    changed = yaml.safe_load(settings_file.read_text())
    changed["trunks"][0]["name"] = "other"
    settings_file.write_text(yaml.safe_dump(changed))
    assert _run("reload", *config) == 0
    assert "started anew" in capsys.readouterr().out
    assert _run("start", *config, "--cell", "nonsense") == 2
