"""Ports made through ctypes: taken only when the library's own port has the layout that they assume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from sipserver.sip import native, native_port
from tests.fakes.sip_rig import running


async def usable() -> bool:
    async with running() as rig:
        thread = rig.cell._thread
        assert thread is not None
        return await thread.submit(native_port.usable)


async def test_the_linked_library_fits() -> None:
    assert await usable()


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("pjmedia_null_port_create", lambda *_: 70_004),
        ("pjmedia_port_get_frame", lambda *_: 70_004),
        ("pjmedia_port_put_frame", lambda *_: 0),
    ],
)
async def test_a_port_of_another_shape_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., int]
) -> None:
    real = native.function

    def function(wanted: str) -> Any | None:
        return broken if wanted == name else real(wanted)

    monkeypatch.setattr(native, "function", function)
    with capture_logs() as logs:
        assert not await usable()
    assert any("is not as expected" in entry["event"] for entry in logs)
