"""The agent's configuration: one frozen value, from file < environment < flags, checked whole.

A name is the same in all three: `check_s` in the TOML file, `COLONIST_AGENT_CHECK_S` in the
environment, `--check-s` as a flag. The variables of the existing SDKs (`COLONIES_SERVER_HOST`,
`COLONIES_PRVKEY`, ...) count as environment too; ours win over them. Keys and passwords stand in
files of their own, which nobody else can read; a bare name is one of systemd's credentials.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from colonist_agent.command import CommandSpec
from colonist_client import keyfile
from colonist_client.custody import Custody
from colonist_client.environment import from_environment
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity, is_id
from colonist_protocol.names import check_name
from colonist_protocol.topics import DEFAULT_PREFIX
from colonist_protocol.units import parse_cpu, parse_memory

ENVIRONMENT: Final = "COLONIST_AGENT_"
BUILTINS: Final = ("sysinfo", "sample", "checksum", "echo", "sleep")
SCHEMES: Final = frozenset({"http", "https", "mqtt", "mqtts"})

_NOT_SETTABLE: Final = frozenset({"identity"})
_ONLY_IN_FILE: Final = frozenset({"commands"})
_LISTS: Final = frozenset({"builtins", "checksum_roots", "checksum_hosts"})
_MAY_BE_ZERO: Final = frozenset({"stop_grace_s"})
_LEVELS: Final = frozenset({"debug", "info", "warning", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What an agent needs to know. Raises `InvalidValueError` for what cannot work."""

    url: str
    colony: str
    identity: Identity
    name: str = ""
    key_file: str = ""
    password_file: str = ""
    server_id: str = ""
    server_id_file: str = ""
    ca_file: str = ""
    prefix: str = DEFAULT_PREFIX
    slots: int = 1
    poll_s: int = 30
    check_s: float = 15.0
    stop_grace_s: float = 20.0
    queue_limit: int = 1000
    cpu: str = ""
    memory: str = ""
    builtins: list[str] = field(default_factory=lambda: list(BUILTINS))
    checksum_roots: list[str] = field(default_factory=list[str])
    checksum_hosts: list[str] = field(default_factory=list[str])
    checksum_max_bytes: int = 1 << 30
    commands: dict[str, CommandSpec] = field(default_factory=dict[str, CommandSpec])
    log_level: str = "info"

    def __post_init__(self) -> None:
        check_name(self.colony, "colony")
        if self.server_id and not is_id(self.server_id):
            raise InvalidValueError("server_id is not 64 lower-case hex characters")
        parse_cpu(self.cpu)
        parse_memory(self.memory)
        if self.scheme not in SCHEMES:
            raise InvalidValueError("url is not http[s]://host:port or mqtt[s]://host:port")
        if "@" in urlsplit(self.url).netloc:
            raise InvalidValueError("url holds a user name: a password belongs into password_file")
        if unknown := sorted(set(self.builtins) - set(BUILTINS)):
            raise InvalidValueError(f"builtins: there is no {', '.join(unknown)}")
        if self.log_level not in _LEVELS:
            raise InvalidValueError(f"log_level is none of {', '.join(sorted(_LEVELS))}")
        if any(not Path(root).is_absolute() for root in self.checksum_roots):
            raise InvalidValueError("checksum_roots holds a path that is not absolute")
        for item in fields(self):
            _check_positive(item.name, getattr(self, item.name))

    @property
    def scheme(self) -> str:
        """`http`, `https`, `mqtt` or `mqtts`."""
        return urlsplit(self.url).scheme

    def describe(self) -> str:
        """The configuration in lines of TOML style; of the key its id only."""
        shown = {item.name: getattr(self, item.name) for item in fields(self)}
        shown["identity"] = self.identity.id
        shown["commands"] = sorted(self.commands)
        return "\n".join(f"{name} = {value!r}" for name, value in shown.items())


def load(
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, str | None],
    custody: Custody | None = None,
) -> AgentConfig:
    """Read, merge, check. Raises `InvalidValueError`, also for a name that does not exist."""
    custody = custody or Custody(environment)
    merged = _file(file) if file is not None else {}
    _refuse_unknown(merged.keys() - _settable())
    given = from_environment(environment, custody)
    standard = {
        "url": given.url,
        "colony": given.colony,
        "name": given.executor_name,
        "server_id": given.server_id,
    }
    merged |= {name: value for name, value in standard.items() if value}
    ours = {
        name.removeprefix(ENVIRONMENT).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT)
    }
    ours |= {name: value for name, value in flags.items() if value is not None}
    _refuse_unknown(ours.keys() - (_settable() - _ONLY_IN_FILE))
    merged |= {name: _listed(value) if name in _LISTS else value for name, value in ours.items()}
    path = str(merged.get("key_file", ""))
    identity = keyfile.read(custody.find(path), custody) if path else given.identity
    return _checked(merged, identity)


def _checked(merged: dict[str, Any], identity: Identity | None) -> AgentConfig:
    for name in ("url", "colony"):
        if not merged.get(name):
            variable = f"{ENVIRONMENT}{name.upper()}"
            raise InvalidValueError(f"{name} is missing: in the file, as a flag, or {variable}")
    if identity is None:
        raise InvalidValueError("the executor's key is missing: set key_file, or COLONIES_PRVKEY")
    try:
        return msgspec.convert(
            {**merged, "identity": identity},
            AgentConfig,
            strict=False,
            dec_hook=lambda _, value: value,
        )
    except msgspec.ValidationError as error:
        raise InvalidValueError(f"configuration: {error}") from None


def _settable() -> frozenset[str]:
    return frozenset(item.name for item in fields(AgentConfig)) - _NOT_SETTABLE


def _refuse_unknown(names: frozenset[str] | set[str]) -> None:
    if names:
        raise InvalidValueError(f"no such setting: {', '.join(sorted(names))}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, (int, float)) and not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)):
        raise InvalidValueError(f"{name} is {value}: it must be above 0")


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidValueError(f"{path}: {error}") from None
