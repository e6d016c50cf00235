"""An authority, a server's and a client's certificate, made anew for a test."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files in one folder."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def client(self) -> Path:
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        return self.folder / "client.key"

    @property
    def stranger(self) -> Path:
        """A client's certificate of another authority."""
        return self.folder / "stranger.pem"

    @property
    def stranger_key(self) -> Path:
        return self.folder / "stranger.key"

    @property
    def other_authority(self) -> Path:
        return self.folder / "other-ca.pem"

    def etcd_flags(self) -> list[str]:
        """Clients must show a certificate of this authority."""
        return [
            f"--cert-file={self.folder / 'server.pem'}",
            f"--key-file={self.folder / 'server.key'}",
            f"--trusted-ca-file={self.authority}",
            "--client-cert-auth",
        ]

    def grpc_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            self.authority.read_bytes(), self.client_key.read_bytes(), self.client.read_bytes()
        )


def make(folder: Path) -> Certificates:
    """Write them all; skips the test where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder.mkdir()
    (folder / "extensions").write_text(EXTENSIONS)
    for authority, names in (("ca", ["server", "client"]), ("other-ca", ["stranger"])):
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        subject = ["-subj", f"/CN={authority}", "-days", "2"]
        _run(folder, "req", "-x509", *new, *_out(authority), *subject)
        for name in names:
            files = ["-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"]
            _run(folder, "req", *new, *files)
            signer = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial"]
            how = ["-req", "-in", f"{name}.csr", "-extfile", "extensions", "-days", "2"]
            _run(folder, "x509", *how, *signer, "-out", f"{name}.pem")
    return Certificates(folder)


def _out(name: str) -> list[str]:
    return ["-keyout", f"{name}.key", "-out", f"{name}.pem"]


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
