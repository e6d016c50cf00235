"""`colonist agent run`: an agent in the foreground, with a journal of its runs if wanted."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from colonist_agent.config import AgentConfig, load
from colonist_agent.function import Registry
from colonist_agent.main import fill, run
from colonist_cli.exits import CliError, Exit
from colonist_client import logs

if TYPE_CHECKING:
    from colonist_cli.shell import Shell


def configure(shell: Shell, file: Path | None, flags: dict[str, str]) -> AgentConfig:
    """Flags > environment > file > state folder. Raises `CliError`, `InvalidValueError`."""
    try:
        return load(file, shell.environment, _completed(shell, file, flags))
    except OSError as error:
        raise CliError(Exit.USAGE, f"{error.filename}: {error.strerror}") from None


def run_blocking(config: AgentConfig, environment: Mapping[str, str], journal: Path | None) -> None:
    """Run until a signal. Raises `InvalidValueError`."""
    logs.begin(config.log_level.upper(), "%(asctime)s %(levelname)s %(message)s")
    functions = fill(Registry(), config, environment)
    if journal is not None:
        from colonist_cli.journal import Journal, journaled

        functions = journaled(functions, Journal(journal))
    bare = dataclasses.replace(config, commands={})  # they are in `functions` already
    asyncio.run(run(bare, registry=functions, environment=environment))


def _completed(shell: Shell, file: Path | None, flags: dict[str, str]) -> dict[str, str]:
    """What the state folder knows, for what nobody said; with a file, that says it all."""
    if file is not None:
        return flags
    notes, found = shell.place.read(), dict(flags)
    prefix, sdk = "COLONIST_AGENT_", "COLONIES_"
    known = {
        "url": (notes.server, f"{sdk}SERVER_HOST"),
        "colony": (notes.colony, f"{sdk}COLONY_NAME"),
    }
    for name, (value, variable) in known.items():
        said = {variable, f"{prefix}{name.upper()}"} & shell.environment.keys()
        if value and name not in found and not said:
            found[name] = value
    # What the state folder knows is about its own server, and the broker in front of it.
    if notes.server_id and found.get("url") in (notes.server, notes.broker):
        found.setdefault("server_id", notes.server_id)
    own = shell.place.key(flags["name"]) if flags.get("name") else None
    if own is not None and own.exists() and "key_file" not in found:
        found["key_file"] = str(own)
    return found
