"""Private keys in files: 64 hex characters, readable by their owner and by nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity

_TOO_WIDE: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES: Final = 4096


def read(path: Path) -> Identity:
    """The key in a file. Raises `InvalidValueError`, which names the file and never its content.

    A file that others can read or write is refused: mode 0600 or less.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MAX_BYTES)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "cannot be read"
        raise InvalidValueError(f"key file {path}: {reason}") from None
    if mode & _TOO_WIDE:
        raise InvalidValueError(
            f"key file {path} has mode {stat.S_IMODE(mode):04o}: others can get at it; chmod 600"
        )
    try:
        return Identity.from_hex(text.decode("ascii"))
    except (InvalidValueError, UnicodeDecodeError):
        raise InvalidValueError(f"key file {path} holds no private key of 64 hex digits") from None


def write(path: Path, identity: Identity) -> None:
    """Store a key in a new file of mode 0600. Raises `FileExistsError`, other `OSError`s."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
        file.write(identity.reveal() + "\n")
        file.flush()
        os.fsync(file.fileno())
