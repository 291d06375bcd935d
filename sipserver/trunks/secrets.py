"""The trunks' passwords, out of the environment. Owns the check that all are there; refuses to log or keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sipserver.errors import SettingsError
from sipserver.trunks.settings import TrunkSettings


def missing(trunks: Iterable[TrunkSettings], environment: Mapping[str, str]) -> list[SettingsError]:
    """One error for each password that a trunk needs and the environment lacks; it names trunk, user and variable."""
    return [
        SettingsError(
            f"{name}: the environment variable {variable} with {user}'s password is empty; the service reads it from "
            "its environment file",
            key="trunks",
        )
        for name, user, variable in _needed(trunks)
        if not environment.get(variable)
    ]


def check(trunks: Iterable[TrunkSettings], environment: Mapping[str, str]) -> None:
    """Raise the first SettingsError of `missing`."""
    for error in missing(trunks, environment):
        raise error


def _needed(trunks: Iterable[TrunkSettings]) -> Iterator[tuple[str, str, str]]:
    for trunk in trunks:
        if trunk.credentials is not None:
            yield trunk.name, "credentials", trunk.credentials.password_env
        for user in trunk.users:
            yield trunk.name, user.name, user.password_env
