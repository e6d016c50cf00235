"""What comes in by stdin. Ctrl-C ends it, also where an event loop has taken the signal."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from colonist_cli.exits import CliError, Exit
from colonist_client.terminal import interruptible


def line(prompt: str) -> str:
    """The next line, "" at the end; a person at a terminal is asked for it. Raises `CliError`."""
    with interruptible():
        if sys.stdin.isatty():
            sys.stderr.write(prompt)
            sys.stderr.flush()
        return _next().removesuffix("\n")


def lines() -> Iterator[str]:
    """All lines that are left. Raises `CliError`."""
    while True:
        with interruptible():
            found = _next()
        if not found:
            return
        yield found.removesuffix("\n")


def read(limit: int) -> bytes:
    """All that is left, up to so many bytes. Raises `OSError`."""
    with interruptible():
        return sys.stdin.buffer.read(limit)


def _next() -> str:
    try:
        return sys.stdin.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(Exit.USAGE, f"stdin cannot be read: {error}") from None
