"""Makes what a deployment must keep secret: keys, passwords, a certificate.

Only what is missing is made: nothing that is there is written over.

    .venv/bin/python deploy/prepare.py compose
    .venv/bin/python deploy/prepare.py kubernetes

`secrets/owner.key` may do anything: take it off the machine, to where the CLI is used.
`secrets/clients.env` is no secret: by the id in it clients know that this server answers them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import subprocess
import sys
from pathlib import Path

from colonist_bridge.acl import bridge_account, mosquitto_acl
from colonist_client import keyfile, secret_file
from colonist_protocol.identity import Identity
from colonist_protocol.topics import Topics

HERE = Path(__file__).resolve().parent
BRIDGE = "hall-3"
ROUNDS = 101  # of mosquitto_passwd; the passwords are 32 random bytes
DATA = ("etcd-1", "etcd-2", "etcd-3", "postgres", "mosquitto")


def main(arguments: list[str]) -> int:
    """The exit code."""
    if arguments not in (["compose"], ["kubernetes"]):
        print("usage: prepare.py compose|kubernetes", file=sys.stderr)
        return 2
    if arguments == ["compose"] and os.getuid() == 0:
        print("prepare.py: not as root: the containers run as whoever runs this", file=sys.stderr)
        return 2
    prepare(arguments[0], HERE / arguments[0])
    return 0


def prepare(kind: str, folder: Path) -> None:
    """Make what is missing in the folder of a deployment."""
    os.umask(0o077)
    made = folder / "secrets"
    (made / "keys").mkdir(parents=True, exist_ok=True)
    owner = key(made / "owner.key")
    server = key(made / "keys" / "server.key")
    keep(made / "server.env", f"COLONIES_SERVER_ID={owner.id}\n")
    pins = ("COLONIST_SERVER_ID", "COLONIST_BRIDGE_SERVER_ID")
    keep(made / "clients.env", "".join(f"{name}={server.id}\n" for name in pins))
    archive = password(made / "archive.password")
    keep(made / "pgpass", f"*:*:colonist:colonist:{archive}\n")
    if kind == "compose":
        broker(made)
        keep(folder / ".env", f"COLONIST_UID={os.getuid()}\nCOLONIST_GID={os.getgid()}\n")
        for name in DATA:
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
    print(f"all is in {made}; keep {made / 'owner.key'} elsewhere")


def broker(made: Path) -> None:
    """What mosquitto and the bridge need to know of each other."""
    account = bridge_account(BRIDGE)
    hashed = mosquitto_hash(password(made / "bridge.password"), secrets.token_bytes(12))
    keep(made / "mosquitto.passwords", f"{account}:{hashed}\n")
    keep(made / "colonist.acl", mosquitto_acl(Topics(), [BRIDGE]))
    if not (made / "broker.key").exists():
        certificate(made)


def certificate(made: Path) -> None:
    """A certificate of its own for the broker; put one that devices trust in its place."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "825", "-subj", "/CN=mosquitto"]
    command += ["-addext", "subjectAltName=DNS:mosquitto,DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(made / "broker.key"), "-out", str(made / "broker.crt")]
    subprocess.run([*command, *files], check=True, capture_output=True)


def key(path: Path) -> Identity:
    """The key in a file, made where it is missing."""
    if not path.exists():
        keyfile.write(path, Identity.from_entropy(secrets.token_bytes(32)))
    return keyfile.read(path)


def password(path: Path) -> str:
    """The password in a file, made where it is missing."""
    keep(path, secrets.token_urlsafe(32))
    return path.read_text()


def keep(path: Path, text: str) -> None:
    """Write a file that only its owner reads, unless it is there."""
    if not path.exists():
        secret_file.write(path, text.encode())


def mosquitto_hash(password: str, salt: bytes) -> str:
    """As mosquitto_passwd writes it."""
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS, 64)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
