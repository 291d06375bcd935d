"""How a tenant wants to be shown: `tenants.NAME.branding` in the settings. Refuses to know pages."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

MOST_NAME, MOST_URL, MOST_EMAIL = 80, 2_048, 254
MOST_LOGO = 64 * 1024
"""Letters of a logo that is given as it is: it travels with every answer that has it."""
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,")
_EMAIL = re.compile(r"[^@\s<>\"]+@[^@\s<>\"]+\.[^@\s<>\".]+")


class BrandingSettings(BaseModel):
    """Empty: there is none. logo_url: https, or `data:image/...;base64,` (PNG, JPEG, GIF, WebP, SVG) of at most
    MOST_LOGO letters. accent_colour: `#rrggbb`. support_url: https.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    display_name: str = Field(default="", max_length=MOST_NAME)
    logo_url: str = ""
    accent_colour: str = ""
    support_url: str = ""
    support_email: str = Field(default="", max_length=MOST_EMAIL)

    @field_validator("display_name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError("one line of printable letters, without blanks around it")
        return name

    @field_validator("logo_url")
    @classmethod
    def _logo(cls, url: str) -> str:
        if not url.startswith("data:"):
            return _https(url)
        if len(url) > MOST_LOGO:
            raise ValueError(
                f"a `data:` image has at most {MOST_LOGO} letters, this one {len(url)}; give an https address"
            )
        head = _IMAGE.match(url)
        try:
            payload = b"" if head is None else base64.b64decode(url[head.end() :], validate=True)
        except binascii.Error:
            payload = b""
        if not payload:
            raise ValueError("a `data:` image is `data:image/png;base64,...` (or jpeg, gif, webp, svg+xml)")
        return url

    @field_validator("accent_colour")
    @classmethod
    def _colour(cls, colour: str) -> str:
        if colour and not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
            raise ValueError("a colour is `#rrggbb`, in quotes: without them YAML takes it for a comment")
        return colour.lower()

    @field_validator("support_url")
    @classmethod
    def _page(cls, url: str) -> str:
        return _https(url)

    @field_validator("support_email")
    @classmethod
    def _address(cls, address: str) -> str:
        if address and not (_EMAIL.fullmatch(address) and address.isprintable()):
            raise ValueError("this is no e-mail address such as help@example.com")
        return address


def _https(url: str) -> str:
    """As it is. Raises ValueError for what browsers should not be sent to: no https, a user in it, control letters."""
    if not url:
        return url
    if len(url) > MOST_URL:
        raise ValueError(f"an address has at most {MOST_URL} letters")
    try:
        parts = urlsplit(url)
        right = parts.scheme == "https" and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        right = False
    if not right or not url.isprintable() or set(url) & set(' "<>\\^`{|}'):
        raise ValueError("an address is `https://HOST/...`, without a user in it")
    return url
