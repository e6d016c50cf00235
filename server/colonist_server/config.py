"""What a server is told: from flags, environment and defaults, validated whole."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from colonist_core import archiving
from colonist_core.lease import MAX_LIMIT_S
from colonist_core.limits import Limits, read_limits
from colonist_core.retention import Policy
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import is_id

MEBIBYTE = 1_048_576
NODE = "node-1"
PORTS = range(65_536)
MAX_NODE_BYTES = 255
RETENTION_VARIABLE = "COLONIES_RETENTION"
ARCHIVE_VARIABLE = "COLONIST_ARCHIVE"
PLAIN_VARIABLE = "COLONIST_PLAIN_REQUESTS"
ARCHIVE_AGE_VARIABLE = "COLONIST_ARCHIVE_AFTER_AGE"
ARCHIVE_COUNT_VARIABLE = "COLONIST_ARCHIVE_AFTER_COUNT"
LIMITS_VARIABLE = "COLONIST_LIMITS"
RETENTION_AGE_VARIABLE = "COLONIES_RETENTION_POLICY"

_AGE = re.compile(r"([0-9]{1,12})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def age_seconds(text: str) -> float:
    """An age as `30d`, `12h`, `90m`, `45s` or plain seconds. Raises `InvalidValueError`."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise InvalidValueError(f"age {text[:32]!r} is not a number with s, m, h or d, such as 30d")
    return float(int(found[1]) * _SECONDS[found[2]])


def retention_age(flag: str, environment: Mapping[str, str]) -> float:
    """The age of retention in seconds; the flag wins, 0: off. Raises `InvalidValueError`."""
    if flag:
        return age_seconds(flag)
    if environment.get(RETENTION_VARIABLE, "").lower() != "true":
        return 0.0
    text = environment.get(RETENTION_AGE_VARIABLE, "")
    if not text:
        raise InvalidValueError(
            f"{RETENTION_VARIABLE} is true, but {RETENTION_AGE_VARIABLE} does not say after how "
            "many seconds"
        )
    return age_seconds(text)


def limits(flag: str, environment: Mapping[str, str]) -> Limits:
    """The limits, each by the flag, else by the variable. Raises `InvalidValueError`."""
    return read_limits(flag, read_limits(environment.get(LIMITS_VARIABLE, "")))


def refuses_plain(flag: str, environment: Mapping[str, str]) -> bool:
    """Whether the server owner's requests must be sealed; the flag wins.

    Raises `InvalidValueError`.
    """
    text = flag or environment.get(PLAIN_VARIABLE, "allow")
    if text not in ("allow", "refuse"):
        raise InvalidValueError(f"plain requests: {text[:32]!r} is neither allow nor refuse")
    return text == "refuse"


def whole_number(text: str, what: str) -> int:
    """A count. Raises `InvalidValueError`."""
    if re.fullmatch("[0-9]{1,12}", text) is None:
        raise InvalidValueError(f"{what} {text[:32]!r} is not a whole number")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The server's settings. Raises `InvalidValueError` for what makes no sense.

    `separate_writer` gives an SQLite store's writer a process of its own: faster for many clients.
    `store` is `sqlite:PATH` or `etcd://HOST,HOST/PREFIX?OPTIONS`, which servers may share; `owner`
    the server owner's id, "" to make a key at the first start; `keys` the folder of key files, by
    default beside the store; `node` this node's name, "" for one that suits the store.
    `retention_age_s` and `retention_count` bound the history that each colony keeps, 0: all of it
    is kept. `refuses_plain`: the server owner's requests must be sealed. `archive` is
    `sqlite:PATH` or `postgresql://..`, "" for none; what ended so long ago, or is more than these,
    leaves the store for it.
    """

    host: str = "127.0.0.1"
    port: int = 50080
    store: str = "sqlite:colonist.db"
    owner: str = ""
    keys: Path | None = None
    node: str = NODE
    separate_writer: bool = False
    births_bytes: int = 128 * MEBIBYTE
    may_reregister: bool = False
    refuses_plain: bool = False
    stale_s: float = 600.0
    presence_every_s: float = 60.0
    tallies_every_s: float = 10.0
    shutdown_s: float = 10.0
    retention_age_s: float = 0.0
    retention_count: int = 0
    archive: str = field(default="", repr=False)  # it may hold a password
    archive_age_s: float = 300.0
    archive_count: int = 100_000
    archive_bytes: int = 512 * MEBIBYTE
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.port not in PORTS:
            raise InvalidValueError(f"port {self.port} is not 0 to 65535")
        if not re.match("sqlite:.|etcd://.", self.store):
            kind = self.store.partition(":")[0][:16]  # the rest may hold a password
            raise InvalidValueError(f"store {kind!r}: it is not sqlite:PATH or etcd://HOST")
        if self.owner and not is_id(self.owner):
            raise InvalidValueError("the server owner's id is not 64 lower-case hex characters")
        if not 0 <= self.retention_age_s <= MAX_LIMIT_S:
            raise InvalidValueError("the age of retention is not 0 to a century")
        if self.retention_count < 0:
            raise InvalidValueError("the count of retention is negative")
        self._check_archive()
        if "/" in self.node or len(self.node.encode()) > MAX_NODE_BYTES:
            raise InvalidValueError(
                f"node name {self.node[:64]!r} holds a slash, or more than {MAX_NODE_BYTES} bytes"
            )

    def _check_archive(self) -> None:
        if self.archive and not re.match("sqlite:.|postgres(ql)?://.", self.archive):
            raise InvalidValueError(
                "the archive's address is not sqlite:PATH or postgresql://user@host/database"
            )
        if not 0 <= self.archive_age_s <= MAX_LIMIT_S:
            raise InvalidValueError("the age of archiving is not 0 to a century")
        if self.archive_count < 0 or self.archive_bytes < 0:
            raise InvalidValueError("the count of archiving is negative")

    @property
    def archiving(self) -> archiving.Policy:
        """How much history the store keeps, where there is an archive."""
        return archiving.Policy(self.archive_age_s, self.archive_count, self.archive_bytes)

    def at(self, port: int, *, is_shared: bool) -> ServerConfig:
        """The same at a port that was taken, with a name for the node if it has none.

        On a store that nodes share it must be their own; on a file it must last over restarts.
        """
        name = self.node or (f"{socket.gethostname()}-{port}" if is_shared else NODE)
        return replace(self, port=port, node=name)

    @property
    def retention(self) -> Policy:
        """How much history is kept."""
        return Policy(self.retention_age_s, self.retention_count)

    @property
    def keys_path(self) -> Path:
        """The folder of key files: beside the embedded store, else in the working directory."""
        if self.keys is not None:
            return self.keys
        scheme, _, path = self.store.partition(":")
        return (Path(path).parent if scheme == "sqlite" else Path()) / "keys"
