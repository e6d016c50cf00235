"""Key files of the state folder, by name or by path."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path

from colonist_cli.exits import CliError, Exit
from colonist_cli.output import note
from colonist_cli.place import Place
from colonist_client import keyfile
from colonist_protocol.identity import Identity


def path_of(place: Place, name: str) -> Path:
    """A name stands for a file of the state folder; anything with a slash or a suffix is a path."""
    if os.sep in name or Path(name).suffix:
        return Path(name).expanduser()
    return place.key(name)


def make(path: Path) -> Identity:
    """A new key in a new file. Raises `CliError`, also where there is a file already."""
    identity = Identity.from_entropy(secrets.token_bytes(32))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        keyfile.write(path, identity)
    except FileExistsError:
        raise CliError(Exit.CONFLICT, f"{path} is there already: not overwritten") from None
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None
    return identity


@contextlib.contextmanager
def id_for(place: Place, name: str, id: str) -> Generator[str]:
    """The id that was given, else that of the key of this name, made where it is missing.

    A key that was made is removed again when the server refuses.
    """
    if id:
        yield id
        return
    path = place.key(name)
    if path.exists():
        yield keyfile.read(path).id
        return
    made = make(path)
    try:
        yield made.id
    except CliError:  # refused; where the outcome is unknown, the key stays
        path.unlink(missing_ok=True)
        raise
    note(f"private key in {path}")
