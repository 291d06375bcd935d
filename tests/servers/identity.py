"""A real OpenID provider, oidc-provider under Node, and a person's way through its pages."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp

FOLDER = Path(__file__).parents[1] / "identity"
SECRET = "a secret: with signs / that need + escaping"
_FORM = re.compile(r'action="([^"]+)"')


class IdentityProvider:
    """redirect: the one URI that it leads back to. people: id -> claims. conform: claims of scopes are told at UserInfo
    alone. `start` blocks until it listens.
    """

    def __init__(self, redirect: str, people: dict[str, dict[str, Any]], *, conform: bool = False) -> None:
        given = {"redirect": redirect, "secret": SECRET, "people": people, "conform": conform}
        self._words = ["node", str(FOLDER / "provider.mjs"), json.dumps(given)]
        self._process: subprocess.Popen[str] | None = None
        self.issuer = ""

    def start(self) -> IdentityProvider:
        self._process = subprocess.Popen(
            self._words, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        port = next((line for line in self._process.stdout if line.strip().isdigit()), "")
        assert port, "the OpenID provider did not start: make setup-test installs it"
        self.issuer = f"http://127.0.0.1:{port.strip()}"
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def rotate(self) -> None:
        """It signs with a new key from now on, and publishes that alone."""
        request = urllib.request.Request(f"{self.issuer}/rotate", method="POST")
        urllib.request.urlopen(request, timeout=10).close()


async def through(browser: aiohttp.ClientSession, url: str, person: str, *, until: str) -> str:
    """From the provider's first page to where it leads back to, as a person who logs in and agrees. until: how that
    begins.
    """
    for _ in range(20):
        if url.startswith(until):
            return url
        async with browser.get(url, allow_redirects=False) as answer:
            page, lead = await answer.text(), answer.headers.get("Location")
        if lead is None:
            prompt = "login" if 'name="login"' in page else "consent"
            form = {"prompt": prompt, "login": person, "password": "any"}
            found = _FORM.search(page)
            assert found is not None, page
            async with browser.post(urljoin(url, found[1]), data=form, allow_redirects=False) as answer:
                lead = answer.headers["Location"]
        url = urljoin(url, lead)
    raise AssertionError(f"the provider leads in circles: {url}")
