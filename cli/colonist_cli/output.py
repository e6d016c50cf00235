"""How results are shown: a table for people, JSON for programs. Diagnostics go to stderr.

A table that goes into a file or a pipe is as wide as it needs to be and cuts nothing. Colours obey
NO_COLOR and whether there is a terminal.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from colonist_cli.exits import CliError, Exit

if TYPE_CHECKING:
    from io import TextIOWrapper

    from rich.console import Console

T = TypeVar("T")

PIPE_COLUMNS: Final = 10_000
_ESCAPES: Final = "colonist.escapes"
_NOT_PLAIN: Final = re.compile(r"[^\n -~]")


class Form(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)
class Column(Generic[T]):
    """A heading and what stands below it."""

    head: str
    cell: Callable[[T], object]
    style: str = ""


class Screen:
    """Where a command shows what it found."""

    def __init__(self, form: Form = Form.TABLE) -> None:
        self.form = form

    def rows(self, columns: Sequence[Column[T]], items: Sequence[T], *, empty: str) -> None:
        """A list; `empty` is said where it has nothing, to people only."""
        if self.form is Form.JSON:
            self.json(list(items))
        elif not items:
            note(empty)
        else:
            _print_table(columns, items)

    def one(self, columns: Sequence[Column[T]], item: T) -> None:
        """One thing, a line for each of its properties that is not empty."""
        if self.form is Form.JSON:
            self.json(item)
            return
        pairs = [(column.head, str(column.cell(item))) for column in columns]
        width = max(len(head) for head, _ in pairs)
        for head, text in pairs:
            if text:
                below = "\n" + " " * (width + 2)
                self.line(f"{head:<{width}}  {clean(text).replace(chr(10), below)}")

    def json(self, value: Any) -> None:
        """A value as JSON, in the protocol's own names."""
        import msgspec

        packed = msgspec.json.encode(value)
        write(_visible(msgspec.json.format(packed, indent=2).decode()) + "\n")

    def json_line(self, value: Any) -> None:
        """A value as JSON in one line, told at once: for what goes on and on."""
        import msgspec

        write(_visible(msgspec.json.encode(value).decode()) + "\n", now=True)

    def line(self, text: str) -> None:
        """A line of the result, safe for a terminal."""
        write(f"{clean(text)}\n")


def write(text: str, *, now: bool = False) -> None:
    """Write to stdout; `now`: all so far. Raises `CliError`, `BrokenPipeError`."""
    try:
        sys.stdout.write(text)
        if now:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has gone: hardly an error
        raise
    except OSError as error:
        text = f"the output cannot be written: {error.strerror}"
        raise CliError(Exit.USAGE, text) from error


def escape_what_stdout_lacks() -> None:
    """Show what the encoding of stdout has not as escapes, as in JSON; else it would be an error.

    Names may be in any script, and terminals and cron jobs without UTF-8 are still about.
    """
    codecs.register_error(_ESCAPES, _escaped)
    if getattr(sys.stdout, "errors", "") == "strict":
        cast("TextIOWrapper", sys.stdout).reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def console(*, columns: int = 0, is_error: bool = False) -> Console:
    """Where tables are drawn; `is_error`: on stderr."""
    from rich.console import Console

    stream = sys.stderr if is_error else sys.stdout
    width = columns or (None if stream.isatty() else PIPE_COLUMNS)
    return Console(width=width, highlight=False, markup=False, emoji=False, stderr=is_error)


def note(text: str) -> None:
    """Tell a person something that is not the result, safe for a terminal: errors, too."""
    sys.stderr.write(f"{clean(text)}\n")


def clean(text: str) -> str:
    """Text that others wrote, safe for a terminal: control characters become visible."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )


def _visible(text: str) -> str:
    """The same JSON, with what cannot be printed escaped."""
    return _NOT_PLAIN.sub(
        lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text
    )


def _print_table(columns: Sequence[Column[T]], items: Sequence[T]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.head, style=column.style, overflow="fold")
    for item in items:
        table.add_row(*(Text(clean(str(column.cell(item)))) for column in columns))
    drawn = console()
    with drawn.capture() as captured:  # rich itself ends the program on a closed pipe
        drawn.print(table)
    write(captured.get())
