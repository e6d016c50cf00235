"""Which server, which colony, whose key: flags > environment > the state folder > default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colonist_cli.exits import CliError, Exit
from colonist_cli.output import note
from colonist_cli.place import Notes, Place

if TYPE_CHECKING:
    from colonist_client.environment import Settings as Variables
    from colonist_client.sealer import Pin
    from colonist_protocol.identity import Identity

SERVER_ID: Final = "COLONIST_SERVER_ID"
DEFAULT_SERVER: Final = "http://127.0.0.1:50080"


class Role(StrEnum):
    """Whose key a request is signed with."""

    MEMBER = "member"
    COLONY = "colony owner"
    SERVER = "server owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What was said on the command line, common to all commands."""

    home: Path | None = None
    server: str = ""
    colony: str = ""
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Signer:
    """A key and where it came from."""

    identity: Identity
    origin: str


@dataclass(frozen=True, slots=True)
class _Source:
    variable: str
    of_variables: Callable[[Variables], Identity | None]
    of_notes: Callable[[Notes], str]


_SOURCES: Final = {
    Role.MEMBER: _Source("COLONIES_PRVKEY", lambda v: v.identity, lambda n: n.key),
    Role.COLONY: _Source(
        "COLONIES_COLONY_PRVKEY", lambda v: v.colony_identity, lambda n: n.colony_key
    ),
    Role.SERVER: _Source(
        "COLONIES_SERVER_PRVKEY", lambda v: v.server_identity, lambda n: n.server_key
    ),
}


class Settings:
    """The layers, read once."""

    def __init__(self, flags: Flags, environment: Mapping[str, str], place: Place) -> None:
        """Raises `CliError`, `InvalidValueError`."""
        from colonist_client.custody import Custody
        from colonist_client.environment import from_environment

        self._flags = flags
        self._environment = environment
        self._custody = Custody(environment)
        self._variables = from_environment(environment, self._custody)
        self._place = place
        self._notes = place.read()

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._flags.server or self._variables.url or self._notes.server or DEFAULT_SERVER

    @property
    def server_id(self) -> str:
        """The id of the server whose replies are believed; "" where none is pinned.

        The pin holds for whatever URL: one that is given, or mistyped, must not undo it unseen.
        """
        return self._variables.server_id or self._notes.server_id

    @property
    def pin_origin(self) -> str:
        """Where the pin stands, or would stand, for a person to look at."""
        if self._variables.server_id or not self._notes.server_id:
            return SERVER_ID
        return f"server_id in {self._place.notes_file}, or {SERVER_ID}"

    def pin(self) -> Pin | None:
        """The pinned server; where its key has changed, the state folder is told."""
        from colonist_client.sealer import Pin

        return Pin(self.server_id, self._moved) if self.server_id else None

    def _moved(self, server_id: str) -> None:
        if self._variables.server_id:
            note(f"the server's key has changed: set {SERVER_ID} to {server_id}")
        else:
            self._place.write(replace(self._place.read(), server_id=server_id))

    @property
    def executor_type(self) -> str:
        """The type of executor that work is for, or ""."""
        return self._variables.executor_type or self._notes.executor_type

    @property
    def executor_name(self) -> str:
        """The executor that the environment speaks of, or ""."""
        return self._variables.executor_name

    @property
    def colony(self) -> str:
        """The colony. Raises `CliError` where nobody says."""
        found = self._flags.colony or self._variables.colony or self._notes.colony
        if not found:
            raise CliError(
                Exit.USAGE,
                "which colony? --colony NAME, COLONIES_COLONY_NAME, or start one: colonist up",
            )
        return found

    def signer(self, role: Role) -> Signer:
        """The key to sign with. Raises `CliError` where there is none."""
        found = self.find_signer(role)
        if found is None:
            raise CliError(
                Exit.USAGE,
                f"this needs the key of a {role}: --key FILE, {_SOURCES[role].variable}[_FILE], "
                "or start a colony of your own: colonist up",
            )
        return found

    def find_signer(self, role: Role) -> Signer | None:
        """The key to sign with, if there is one."""
        from colonist_client import keyfile

        source = _SOURCES[role]
        if self._flags.key is not None:
            path = self._flags.key.expanduser()
            return Signer(keyfile.read(path, self._custody), str(self._flags.key))
        if (identity := source.of_variables(self._variables)) is not None:
            return Signer(identity, source.variable)
        if name := source.of_notes(self._notes):
            path = self._place.root / name
            return Signer(keyfile.read(path, self._custody), str(path))
        return None

    def knows(self, role: Role) -> bool:
        """Whether somebody says which key that is; it is not opened."""
        source = _SOURCES[role]
        named = self._flags.key or source.of_notes(self._notes)
        return bool(named) or source.of_variables(self._variables) is not None

    def key_file(self, role: Role) -> Path:
        """The file that the key is in. Raises `CliError` where it is in none."""
        source = _SOURCES[role]
        if self._flags.key is not None:
            return self._flags.key.expanduser()
        if self._environment.get(source.variable):
            raise CliError(
                Exit.USAGE,
                f"the key is in {source.variable}, which this cannot change: use --key FILE",
            )
        if named := self._environment.get(f"{source.variable}_FILE"):
            return self._custody.find(named)
        if noted := source.of_notes(self._notes):
            return self._place.root / noted
        raise CliError(Exit.USAGE, f"which key of a {role}? --key FILE")

    def key_file_named(self, name: str) -> Path:
        """The file of the key of this name in the state folder; `--key` wins."""
        given = self._flags.key
        return self._place.key(name) if given is None else given.expanduser()
