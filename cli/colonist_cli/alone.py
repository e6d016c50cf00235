"""One change of a key file at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from colonist_cli.exits import CliError, Exit


@contextlib.contextmanager
def alone(path: Path) -> Generator[None]:
    """Two runs at once could each take the other's new key for their own. Raises `CliError`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a pipe too
    except OSError as error:
        raise CliError(Exit.USAGE, f"key file {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CliError(Exit.CONFLICT, f"{path} is being changed by another run") from None
        yield
    finally:
        os.close(handle)
