"""Tokens, addresses and our own address, read off a request."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Request

from sipserver.gate.requests import address_of, public_url, token_of
from sipserver.gate.settings import GateSettings


def asked(path: str = "/ws", remote: str = "203.0.113.9", **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", path, headers={"Host": "10.0.0.1:8080", **names}).clone(remote=remote)


@pytest.mark.parametrize(
    "request_",
    [
        asked(Authorization="Bearer a.b.c"),
        asked(Authorization="bearer  a.b.c "),
        asked(Sec_WebSocket_Protocol="voice, token.a.b.c"),
        asked("/ws?token=a.b.c"),
        asked("/ws?token=other", Authorization="Bearer a.b.c"),
    ],
)
def test_a_token_comes_in_three_ways(request_: Request) -> None:
    assert token_of(request_) == "a.b.c"


@pytest.mark.parametrize("request_", [asked(), asked(Authorization="Basic YTpi"), asked(Sec_WebSocket_Protocol="x")])
def test_no_token(request_: Request) -> None:
    assert token_of(request_) == ""


def test_only_a_proxy_on_this_machine_says_who_asks() -> None:
    assert address_of(asked(X_Forwarded_For="198.51.100.1")) == "203.0.113.9"
    assert address_of(asked(remote="127.0.0.1", X_Forwarded_For="198.51.100.1")) == "198.51.100.1"
    assert address_of(asked(remote="::1", X_Forwarded_For="made up, 198.51.100.1")) == "198.51.100.1"
    assert address_of(asked(remote="127.0.0.1", X_Forwarded_For=" ")) == "127.0.0.1"
    assert address_of(asked(remote="127.0.0.1")) == "127.0.0.1"


def test_how_we_are_reached() -> None:
    settings = GateSettings()
    assert public_url(asked(), settings) == "http://10.0.0.1:8080"
    assert public_url(asked(), settings, websocket=True) == "ws://10.0.0.1:8080"
    assert public_url(asked(X_Forwarded_Proto="https"), settings) == "http://10.0.0.1:8080"
    proxied = asked(remote="127.0.0.1", X_Forwarded_Proto="https")
    assert public_url(proxied, settings) == "https://10.0.0.1:8080"
    assert public_url(proxied, settings, websocket=True) == "wss://10.0.0.1:8080"


def test_what_the_operator_says_counts() -> None:
    settings = GateSettings(public_url="https://voice.example.com")
    assert public_url(asked(), settings) == "https://voice.example.com"
    assert public_url(asked(), settings, websocket=True) == "wss://voice.example.com"
