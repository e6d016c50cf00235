"""Key files of the state folder, by name or by path."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path

from colonist_cli.alone import alone
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import note
from colonist_cli.place import Place
from colonist_client import keyfile, secret_file
from colonist_client.custody import Custody, worthy
from colonist_protocol.identity import Identity


def path_of(place: Place, name: str) -> Path:
    """A name stands for a file of the state folder; anything with a slash or a suffix is a path."""
    if os.sep in name or Path(name).suffix:
        return Path(name).expanduser()
    return place.key(name)


def make(path: Path, passphrase: bytes | None = None) -> Identity:
    """A new key in a new file. Raises `CliError`, also where there is a file already."""
    identity = Identity.from_entropy(secrets.token_bytes(32))
    try:
        secret_file.make_folder(path.parent)
        keyfile.write(path, identity, passphrase)
    except FileExistsError:
        raise CliError(Exit.CONFLICT, f"{path} is there already: not overwritten") from None
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None
    return identity


def read_or_make(path: Path, custody: Custody) -> Identity:
    """The key in a file, made where there is none. Raises `CliError`, `InvalidValueError`."""
    if os.path.lexists(path):
        return keyfile.read(path, custody)
    return make(path, custody.configured())


def new_passphrase(custody: Custody, path: Path, file: str, *, may_be_known: bool) -> bytes:
    """The passphrase to put a key under: of a file, the configured one, or asked for twice.

    Raises `InvalidValueError`.
    """
    if file:
        return worthy(custody.password(file, "--passphrase-file"))
    known = custody.configured() if may_be_known else None
    return custody.new_passphrase(path) if known is None else worthy(known.decode())


def encrypt(path: Path, custody: Custody, file: str) -> Identity:
    """Put a key under a passphrase, or under another one. Raises `CliError`."""
    with alone(path):
        opened = keyfile.open_file(path, custody)
        is_plain = opened.passphrase is None
        wanted = new_passphrase(custody, path, file, may_be_known=is_plain)
        _replace(path, opened.identity, wanted)
    return opened.identity


def decrypt(path: Path, custody: Custody) -> Identity:
    """Take the passphrase off a key. Raises `CliError`."""
    with alone(path):
        identity = keyfile.read(path, custody)
        _replace(path, identity, None)
    return identity


def _replace(path: Path, identity: Identity, passphrase: bytes | None) -> None:
    try:
        keyfile.replace(path, identity, passphrase)
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None


@contextlib.contextmanager
def id_for(place: Place, name: str, id: str) -> Generator[str]:
    """The id that was given, else that of the key of this name, made where it is missing.

    A key that was made is removed again when the server refuses.
    """
    if id:
        yield id
        return
    path = place.key(name)
    if os.path.lexists(path):
        yield keyfile.id_of(path, place.custody)
        return
    made = make(path, place.custody.configured())
    try:
        yield made.id
    except CliError:  # refused; where the outcome is unknown, the key stays
        path.unlink(missing_ok=True)
        raise
    note(f"private key in {path}")
