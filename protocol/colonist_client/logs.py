"""Logs of our programs: a record is one line, and steers no terminal, whatever others said in it.

The lines of a traceback are indented, so that none of them looks like a record.
"""

from __future__ import annotations

import logging
from typing import Any, TextIO


class PlainFormatter(logging.Formatter):
    """Shows control characters instead of sending them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """A record, without its traceback."""
        return _shown(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        """A traceback."""
        return "\n".join(f"  {_shown(line)}" for line in super().formatException(ei).split("\n"))


def begin(level: int | str, form: str, stream: TextIO | None = None) -> None:
    """Log to a stream, standard error if none is given."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
