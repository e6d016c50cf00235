"""Where an archive is: `sqlite:PATH`, or `postgresql://user@host/database` as libpq reads it.

A password may stand in the address, in PGPASSWORD, or in the file that PGPASSFILE or `passfile=`
names. It is never shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from colonist_server.archive.interface import ArchiveAddressError

REMEDY: Final = "give sqlite:PATH or postgresql://user@host/database"
_SQLITE: Final = "sqlite:"
_POSTGRESQL: Final = ("postgresql", "postgres")
_IN_QUERY: Final = re.compile(r"(?i)(?<=[?&])((?:ssl)?password)=([^&]*)")
_HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address. `target` is a path or a URL of libpq; `shown` is fit for people."""

    is_local: bool
    target: str = field(repr=False)
    shown: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def masked(self, text: str) -> str:
        """A text in which no secret of the address is left."""
        for secret in self.secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def has_password(text: str) -> bool:
    """Whether an address holds a password. What is no address holds none."""
    try:
        return bool(text) and bool(parse(text).secrets)
    except ArchiveAddressError:
        return False


def parse(text: str) -> Address:
    """The address. Raises `ArchiveAddressError`, which does not repeat what was given."""
    if text.startswith(_SQLITE):
        path = text.removeprefix(_SQLITE)
        if not path or path.startswith("//") or "\0" in path:
            raise ArchiveAddressError(f"the archive's address names no file: {REMEDY}")
        return Address(is_local=True, target=path, shown=text)
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError as error:
        raise ArchiveAddressError(f"the archive's address is no URL: {REMEDY}") from error
    if parts.scheme not in _POSTGRESQL:
        raise ArchiveAddressError(f"the archive's address is of no known kind: {REMEDY}")
    if not parts.path.strip("/"):
        raise ArchiveAddressError(f"the archive's address names no database: {REMEDY}")
    shown = _IN_QUERY.sub(rf"\1={_HIDDEN}", text)
    if password:
        shown = shown.replace(f":{password}@", f":{_HIDDEN}@", 1)
    raw = [password or "", *(found[2] for found in _IN_QUERY.finditer(text))]
    secrets = dict.fromkeys(form for each in raw for form in (each, unquote(each)) if form)
    return Address(is_local=False, target=text, shown=shown, secrets=tuple(secrets))
