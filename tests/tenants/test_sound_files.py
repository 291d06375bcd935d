"""Names of files of sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.tenants import sound_files

CALL = "01a224d2-6772-7d61-9c91-a3dd7a2e5a49"


@pytest.mark.parametrize("sealed", ["", ".enc"])
def test_the_recordings_of_a_call_by_their_numbers(sealed: str) -> None:
    last = Path(f"/recordings/acme/2026-11-29/{CALL}-12.wav{sealed}")
    assert sound_files.numbered(last, CALL, 1) == last.with_name(f"{CALL}.wav{sealed}")
    assert sound_files.numbered(last, CALL, 2) == last.with_name(f"{CALL}-2.wav{sealed}")
    assert sound_files.numbered(last, CALL, 12) == last
    assert sound_files.numbered(last, CALL, 13) is None
    only = last.with_name(f"{CALL}.wav{sealed}")
    assert sound_files.numbered(only, CALL, 1) == only
    assert sound_files.numbered(only, CALL, 2) is None


def test_a_file_of_another_name_has_no_number() -> None:
    assert sound_files.numbered(Path("/recordings/acme/other.wav"), CALL, 1) is None
