"""Changing a key without ever losing one.

1. The new key is written to `NAME.key.new`, mode 0600, and to the disk.
2. The change is sent, signed with the old key.
3. `NAME.key` is kept as `NAME.key.old`, then `NAME.key.new` takes its place.

Both keys are there at every moment, the new one under the passphrase of the old one. A run that
finds a `.new` goes on where the one before was interrupted: it asks the server which of the two it
knows.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from colonist_cli.alone import alone
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import note
from colonist_client import keyfile, secret_file
from colonist_client.client import Client
from colonist_client.custody import Custody
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.locked_key import is_locked
from colonist_client.retry import is_transient
from colonist_client.sealer import NotGenuineError, Pin
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.identity import Identity

KEY_CHARS: Final = 64

Call = Callable[[Client, Identity], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Whose key: `change` sends the change, `probe` reads what only that key's owner may read."""

    server: str
    path: Path
    change: Call
    probe: Call
    custody: Custody = field(default_factory=lambda: Custody({}))
    pin: Pin | None = None


async def rotate(rotation: Rotation) -> Identity:
    """Change the key; the new one. Raises `CliError`, `ServerError`, `UnreachableError`."""
    with alone(rotation.path):
        return await _rotate(rotation)


async def _rotate(rotation: Rotation) -> Identity:
    path, draft = rotation.path, _beside(rotation.path, ".new")
    opened = keyfile.open_file(path, rotation.custody)
    old = opened.identity
    is_resumed = _is_whole(draft)
    if is_resumed:
        new = keyfile.read(draft, rotation.custody.answering(opened.passphrase))
        note(f"{draft} is there from before: going on with it")
    else:
        new = _make(draft, opened.passphrase)
    if not (is_resumed and await _is_known(rotation, new)):
        try:
            await _send(rotation, old, new)
        except ServerError as error:
            if not is_resumed and not is_transient(error):
                draft.unlink()  # asked for once and refused for good: nobody knows it
            raise
    _swap(path, draft)
    return new


async def _send(rotation: Rotation, old: Identity, new: Identity) -> None:
    """Ask for the change; where the reply is lost, look whether it was made."""
    async with _client(rotation, old) as client:
        try:
            await rotation.change(client, new)
        except NotSentError:
            raise
        except (ServerError, UnreachableError) as error:
            if isinstance(error, ServerError) and not is_transient(error):
                raise
            if not await _is_known_or_away(rotation, new):
                raise CliError(
                    Exit.UNREACHABLE,
                    f"{error}; it is not known which key is in force, so both are kept: "
                    f"{rotation.path} and {_beside(rotation.path, '.new')}. Run this again",
                ) from None


async def _is_known_or_away(rotation: Rotation, new: Identity) -> bool:
    try:
        return await _is_known(rotation, new)
    except (ServerError, UnreachableError):
        return False


async def _is_known(rotation: Rotation, identity: Identity) -> bool:
    """Whether the server takes this key for its owner's. Raises what does not tell."""
    async with _client(rotation, identity) as client:
        try:
            await rotation.probe(client, identity)
        except NotGenuineError:
            return False  # so a server answers whom it does not know; nothing is lost by asking
        except ServerError as error:
            if is_transient(error):
                raise
            return False
    return True


def _is_whole(draft: Path) -> bool:
    """Whether there is one from before. One that was not written to its end was never sent."""
    if not draft.exists():
        return False
    content = draft.read_bytes()
    if len(content) < KEY_CHARS or (is_locked(content) and not content.endswith(b"}\n")):
        draft.unlink()
        return False
    return True


def _make(draft: Path, passphrase: bytes | None) -> Identity:
    identity = Identity.from_entropy(secrets.token_bytes(32))
    try:
        keyfile.write(draft, identity, passphrase)
    except OSError as error:
        raise CliError(Exit.USAGE, f"{draft}: {error.strerror}") from None
    return identity


def _swap(path: Path, draft: Path) -> None:
    """Each step is atomic, and after each the old key and the new one have a name."""
    kept, copy = _beside(path, ".old"), _beside(path, ".copy")
    try:
        copy.unlink(missing_ok=True)
        secret_file.write(copy, path.read_bytes())
        copy.replace(kept)
        draft.replace(path)
        _settle(path.parent)
    except OSError as error:
        raise CliError(
            Exit.USAGE, f"the key was changed, and is in {draft}: {error.strerror}"
        ) from None
    note(f"the new key is in {path}, the old one in {kept}")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _settle(folder: Path) -> None:
    """A name is on the disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _client(rotation: Rotation, identity: Identity) -> Client:
    return Client(HttpTransport(rotation.server), identity, pin=rotation.pin)
