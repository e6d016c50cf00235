"""The bridge's configuration: one frozen value, from file < environment < flags, checked whole.

A name is the same in all three: `broker_url` in the file, `COLONIST_BRIDGE_BROKER_URL` in the
environment, `--broker-url` as a flag. A secret stands in a file of its own, `password_file`, or a
systemd credential; a file with the password in it must be readable by its owner only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from colonist_client import keyfile
from colonist_client.custody import Custody
from colonist_client.http import check_url
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity, is_id
from colonist_protocol.topics import DEFAULT_PREFIX, Topics

ENVIRONMENT: Final = "COLONIST_BRIDGE_"
PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """What a bridge needs to know. Raises `InvalidValueError` for what cannot work."""

    name: str
    server_url: str
    broker_url: str
    prefix: str = DEFAULT_PREFIX
    server_id: str = ""
    colony: str = ""
    key_file: str = ""
    identity: Identity | None = field(default=None, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    broker_ca_file: str = ""
    server_ca_file: str = ""
    max_request_bytes: int = 1_500_000
    max_reply_bytes: int = 4_000_000
    max_requests: int = 5000
    max_requests_per_device: int = 8
    max_held_per_device: int = 64
    max_outside: int = 64
    max_open_bytes: int = 64 * 1024 * 1024
    max_devices: int = 100_000
    reply_s: float = 30.0
    hold_s: float = 900.0
    retry_after_s: float = 10.0
    reconnect_base_s: float = 0.5
    reconnect_cap_s: float = 60.0

    def __post_init__(self) -> None:
        Topics(self.prefix).gateway(self.name, "state")
        check_url(self.server_url)
        if self.server_id and not is_id(self.server_id):
            raise InvalidValueError("server_id is not 64 lower-case hex characters")
        split_broker_url(self.broker_url)
        if self.identity is not None and not (self.colony and self.server_id):
            raise InvalidValueError("key_file is of use with colony and server_id only: set both")
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, int | float) and value <= 0:
                raise InvalidValueError(f"{limit.name} is {value}: it must be above 0")

    @property
    def account(self) -> str:
        """User name and client id at the broker."""
        return self.username or f"gw-{self.name}"


def load(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, str | None]
) -> BridgeConfig:
    """Read, merge, check. Raises `InvalidValueError`, also for a name that does not exist."""
    known = {item.name for item in fields(BridgeConfig)} - {"identity"}
    custody = Custody(environ)
    merged: dict[str, Any] = {}
    if file is not None:
        merged |= _file(file, custody)
    merged |= {
        name.removeprefix(ENVIRONMENT).lower(): value
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT)
    }
    merged |= {name: value for name, value in flags.items() if value is not None}
    if unknown := sorted(merged.keys() - known):
        raise InvalidValueError(f"no such setting: {', '.join(unknown)}")
    if name := str(merged.get("password_file", "")):
        if merged.get("password"):
            raise InvalidValueError("both password and password_file are set: take one of them out")
        merged["password"] = custody.password(name, "password_file")
    if name := str(merged.get("key_file", "")):
        merged["identity"] = keyfile.read(custody.find(name), custody)
    try:
        return msgspec.convert(merged, BridgeConfig, strict=False, dec_hook=lambda _, value: value)
    except msgspec.ValidationError as error:
        raise InvalidValueError(f"configuration: {error}") from None


def split_broker_url(url: str) -> tuple[bool, str, int]:
    """Whether TLS, host and port of `mqtt[s]://host[:port]`. Raises `InvalidValueError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidValueError("the broker's URL cannot be read") from None
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise InvalidValueError("the broker's URL is not mqtt[s]://host[:port]")
    if parts.username or parts.password:
        raise InvalidValueError("the broker's URL holds a password: it belongs into password_file")
    return parts.scheme == "mqtts", parts.hostname, port or PORTS[parts.scheme]


def _file(path: Path, custody: Custody) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidValueError(f"{path}: {error}") from None
    if "password" in found:
        custody.check(path, "with a password in it, the file")
    return found
