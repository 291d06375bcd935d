"""Tags and names."""

from __future__ import annotations

import pytest

from sipserver.speech import languages


@pytest.mark.parametrize(("tag", "primary"), [("de-AT", "de"), ("de_CH", "de"), ("EN", "en"), ("auto", "auto")])
def test_primary(tag: str, primary: str) -> None:
    assert languages.primary(tag) == primary


@pytest.mark.parametrize(("name", "tag"), [("German", "de"), ("de", "de"), ("klingon", "klingon"), ("pt-BR", "pt")])
def test_names(name: str, tag: str) -> None:
    assert languages.of_name(name) == tag
