"""Private keys in files of mode 0600: 64 hex characters, or the same under a passphrase."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from colonist_client import secret_file
from colonist_client.custody import Custody
from colonist_client.locked_key import LockedKey, is_locked, lock, parse, unlock
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity

_WHAT: Final = "key file"


@dataclass(frozen=True, slots=True)
class Opened:
    """A key, and the passphrase that its file is under, if any."""

    identity: Identity
    passphrase: bytes | None = field(default=None, repr=False)


def read(path: Path, custody: Custody | None = None) -> Identity:
    """The key in a file. Raises `InvalidValueError`, which names the file and never its content.

    A file that others can read or write is refused: mode 0600 or less. Without `custody` a key
    under a passphrase is refused too.
    """
    return open_file(path, custody).identity


def open_file(path: Path, custody: Custody | None = None) -> Opened:
    """The same, with the passphrase, so that a new key can be put under it."""
    found = _content(path, custody)
    if isinstance(found, Identity):
        return Opened(found)
    if custody is None:
        raise InvalidValueError(f"{_WHAT} {path} is under a passphrase, and nobody to ask for it")
    passphrase = custody.passphrase(path)
    try:
        return Opened(unlock(found, passphrase), passphrase)
    except InvalidValueError as error:
        raise InvalidValueError(f"{_WHAT} {path}: {error}") from None


def id_of(path: Path, custody: Custody | None = None) -> str:
    """The id of the key in a file. No passphrase is needed: the id stands beside the key."""
    return _content(path, custody).id


def write(path: Path, identity: Identity, passphrase: bytes | None = None) -> None:
    """Store a key in a new file of mode 0600. Raises `FileExistsError`, other `OSError`s."""
    secret_file.write(path, _packed(identity, passphrase))


def replace(path: Path, identity: Identity, passphrase: bytes | None) -> None:
    """Store a key in the place of what the file holds. Raises `OSError`."""
    secret_file.replace(path, _packed(identity, passphrase))


def _packed(identity: Identity, passphrase: bytes | None) -> bytes:
    if passphrase is None:
        return f"{identity.reveal()}\n".encode()
    return lock(identity, passphrase)


def _content(path: Path, custody: Custody | None) -> Identity | LockedKey:
    content = secret_file.read(path, _WHAT) if custody is None else custody.read(path, _WHAT)
    if not is_locked(content):
        try:
            return Identity.from_hex(content.decode("ascii"))
        except (InvalidValueError, UnicodeDecodeError):
            raise InvalidValueError(
                f"{_WHAT} {path} holds no private key of 64 hex digits"
            ) from None
    try:
        return parse(content)
    except InvalidValueError as error:
        raise InvalidValueError(f"{_WHAT} {path} {error}") from None
