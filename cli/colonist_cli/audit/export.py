"""Writes the evidence of a colony into a file, page by page; the file appears when it is whole."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from colonist_cli.exits import CliError, Exit
from colonist_client import secret_file
from colonist_protocol import codec
from colonist_protocol.audit_reading import CHECKPOINT_START, EVENT_START, End

_CHAIN: Final = slice(len(EVENT_START), len(EVENT_START) + 64)


class Exported(NamedTuple):
    """What was written."""

    checkpoints: int = 0
    chains: int = 0
    events: int = 0
    bytes: int = 0


class FileWriter:
    """Counts and hashes what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha3_256()
        self._chain = b""
        self._checkpoints = self._chains = self._events = self._bytes = 0

    @property
    def written(self) -> Exported:
        """What there is so far."""
        return Exported(self._checkpoints, self._chains, self._events, self._bytes)

    def write(self, text: str) -> None:
        """A line but the last. Raises `CliError` for what is none."""
        line = text.encode()
        if b"\n" in line or not line:
            raise CliError(Exit.UNREACHABLE, "the server sent what is no line of an audit file")
        self._checkpoints += line.startswith(CHECKPOINT_START)
        if line.startswith(EVENT_START):
            self._events += 1
            self._chains += line[_CHAIN] != self._chain
            self._chain = line[_CHAIN]
        self._put(line)

    def end(self) -> None:
        """The last line."""
        self._put(
            codec.encode(
                End(
                    chains=self._chains,
                    events=self._events,
                    checkpoints=self._checkpoints,
                    hash=self._hash.hexdigest(),
                )
            )
        )

    def _put(self, line: bytes) -> None:
        line += b"\n"
        self._hash.update(line)
        self._file.write(line)
        self._bytes += len(line)


async def export(
    pages: AsyncIterator[tuple[str, ...]],
    file: Path,
    tell: Callable[[Exported], None],
    *,
    may_replace: bool,
) -> Exported:
    """Write all pages; `tell` hears of each. Raises `CliError`."""
    with _appearing(file, may_replace=may_replace) as opened:
        writer = FileWriter(opened)
        async for page in pages:
            for line in page:
                writer.write(line)
            tell(writer.written)
        writer.end()
    return writer.written


@contextmanager
def _appearing(file: Path, *, may_replace: bool) -> Generator[IO[bytes]]:
    """A file that has its name once it is whole and on the disk. Raises `CliError`."""
    # For its owner only: requests stand in it as they were sent. And whoever could plant the file
    # would own the evidence, or choose what it is written over.
    part = secret_file.draft_of(file)
    try:
        if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
            raise CliError(Exit.CONFLICT, f"{file} is no regular file: it is not replaced")
        if file.exists() and not may_replace:
            raise CliError(Exit.CONFLICT, f"{file} is there already; --force replaces it")
        with secret_file.creating(part) as opened:
            yield opened
        part.replace(file)
    except OSError as error:
        raise CliError(Exit.USAGE, f"{file} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
