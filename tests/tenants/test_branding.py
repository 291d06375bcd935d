"""How a tenant is shown: what is taken, and what is said about the rest."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sipserver import settings
from sipserver.errors import SettingsError
from sipserver.tenants.branding import MOST_LOGO, BrandingSettings

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("display_name", "Müller & Söhne"),
        ("logo_url", "https://acme.example/logo.svg?v=2"),
        ("logo_url", PIXEL),
        ("logo_url", PIXEL.replace("image/png", "image/svg+xml")),
        ("accent_colour", "#0a7cff"),
        ("support_url", "https://help.acme.example:8443/"),
        ("support_email", "help+us@acme.example"),
    ],
)
def test_what_is_taken(key: str, value: str) -> None:
    assert getattr(BrandingSettings(**{key: value}), key) == value
    assert getattr(BrandingSettings(), key) == ""


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("display_name", "a\nb", "one line"),
        ("display_name", " a", "one line"),
        ("display_name", "x" * 81, "at most 80"),
        ("logo_url", "http://acme.example/logo.png", "https://HOST"),
        ("logo_url", "javascript:alert(1)", "https://HOST"),
        ("logo_url", "https://user:secret@acme.example/", "without a user"),
        ("logo_url", "https:///logo.png", "https://HOST"),
        ("logo_url", 'https://acme.example/"onload=', "https://HOST"),
        ("logo_url", "https://[::1/logo.png", "https://HOST"),
        ("logo_url", "https://acme.example:99999/", "https://HOST"),
        ("logo_url", "https://acme.example/" + "x" * 2048, "at most 2048"),
        ("logo_url", "data:text/html;base64,PGI+", "data:image/png"),
        ("logo_url", "data:image/png,raw", "data:image/png"),
        ("logo_url", "data:image/png;base64,", "data:image/png"),
        ("logo_url", "data:image/png;base64,!!!!", "data:image/png"),
        ("logo_url", PIXEL + "A" * MOST_LOGO, f"at most {MOST_LOGO} letters"),
        ("accent_colour", "blue", "#rrggbb"),
        ("accent_colour", "#fff", "#rrggbb"),
        ("accent_colour", "#0a7cff\n", "#rrggbb"),
        ("support_url", "mailto:help@acme.example", "https://HOST"),
        ("support_email", "help", "no e-mail address"),
        ("support_email", "a b@acme.example", "no e-mail address"),
        ("support_email", "a@b@acme.example", "no e-mail address"),
        ("slogan", "x", "Extra inputs"),
    ],
)
def test_what_is_refused_and_why(key: str, value: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason.replace("#", r"\#")):
        BrandingSettings(**{key: value})


def test_the_settings_name_key_and_line(tmp_path: Path) -> None:
    file = tmp_path / "sipserver.yaml"
    file.write_text("tenants:\n  acme:\n    branding:\n      display_name: Acme\n      accent_colour: red\n")
    with pytest.raises(SettingsError) as found:
        settings.load(file)
    assert (found.value.line, found.value.key) == (5, "tenants.acme.branding.accent_colour")
    assert "#rrggbb" in found.value.reason
