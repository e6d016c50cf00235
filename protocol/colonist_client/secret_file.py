"""Files that hold a secret: readable by their owner and by nobody else.

Whoever else may write to a file, or put another one in its place, could give us a key of his; so
links, and files of others, are refused like files that others may read. Among systemd's credentials
root's files are right: root lets the service read them by an access list, which shows in the
group's bit of the mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Generator
from pathlib import Path
from typing import IO, Final

from colonist_protocol.errors import InvalidValueError

MAX_BYTES: Final = 16_384

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_OF_CREDENTIAL: Final = _OTHERS & ~stat.S_IRGRP
_ROOT: Final = 0
# Without O_NONBLOCK the open of a FIFO waits for somebody who writes to it.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read(path: Path, what: str, *, is_credential: bool = False) -> bytes:
    """The content. Raises `InvalidValueError`, which says `what` the file is, never its content."""
    try:
        descriptor = os.open(path, _READ)
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"{what} {path}: {_reason(error)}") from None
    try:
        if told := _fault(os.fstat(descriptor), path, is_credential=is_credential):
            raise InvalidValueError(f"{what} {path} {told}")
        content = _all(descriptor)
    except OSError as error:
        raise InvalidValueError(f"{what} {path}: {_reason(error)}") from None
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise InvalidValueError(f"{what} {path} is too large: more than {MAX_BYTES} bytes")
    return content


def check(path: Path, what: str, *, is_credential: bool = False) -> None:
    """Like `read`, for a file that somebody else reads for us."""
    try:
        found = path.lstat()
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"{what} {path}: {_reason(error)}") from None
    if stat.S_ISLNK(found.st_mode):
        raise InvalidValueError(f"{what} {path}: {_LINK}")
    if told := _fault(found, path, is_credential=is_credential):
        raise InvalidValueError(f"{what} {path} {told}")


def write(path: Path, content: bytes) -> None:
    """A new file of mode 0600, on the disk whole or not at all.

    Raises `FileExistsError`, other `OSError`s.
    """
    draft = _draft(path, content)
    try:
        os.link(draft, path, follow_symlinks=False)  # a rename would replace what is there
    except FileExistsError:
        raise
    except OSError:  # no hard links in this file system: new all the same, if less than atomic
        _put(path, content)
    finally:
        draft.unlink()
    settle(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Put another content in the place of a file, whole or not at all. Raises `OSError`."""
    draft = _draft(path, content)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise
    settle(path.parent)


def make_folder(path: Path) -> None:
    """A folder for its owner only, unless it is there. Raises `OSError`."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)


_LINK: Final = "is a symbolic link: name the file itself"


def _all(descriptor: int) -> bytes:
    """All of a file, or enough of it to see that it is too large."""
    found = b""
    while len(found) <= MAX_BYTES and (more := os.read(descriptor, MAX_BYTES + 1)):
        found += more
    return found


def _reason(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError) or not error.errno:
        return "cannot be read"
    return _LINK if error.errno == errno.ELOOP else os.strerror(error.errno)


def _fault(found: os.stat_result, path: Path, *, is_credential: bool) -> str:
    """What is wrong with a file, and the remedy; or ""."""
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file: a folder, a pipe or a device holds no secret"
    mode, us = stat.S_IMODE(found.st_mode), os.geteuid()
    if found.st_uid not in ({us, _ROOT} if is_credential else {us}):
        return f"belongs to user {found.st_uid}, not to us ({us}); chown {us} {path}"
    if mode & (_OTHERS_OF_CREDENTIAL if is_credential else _OTHERS):
        return f"has mode {mode:04o}: others can get at it; chmod 600 {path}"
    return ""


def _draft(path: Path, content: bytes) -> Path:
    draft = draft_of(path)
    _put(draft, content)
    return draft


def _put(path: Path, content: bytes) -> None:
    with creating(path) as file:
        file.write(content)


def draft_of(path: Path) -> Path:
    """A name in the same folder that nobody can guess, and so nobody plants a file of."""
    return path.with_name(f".{secrets.token_hex(8)}.new")


@contextlib.contextmanager
def creating(path: Path) -> Generator[IO[bytes]]:
    """A new file of mode 0600 to write to; on the disk after the block, gone where that failed.

    Raises `FileExistsError`, other `OSError`s.
    """
    descriptor = os.open(path, _CREATE, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def settle(folder: Path) -> None:
    """A name is on the disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
