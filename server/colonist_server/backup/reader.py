"""Reading a backup file, block by block; what is damaged is told with its position."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from colonist_server.archive.interface import Row
from colonist_server.backup import form
from colonist_server.backup.form import About, BackupError, End, Kind
from colonist_server.store.interface import Item

_NO_KEY: Final = b""


class _Content(NamedTuple):
    """What one block held; of the four one at most."""

    items: list[Item]
    rows: list[Row]
    about: About | None = None
    end: End | None = None


class BackupReader:
    """A backup file. Each pass reads it anew and checks all of it on the way. Blocking."""

    def __init__(self, path: Path) -> None:
        """Read what it is of. Raises `BackupError`."""
        self.path = path
        self.about: About = self._about()

    def items(self) -> Iterator[list[Item]]:
        """The store's items. Raises `BackupError` where the file is not whole."""
        for content in self._pass():
            if content.items:
                yield content.items

    def rows(self) -> Iterator[list[Row]]:
        """The archive's rows. Raises `BackupError` where the file is not whole."""
        for content in self._pass():
            if content.rows:
                yield content.rows

    def check(self) -> End:
        """Read all of it. Raises `BackupError` where the file is not whole."""
        end: End | None = None
        for content in self._pass():
            end = content.end
        assert end is not None  # noqa: S101 - a pass without it raises
        return end

    def _about(self) -> About:
        for content in self._pass():
            if content.about is not None:
                return content.about
            break
        raise BackupError(f"{self.path}: damaged: it does not begin by telling what it is of")

    def _pass(self) -> Iterator[_Content]:
        try:
            with self.path.open("rb") as file:
                yield from _Pass(self.path, file).contents()
        except OSError as error:
            raise BackupError(f"{self.path}: cannot read it: {error.strerror}") from error


class _Pass:
    """One reading of the file, from its beginning to its end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._digest = hashlib.sha256()
        self._items = self._rows = 0
        self._last_item = self._last_row = _NO_KEY
        self._at = 0  # where the block begins that is being read

    def contents(self) -> Iterator[_Content]:
        """What each block holds. Raises `BackupError`."""
        if self._file.read(len(form.MAGIC)) != form.MAGIC:
            raise BackupError(f"{self._path}: not a backup made by Colonist")
        self._digest.update(form.MAGIC)
        self._at = len(form.MAGIC)
        is_first = True
        while True:
            content, data = self._next(is_first=is_first)
            is_first = False
            if content.end is not None:
                self._check_end(content.end)
                yield content
                return
            self._count(content)
            self._digest.update(data)
            self._at += len(data)
            yield content

    def _next(self, *, is_first: bool) -> tuple[_Content, bytes]:
        head = self._read(form.HEAD_BYTES)
        try:
            block = form.read_head(head)
            _check_place(block, is_first=is_first)
            stored = self._read(block.stored)
            return _READ[Kind(block.kind)](form.open_block(block, stored)), head + stored
        except _CutError:
            raise
        except BackupError as error:
            raise self._damaged(str(error)) from error

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise _CutError(
                f"{self._path}: it ends at byte {self._file.tell()}, in the middle of a block that"
                f" begins at byte {self._at}: the backup is not whole; use another"
            )
        return data

    def _count(self, content: _Content) -> None:
        self._items += len(content.items)
        self._rows += len(content.rows)
        for entry in content.items:
            self._last_item = self._follow(entry.key, self._last_item)
        for row in content.rows:
            self._last_row = self._follow(row.key, self._last_row)

    def _follow(self, key: bytes, last: bytes) -> bytes:
        if key <= last:
            raise self._damaged("its keys are not in order")
        return key

    def _check_end(self, end: End) -> None:
        if end != End(self._items, self._rows, self._digest.digest()):
            raise self._damaged("what is before its trailer is not what was written")
        if self._file.read(1):
            raise self._damaged("something follows its trailer")

    def _damaged(self, why: str) -> BackupError:
        return BackupError(
            f"{self._path}: damaged at byte {self._at}: {why}; nothing was restored, use another"
        )


class _CutError(BackupError):
    """The file ends too early."""


_READ: Final[dict[Kind, Callable[[bytes], _Content]]] = {
    Kind.ABOUT: lambda raw: _Content([], [], about=_known(form.read_about(raw))),
    Kind.ITEMS: lambda raw: _Content(form.read_items(raw), []),
    Kind.ROWS: lambda raw: _Content([], form.read_rows(raw)),
    Kind.END: lambda raw: _Content([], [], end=form.read_end(raw)),
}


def _check_place(block: form.Block, *, is_first: bool) -> None:
    if (block.kind == Kind.ABOUT) is not is_first:
        raise BackupError("the block does not belong here")


def _known(about: About) -> About:
    if about.format != form.FORMAT:
        raise BackupError(
            f"its form is {about.format}, this version reads {form.FORMAT}:"
            f" use the version of Colonist that made it, {about.version[:32]}"
        )
    return about
