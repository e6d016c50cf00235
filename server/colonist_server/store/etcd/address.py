"""Where an etcd cluster is and how to be let in: `etcd://HOST:PORT,HOST:PORT/PREFIX?OPTIONS`.

Files of the options may be named as systemd's credentials; those with a secret in them are refused
where others can read them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from colonist_client.custody import Custody
from colonist_protocol.errors import InvalidValueError
from colonist_server.store.interface import StoreError

SCHEME: Final = "etcd://"
PORT: Final = 2379
MAX_PORT: Final = 65_535
QUOTA_BYTES: Final = 2_147_483_648
"""What etcd has as it comes (`--quota-backend-bytes`); it does not tell."""
DEFAULT_PREFIX: Final = "colonist"
PASSWORD_VARIABLE: Final = "COLONIST_ETCD_PASSWORD"  # noqa: S105 - a name
EXAMPLE: Final = "etcd://host1,host2,host3/prefix?ca=FILE&cert=FILE&key=FILE&user=NAME"

_WHAT: Final = "password of etcd: file"
_OPTIONS: Final = frozenset({"ca", "cert", "key", "user", "password-file", "quota", "tls"})
MAX_PREFIX: Final = 96
"""So that the largest commit still is a request that etcd takes."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,64}){0,3}")
_HOST: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: the authority that signed the servers, and our own certificate with its key."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A cluster's endpoints (`host:port`), the prefix of our keys there, and how to be let in."""

    endpoints: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    is_tls: bool = False
    files: Files = Files()
    user: str = ""
    password: str = field(default="", repr=False)
    quota_bytes: int = QUOTA_BYTES
    custody: Custody = field(default=Custody({}), repr=False, compare=False)

    def __str__(self) -> str:
        """For messages: nothing secret is in it."""
        return f"{SCHEME}{','.join(self.endpoints)}/{self.prefix}"


def parse(url: str, environment: Mapping[str, str] = os.environ) -> Address:
    """Read an address; the password comes from a file or the environment, never from the URL.

    Raises `StoreError`.
    """
    if "@" in url.partition("?")[0]:
        raise StoreError(
            f"a user does not stand before the hosts of the store: use ?user=NAME and "
            f"password-file=FILE or {PASSWORD_VARIABLE}[_FILE]"
        )
    if not url.startswith(SCHEME) or "#" in url:
        raise StoreError(f"store {_shown(url)!r} is not like {EXAMPLE}")
    # Not urlsplit: of several hosts some Pythons take brackets for an error.
    place, _, query = url.removeprefix(SCHEME).partition("?")
    hosts, _, path = place.partition("/")
    options, custody = _options(query), Custody(environment)
    files = Files(*(_file(custody, options.get(name, "")) for name in ("ca", "cert", "key")))
    if (files.cert is None) != (files.key is None):
        raise StoreError("a client certificate needs both cert=FILE and key=FILE")
    prefix = unquote(path).strip("/") or DEFAULT_PREFIX
    if len(prefix) > MAX_PREFIX or not _PREFIX.fullmatch(prefix):
        raise StoreError(
            f"prefix {prefix[:80]!r}: at most {MAX_PREFIX} letters, digits, . _ - and up to three /"
        )
    user = options.get("user", "")
    return Address(
        endpoints=tuple(map(_endpoint, hosts.split(","))),
        prefix=prefix,
        is_tls=_is_tls(options, files),
        files=files,
        user=user,
        password=_password(options, custody) if user else "",
        quota_bytes=_quota(options.get("quota", "")),
        custody=custody,
    )


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise StoreError(f"the options of the store are not name=value: see {EXAMPLE}") from None
    options = dict(pairs)
    unknown = sorted(set(options) - _OPTIONS)
    if unknown or len(options) != len(pairs):
        raise StoreError(
            f"options of the store: each once, and of {', '.join(sorted(_OPTIONS))}; "
            f"not {', '.join(unknown) or 'twice'}"
        )
    return options


def _is_tls(options: Mapping[str, str], files: Files) -> bool:
    wanted = options.get("tls", "")
    if wanted not in {"", "true", "false"}:
        raise StoreError(f"tls={wanted[:16]!r} of the store is neither true nor false")
    if wanted == "false" and files != Files():
        raise StoreError("tls=false of the store, and yet certificates")
    return wanted == "true" or files != Files()


def _quota(text: str) -> int:
    if not text:
        return QUOTA_BYTES
    if not re.fullmatch(r"[1-9][0-9]{0,15}", text):
        raise StoreError(f"quota={text[:32]!r} of the store is no number of bytes")
    return int(text)


def _endpoint(host: str) -> str:
    found = _HOST.fullmatch(host)
    port = int(found[3] or PORT) if found else 0
    if found is None or not 0 < port <= MAX_PORT:
        raise StoreError(f"{host[:80]!r} is no HOST or HOST:PORT of etcd; expected {EXAMPLE}")
    return f"{found[1]}:{port}"


def _file(custody: Custody, name: str) -> Path | None:
    return custody.find(name) if name else None


def _password(options: Mapping[str, str], custody: Custody) -> str:
    """The password; "" where nobody gives one. Raises `StoreError`."""
    name = options.get("password-file", "")
    try:
        given = custody.secret(PASSWORD_VARIABLE, _WHAT)
        from_file = custody.password(name, _WHAT) if name else ""
    except InvalidValueError as error:
        raise StoreError(str(error)) from None
    if given and from_file:
        raise StoreError(
            f"both password-file= and {PASSWORD_VARIABLE}[_FILE] give the password of etcd: take "
            "one of them out"
        )
    return given or from_file


def _shown(url: str) -> str:
    return url.partition("?")[0][:80]
