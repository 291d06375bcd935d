"""Which socket a trunk's requests leave by, and what peers see of it."""

from __future__ import annotations

import pytest

from sipserver.edge import outside, ways
from sipserver.edge.settings import EdgeSettings, Listen
from sipserver.errors import SettingsError
from sipserver.trunks.settings import TrunkSettings
from tests.edge.test_render import rendered

EDGE = EdgeSettings(
    inside="10.0.0.5",
    listen=(
        Listen(transport="udp", host="2001:db8::7"),
        Listen(transport="udp", host="10.1.0.7", advertise="203.0.113.7"),
        Listen(transport="udp", host="10.1.0.8"),
        Listen(transport="tcp", host="10.1.0.7", port=5070, advertise="sip.example.org:5080"),
    ),
)


def trunk(**facts: object) -> TrunkSettings:
    return TrunkSettings.model_validate({"name": "carrier", "host": "192.0.2.1", **facts})


@pytest.mark.parametrize(
    ("facts", "contact"),
    [
        ({}, "203.0.113.7:5060"),
        ({"host": "sip.carrier.example:5070"}, "203.0.113.7:5060"),
        ({"host": "[2001:db8::1]"}, "[2001:db8::7]:5060"),
        ({"host": "[2001:db8::1]:5070"}, "[2001:db8::7]:5060"),
        ({"outbound_proxy": "[2001:db8::1]:5070"}, "[2001:db8::7]:5060"),
        ({"transport": "tcp"}, "sip.example.org:5080"),
        ({"host": "", "registrar": "192.0.2.1"}, "203.0.113.7:5060"),
    ],
)
def test_contacts(facts: dict[str, object], contact: str) -> None:
    assert outside.contact(EDGE, trunk(**facts)) == contact


def test_cells_reach_the_edge_inside() -> None:
    assert outside.route(EDGE) == "<sip:10.0.0.5:5059;lr>"
    assert outside.route(EdgeSettings(inside="fd00::5", inside_port=5070)) == "<sip:[fd00::5]:5070;lr>"


@pytest.mark.parametrize("facts", [{"transport": "tls"}, {"transport": "tcp", "host": "[2001:db8::1]"}])
def test_a_trunk_without_a_socket_is_told_when_the_edge_is_configured(facts: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"trunks\.carrier\.transport.*edge\.listen has no such socket"):
        rendered(EDGE, trunk(**facts))


def test_srtp_needs_the_relay() -> None:
    with pytest.raises(SettingsError, match=r"edge\.rtpengine"):
        rendered(EDGE, trunk(srtp="required"))
    assert "carrier" in rendered(EDGE, trunk(srtp="offered"))


@pytest.mark.parametrize("port", ["1:2:x", "host:99999", "host:0"])
def test_what_cannot_be_advertised(port: str) -> None:
    with pytest.raises(SettingsError):
        outside.advertised(Listen(transport="udp", host="127.0.0.1", advertise=port))


def test_no_trunk_breaks_out() -> None:
    text = rendered(EDGE, trunk(outbound_proxy="proxy.example:5070"))
    assert '$var(host) = "proxy.example"' in text
    assert ways.certificate_names("a.b")[0].isalnum()
