"""The state folder: what `colonist up` keeps, and where the other commands find it.

colonist.toml    where the server is, which colony, which keys; written by `up`
store.db         the server's store
etcd/            the store of `up --nodes N`: the data of an etcd, and its log
keys/            one private key a file, mode 0600
agent.toml       what the two agents of `up` may do; yours to edit
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colonist_cli.exits import CliError, Exit

if TYPE_CHECKING:
    from colonist_client.custody import Custody

HOME_VARIABLE: Final = "COLONIST_HOME"

_HEAD: Final = "# Written by `colonist up`. Flags and environment variables win over it.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What `colonist.toml` holds; "" where it says nothing. Key files: relative to the folder."""

    server: str = ""
    broker: str = ""
    colony: str = ""
    executor_type: str = ""
    key: str = ""
    colony_key: str = ""
    server_key: str = ""
    server_id: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One state folder, and the environment that says how its keys are opened."""

    root: Path
    environment: Mapping[str, str] = field(
        default_factory=dict[str, str], repr=False, compare=False
    )

    @property
    def custody(self) -> Custody:
        """What opens the keys."""
        from colonist_client.custody import Custody

        return Custody(self.environment)

    @property
    def notes_file(self) -> Path:
        """What `up` wrote down."""
        return self.root / "colonist.toml"

    @property
    def store(self) -> Path:
        """The server's store."""
        return self.root / "store.db"

    @property
    def etcd(self) -> Path:
        """The folder of the etcd that several nodes share."""
        return self.root / "etcd"

    @property
    def keys(self) -> Path:
        """The folder of key files."""
        return self.root / "keys"

    @property
    def agent_file(self) -> Path:
        """What the agents of `up` may do."""
        return self.root / "agent.toml"

    def key(self, name: str) -> Path:
        """The file of a key."""
        return self.keys / f"{name}.key"

    def make(self) -> None:
        """Make the folders, for their owner only."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.keys.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise CliError(Exit.NOT_STARTED, f"{self.keys}: {error.strerror}") from None

    def read(self) -> Notes:
        """What was written down; empty notes where there is no file."""
        try:
            found = tomllib.loads(self.notes_file.read_text())
        except FileNotFoundError:
            return Notes()
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise CliError(Exit.USAGE, f"{self.notes_file}: {error}") from None
        known = {item.name for item in fields(Notes)}
        kept = {name: value for name, value in found.items() if name in known}
        if wrong := [name for name, value in kept.items() if not isinstance(value, str)]:
            raise CliError(Exit.USAGE, f"{self.notes_file}: {wrong[0]} is no text")
        return Notes(**kept)

    def write(self, notes: Notes) -> None:
        """Write down, whole or not at all."""
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in asdict(notes).items()]
        draft = self.notes_file.with_suffix(".new")
        draft.write_text(_HEAD + "".join(lines))
        draft.replace(self.notes_file)


def find_place(flag: Path | None, environment: Mapping[str, str]) -> Place:
    """`--home`, else `COLONIST_HOME`, else the user's data folder."""
    if flag is not None:
        return Place(flag.expanduser().absolute(), environment)
    if named := environment.get(HOME_VARIABLE, ""):
        return Place(Path(named).expanduser().absolute(), environment)
    data = environment.get("XDG_DATA_HOME", "")
    base = Path(data) if data else Path.home() / ".local" / "share"
    return Place(base / "colonist", environment)
