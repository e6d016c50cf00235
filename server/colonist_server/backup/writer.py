"""Writing a backup file: beside its name first, then in its place, whole and on disk."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from colonist_server.archive.interface import Row
from colonist_server.backup import form
from colonist_server.backup.form import About, BackupError, End, Kind
from colonist_server.store.interface import Item


class BackupWriter:
    """A file that comes to be at `finish`; left before, nothing is there. Blocking."""

    def __init__(self, path: Path, about: About, *, may_replace: bool) -> None:
        """Raises `BackupError` when the file is there and may not be replaced, and `OSError`.

        Only a regular file is ever replaced: no device, no link, no folder.
        """
        self._path = path
        self._may_replace = may_replace
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise BackupError(f"{path} is no regular file: it is not replaced; give another name")
        if not may_replace and os.path.lexists(path):
            raise BackupError(_IS_THERE.format(path=path))
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._part.unlink(missing_ok=True)
        self._file = os.fdopen(os.open(self._part, flags, 0o600), "wb")
        self._digest = hashlib.sha256()
        self._items = self._rows = 0
        self._last = b""
        self._write(form.MAGIC)
        self._write(form.pack(Kind.ABOUT, about))

    def close(self) -> None:
        """Give up what is not finished."""
        self._file.close()
        self._part.unlink(missing_ok=True)

    def add_items(self, items: list[Item]) -> None:
        """The next items of the store."""
        if items:
            self._write(form.pack(Kind.ITEMS, items))
            self._items += len(items)

    def add_rows(self, rows: list[Row]) -> None:
        """The next rows of the archive; one that the last call had already is passed over."""
        fresh = [row for row in rows if row.key > self._last]
        if fresh:
            self._last = fresh[-1].key
            self._write(form.pack(Kind.ROWS, fresh))
            self._rows += len(fresh)

    def finish(self) -> End:
        """Write the trailer, make it durable, give it its name."""
        end = End(self._items, self._rows, self._digest.digest())
        self._write(form.pack(Kind.END, end))
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._may_replace:
            self._part.replace(self._path)
        else:
            try:
                self._path.hardlink_to(self._part)  # unlike a rename, it replaces nothing
            except FileExistsError:
                raise BackupError(_IS_THERE.format(path=self._path)) from None
            self._part.unlink()
        _sync_folder(self._path.parent)
        return end

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


_IS_THERE = "{path}: the file is there already; give another name, or --force to replace it"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
