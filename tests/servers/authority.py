"""A certificate authority of a test, and what it certifies; by the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from sipserver.edge.settings import TlsSettings


class Authority:
    """folder: of its files."""

    def __init__(self, folder: Path, name: str = "Test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.file, self._key = folder / "authority.pem", folder / "authority.key"
        _openssl("req", "-x509", *_NEW, "-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.file))

    def certify(self, file_name: str, *names: str, common_name: str = "somebody") -> TlsSettings:
        """names: `DNS:...` or `IP:...`. The settings name this authority as the one that is believed."""
        key, request, file = (self._folder / f"{file_name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self._folder / f"{file_name}.ext"
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "basicConstraints=CA:FALSE\n")
        _openssl("req", *_NEW[:-2], "-subj", f"/CN={common_name}", "-keyout", str(key), "-out", str(request))
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.file), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-days", "2", "-extfile", str(extensions), "-out", str(file)),
        )
        return TlsSettings(certificate=file, key=key, ca=self.file)


def serving(settings: TlsSettings) -> ssl.SSLContext:
    """For a server with that certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.certificate, settings.key)
    return context


_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
