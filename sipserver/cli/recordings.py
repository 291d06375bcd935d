"""`sipserver recordings`: the keys of encrypted recordings changed, and a single file made plain.

Owns the words on the terminal, and that the audit log says what is done before it is. Refuses to know the files' form.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings
from sipserver.calls import keyring, rewrap
from sipserver.calls.keyring import Keyring
from sipserver.calls.rewrap import Found
from sipserver.calls.sealed_file import SealedFile
from sipserver.calls.timeline import clean
from sipserver.cli.operator_audit import open_log
from sipserver.errors import CallerError, ConfigError, Damaged, KeyMissing
from sipserver.store.database import Database
from sipserver.tenants.principal import OPERATOR

app = typer.Typer(help="Change the keys of encrypted recordings; decrypt a file.", no_args_is_help=True)

ACTION = "recordings.rewrapped"
_PART = 1 << 20

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]


@app.command("rewrap")
def rewrap_files(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Wrap the keys of all recordings of this machine anew, with the first key of the environment.

    The sound is not touched. May be broken off and done again at any moment. Exit code 1: not all files have the new
    key; which, and why, stands on the error output.
    """
    loaded = settings.load(config)
    ring = _keys(loaded)
    plan = look(loaded.calls.recordings, ring)
    if dry_run:
        typer.echo(f"{len(plan.wanted)} files would get the key {ring.active}, {plan.there} have it")
        done = Done()
    else:
        done = asyncio.run(_rewrap(loaded, plan, ring))
        typer.echo(f"{done.changed} files got the key {ring.active}, {plan.there + done.there} had it")
    for key_id, paths in sorted(plan.missing.items()):
        lacking = f"{len(paths)} files need the key {clean(key_id)}, which is not in {_variable(loaded)}:"
        typer.echo("\n".join([lacking, *(clean(str(path)) for path in paths)]), err=True)
    for trouble in (*plan.troubles, *done.troubles):
        typer.echo(clean(trouble), err=True)
    raise typer.Exit(1 if plan.missing or plan.troubles or done.troubles else 0)


@app.command()
def decrypt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, as ID.wav.enc.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The WAV file to write.", metavar="FILE")],
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also a file without an end: what is whole of it.")
    ] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Write a recording as a plain WAV file, for its owner alone (mode 0600). Neither a server nor a database is asked.

    A file that is not what was written is refused, and nothing is left at the output.
    """
    if output.exists():
        raise CallerError(f"{output} is there already")
    ring = _keys(settings.load(config))
    try:
        with _beside(output) as out, SealedFile(file, ring, unfinished=unfinished) as sealed:
            shutil.copyfileobj(io.BufferedReader(sealed), out, _PART)
            said = f"{clean(sealed.name)} of {clean(sealed.tenant)}: {sealed.size} bytes in {output}"
    except OSError as problem:
        raise CallerError(f"{problem.filename or output}: {problem.strerror or problem}") from problem
    typer.echo(said)


@dataclass(slots=True)
class Plan:
    """wanted: files for which there is a key and that need another. there: how many have the active one. missing: those
    that need a key that is not there, by its id.
    """

    wanted: list[Found] = field(default_factory=list)
    there: int = 0
    missing: dict[str, list[Path]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Done:
    """there: files that somebody else was quicker with."""

    changed: int = 0
    there: int = 0
    troubles: list[str] = field(default_factory=list)


def look(folder: Path, ring: Keyring) -> Plan:
    """What is to be done below the folder. Blocks; reads the headers of all files."""
    plan = Plan()
    for path in rewrap.files(folder):
        try:
            found = rewrap.look(path, ring)
        except KeyMissing as problem:
            plan.missing.setdefault(problem.key_ids[0], []).append(path)
        except (OSError, Damaged) as problem:
            plan.troubles.append(_trouble(path, problem))
        else:
            if found.current:
                plan.there += 1
            else:
                plan.wanted.append(found)
    return plan


def change(wanted: Sequence[Found], ring: Keyring) -> Done:
    """Blocks; waits for the disk with each file."""
    done = Done()
    for found in wanted:
        try:
            if rewrap.rewrap(found.path, ring):
                done.changed += 1
            else:
                done.there += 1
        except BlockingIOError:
            done.troubles.append(f"{found.path}: it is being recorded; do it again when that is over")
        except (OSError, Damaged, KeyMissing) as problem:
            done.troubles.append(_trouble(found.path, problem))
    return done


async def _rewrap(loaded: settings.Settings, plan: Plan, ring: Keyring) -> Done:
    if not plan.wanted:
        return Done()
    database = Database(loaded.store, connections=1)
    await database.open()
    try:
        log = await open_log(loaded, database)
        for tenant, count in sorted(Counter(found.tenant for found in plan.wanted).items()):
            detail = {"files": count, "key": ring.active}
            await log.append(tenant, actor=OPERATOR, action=ACTION, detail=detail)
    finally:
        await database.close()
    return await asyncio.to_thread(change, plan.wanted, ring)


def _keys(loaded: settings.Settings) -> Keyring:
    ring = keyring.load(loaded.calls.encryption)
    if not ring:
        raise ConfigError(f"the variable {_variable(loaded)} with the keys of recordings is not set")
    return ring


def _variable(loaded: settings.Settings) -> str:
    return loaded.calls.encryption.keys_env


def _trouble(path: Path, problem: Exception) -> str:
    reason = (getattr(problem, "strerror", None) or str(problem)).removeprefix(f"{path.name}: ")
    return f"{path}: {reason}"


@contextlib.contextmanager
def _beside(output: Path) -> Iterator[io.BufferedWriter]:
    """A file that takes the place of the output when all of it is written, and else goes."""
    part = output.with_name(f".{output.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            yield out
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
