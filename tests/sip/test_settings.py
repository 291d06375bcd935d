from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sipserver.sip.settings import SipSettings


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"rtp_ports": (20_000, 10_000)}, "lower one first"),
        ({"rtp_ports": (80, 10_000)}, "1024"),
        ({"rtp_ports": (10_000, 70_000)}, "65535"),
        ({"allow": ("10.0.0.0/8", "300.1.1.1")}, "300.1.1.1"),
        ({"allow": ("10.0.0.1/8",)}, "10.0.0.1/8"),
        ({"codecs": ()}, "at least 1"),
        ({"codecs": ("speex",)}, "PCMA"),
        ({"session_expires_s": 100, "min_session_expires_s": 200}, "min_session_expires_s"),
        ({"user": "a b"}, "pattern"),
        ({"prot": 1}, "not permitted"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        SipSettings(**values)


def test_networks_and_single_addresses_are_allowed() -> None:
    assert SipSettings(allow=("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")).allow[1] == "192.0.2.1"
