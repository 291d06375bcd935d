"""The server's settings: `etc/sipserver.yaml`, one nested model a room. Options are declared in the rooms, once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from sipserver import yaml_check, yaml_file
from sipserver.agent.settings import LlamaCppSettings, LlmSettings
from sipserver.api.settings import HttpSettings
from sipserver.calls.settings import CallSettings
from sipserver.errors import SettingsError
from sipserver.sip.settings import SipSettings
from sipserver.speech.settings import SpeechSettings
from sipserver.store.settings import StoreSettings

DEFAULT_FILE = Path("etc/sipserver.yaml")


class LogSettings(BaseModel):
    """private: write speech, digits and phone numbers into the log in clear (for development only)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    private: bool = False


class Settings(BaseModel):
    """Everything. Relative paths are relative to the file's folder; `resolved` makes them absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["single"] = "single"
    dialplans: Path = Path("../dialplans")
    sip: SipSettings = SipSettings()
    http: HttpSettings = HttpSettings()
    speech: SpeechSettings = SpeechSettings()
    llm: dict[str, LlmSettings] = {"local": LlamaCppSettings()}
    calls: CallSettings = CallSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()

    def resolved(self, folder: Path) -> Settings:
        """The same settings with absolute paths, `folder` being the folder of the file."""

        def absolute(path: Path) -> Path:
            return (folder / path.expanduser()).resolve()

        prefix, slashes, path = self.store.url.partition(":///")
        url = (
            f"{prefix}:///{absolute(Path(path))}"
            if slashes and path and prefix.startswith("sqlite")
            else self.store.url
        )
        return self.model_copy(
            update={
                "dialplans": absolute(self.dialplans),
                "speech": self.speech.model_copy(update={"models": absolute(self.speech.models)}),
                "calls": self.calls.model_copy(update={"recordings": absolute(self.calls.recordings)}),
                "store": self.store.model_copy(update={"url": url}),
            }
        )


def load(file: Path) -> Settings:
    """Read, check, resolve. Raises SettingsError with file, line, key and reason."""
    document = yaml_file.parse(file, SettingsError)
    return yaml_check.check(document, Settings, SettingsError).resolved(file.resolve().parent)
