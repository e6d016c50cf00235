"""What a server is told: from flags, environment and defaults, validated whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import is_id

MEBIBYTE = 1_048_576
PORTS = range(65_536)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The server's settings. Raises `InvalidValueError` for what makes no sense.

    `separate_writer` gives the store's writer a process of its own: faster for many clients.
    `store` is `sqlite:PATH`; `owner` the server owner's id, "" to make a key at the first start;
    `keys` the folder of key files, by default beside the store.
    """

    host: str = "127.0.0.1"
    port: int = 50080
    store: str = "sqlite:colonist.db"
    owner: str = ""
    keys: Path | None = None
    node: str = "node-1"
    separate_writer: bool = False
    births_bytes: int = 128 * MEBIBYTE
    may_reregister: bool = False
    stale_s: float = 600.0
    presence_every_s: float = 60.0
    tallies_every_s: float = 10.0
    shutdown_s: float = 10.0

    def __post_init__(self) -> None:
        if self.port not in PORTS:
            raise InvalidValueError(f"port {self.port} is not 0 to 65535")
        if not self.store.startswith("sqlite:") or not self.store.removeprefix("sqlite:"):
            raise InvalidValueError(f"store {self.store[:80]!r} is not sqlite:PATH")
        if self.owner and not is_id(self.owner):
            raise InvalidValueError("the server owner's id is not 64 lower-case hex characters")
        if not self.node or "/" in self.node:
            raise InvalidValueError(f"node name {self.node[:64]!r} is empty or holds a slash")

    @property
    def store_path(self) -> Path:
        """The file of the embedded store."""
        return Path(self.store.removeprefix("sqlite:"))

    @property
    def keys_path(self) -> Path:
        """The folder of key files."""
        return self.keys or self.store_path.parent / "keys"
