"""A server of ours that has an account of Vonage, and what that account knows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.harness.server import ServerProcess

APPLICATION = "aaaaaaaa-bbbb-cccc-dddd-0123456789ab"
SECRET = "the signature secret of the tests, long enough"
SECRET_ENV = "TEST_VONAGE_SECRET"


def keys(folder: Path) -> tuple[Path, str]:
    """A new application's private key as a file, and its public key."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    file = folder / "private.key"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return file, public.decode()


@contextmanager
def started(
    folder: Path, plan: str, account: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Iterator[ServerProcess]:
    """One server for the length of a `with` block; its `gate.public_url` is its own address. It must end in order."""
    of_vonage = {"name": "main", "application_id": APPLICATION, "signature_secret_env": SECRET_ENV, **account}
    tts = {"espeak": {"vendor": "espeak", "words_per_minute": 150, "processes": 1}}
    overrides = {"streams": {"vonage": [of_vonage], "stalled_s": 0.5}, "speech": {"tts": tts}, **(settings or {})}
    made = ServerProcess(folder, {"acme.yaml": plan}, overrides)
    written = yaml.safe_load(made.settings_file.read_text())
    written["gate"] = {"public_url": f"http://127.0.0.1:{made.http_port}"}
    made.settings_file.write_text(yaml.safe_dump(written, sort_keys=False))
    os.environ[SECRET_ENV] = SECRET
    try:
        made.start()
    finally:
        del os.environ[SECRET_ENV]
    try:
        yield made
    finally:
        code = made.stop()
    assert code == 0
    assert "Traceback" not in made.log(), made.log()[-3000:]


def answer_url(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.http_port}/webhooks/vonage/main/answer"


def event_url(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.http_port}/webhooks/vonage/main/event"
