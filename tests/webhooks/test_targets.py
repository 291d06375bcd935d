"""Where webhooks may go."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from sipserver.errors import CallerError
from sipserver.webhooks.targets import CheckedResolver, Forbidden, Kind, Targets, kind

GLOBAL = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.2.1", "198.18.0.1"),
    *("::1", "fc00::1", "fd12:3456::1", "2001:db8::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "3fff::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::1", "2002:a00:1::"),
    "192.88.99.1",
]
FORBIDDEN = [
    *("0.0.0.0", "169.254.169.254", "224.0.0.1", "239.1.1.1", "224.0.1.1", "240.0.0.1", "255.255.255.255"),
    *("::", "fe80::1", "fe80::1%eth0", "ff02::1", "ff0e::1", "fec0::1", "::7f00:1", "64:ff9b:1::7f00:1", "100::1"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::ffff:0.0.0.0", "127.1", "nonsense", ""),
]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *((address, Kind.GLOBAL) for address in GLOBAL),
        *((address, Kind.PRIVATE) for address in PRIVATE),
        *((address, Kind.FORBIDDEN) for address in FORBIDDEN),
    ],
)
def test_kinds_of_addresses(address: str, expected: Kind) -> None:
    assert kind(address) is expected


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/in",
        "https://hooks.example.com:8443/in?token=x",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]:444/",
        "https://hooks.7up.example/",
    ],
)
def test_good_urls(url: str) -> None:
    Targets(allow_private=False).check(url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://hooks.example.com/", "ftp://hooks.example.com/", "//hooks.example.com/", "hooks.example.com", ""),
        *("https://user:secret@hooks.example.com/", "https://user@hooks.example.com/", "https:///in", "https://a:0/"),
        *("https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://10.0.0.1:8443/"),
        *("https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.0.0.1./"),
        *("https://a:99999/", "https://[::1/", f"https://hooks.example.com/{'x' * 2048}"),
        "https://\uff11\uff12\uff17.0.0.1/",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(CallerError):
        Targets(allow_private=False).check(url)


def test_private_targets_need_the_setting_and_may_then_be_reached_by_http() -> None:
    allowed = Targets(allow_private=True)
    for url in ("http://10.0.0.1:8000/in", "https://127.0.0.1/", "http://crm.internal/", "https://hooks.example.com/"):
        allowed.check(url)
    for url in ("http://93.184.216.34/", "http://169.254.169.254/latest", "https://user:x@10.0.0.1/"):
        with pytest.raises(CallerError):
            allowed.check(url)
    assert not allowed.permits("http", "8.8.8.8"), "what leaves the house is encrypted"


class Lookup(AbstractResolver):
    """Every name has these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        self.closed = True


async def test_a_connection_gets_only_addresses_that_were_checked() -> None:
    lookup = Lookup("10.0.0.1", "8.8.8.8", "169.254.169.254")
    resolver = CheckedResolver(lookup, Targets(allow_private=False), "https")
    assert [each["host"] for each in await resolver.resolve("mixed.example", 443)] == ["8.8.8.8"]
    lookup.addresses = ("10.0.0.1", "::1")
    with pytest.raises(Forbidden):
        await resolver.resolve("inside.example", 443)
    await resolver.close()
    assert lookup.closed
