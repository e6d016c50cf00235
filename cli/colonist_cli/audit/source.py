"""An audit file on disk, and the sorted copies of what its checkpoints and requests say."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from pathlib import Path
from typing import Final, Self

from colonist_protocol.audit_checkpoints import HEAD_BYTES
from colonist_protocol.audit_once import ONCE_BYTES
from colonist_protocol.audit_reading import MAX_LINE_BYTES

BUCKETS: Final = 256


class FileSource:
    """An audit file."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, also for what is no regular file: parts of it are read many times."""
        if not stat.S_ISREG(path.stat().st_mode):  # and the open of a pipe waits for its writer
            text = "is no regular file; write what comes by a pipe to a file first"
            raise OSError(errno.EINVAL, text, str(path))
        self._file = path.open("rb")
        self.size = os.fstat(self._file.fileno()).st_size

    def line(self, offset: int, /) -> bytes:
        """The line that begins there, with its line feed; of one too long the beginning."""
        self._file.seek(offset)
        return self._file.readline(MAX_LINE_BYTES + 1)

    def read(self, start: int, end: int, /) -> bytes:
        """What stands from `start` up to `end`."""
        self._file.seek(start)
        return self._file.read(end - start)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Run:
    """Sorted records of one length, on disk."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        file = stack.enter_context(path.open("rb"))
        self._data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def since(self, key: bytes) -> Iterator[bytes]:
        """The records that are not before the key."""
        low, high = 0, len(self._data) // HEAD_BYTES
        while low < high:
            middle = (low + high) // 2
            if self._at(middle) < key:
                low = middle + 1
            else:
                high = middle
        for index in range(low, len(self._data) // HEAD_BYTES):
            yield self._at(index)

    def _at(self, index: int) -> bytes:
        return self._data[index * HEAD_BYTES : (index + 1) * HEAD_BYTES]


class Runs:
    """All heads that the checkpoints of a file name: sorted runs, read as one."""

    def __init__(self, paths: Sequence[Path], stack: ExitStack) -> None:
        self._runs = [Run(path, stack) for path in paths]

    def since(self, key: bytes) -> Iterator[bytes]:
        """The records that are not before the key, in order."""
        return merge(*(run.since(key) for run in self._runs))


class RunWriter:
    """Writes runs into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.paths: list[Path] = []

    def write(self, records: bytes) -> None:
        """Keep some sorted records, if there are any."""
        if records:
            path = self._folder / f"heads-{len(self.paths)}"
            path.write_bytes(records)
            self.paths.append(path)


class Buckets:
    """Records of requests, in files by their first byte: equal ones come together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: set[int] = set()

    def add(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Keep records of some first bytes."""
        for bucket, data in records:
            with self._path(bucket).open("ab") as file:
                file.write(data)
            self._files.add(bucket)

    @property
    def paths(self) -> list[Path]:
        """The files that there are."""
        return [self._path(bucket) for bucket in sorted(self._files)]

    def _path(self, bucket: int) -> Path:
        return self._folder / f"uses-{bucket}"


def bucketed(uses: Iterable[bytes], buckets: int) -> list[tuple[int, bytes]]:
    """Records by their first byte, joined; `buckets` divides 256."""
    size = BUCKETS // buckets
    found: dict[int, list[bytes]] = {}
    for use in uses:
        found.setdefault(use[0] // size, []).append(use)
    return [(bucket, b"".join(records)) for bucket, records in found.items()]


def records(data: bytes) -> list[bytes]:
    """Records of requests, sorted."""
    return sorted(data[at : at + ONCE_BYTES] for at in range(0, len(data), ONCE_BYTES))
