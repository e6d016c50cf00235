#!/usr/bin/env python3
"""Write docs/reference/cli.md from the command itself; a test says that it is fresh.

.venv/bin/python scripts/make_cli_reference.py
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import typer

from colonist_cli.exits import MEANINGS
from colonist_cli.main import ABOUT, app
from colonist_cli.settings import DEFAULT_SERVER

FILE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"

KINDS = {int: "N", float: "N", str: "TEXT", Path: "PATH"}
SHARED = ("--server", "--colony", "--key", "--home", "--output", "--help")
HEAD = f"""\
# colonist

Made by `scripts/make_cli_reference.py`; edit the command, not this page.

{ABOUT}

## Settings

Flags win over the environment, this over the state folder, and this over defaults.

| flag | environment | in `colonist.toml` of the state folder | default |
|---|---|---|---|
| `--home DIR` | `COLONIST_HOME` | | `$XDG_DATA_HOME/colonist`, `~/.local/share/colonist` |
| `--server URL` | `COLONIES_SERVER_HOST`, `.._PORT`, `.._TLS` | `server` | `{DEFAULT_SERVER}` |
| `--colony NAME` | `COLONIES_COLONY_NAME` | `colony` | |
| `--key FILE`, as a member | `COLONIES_PRVKEY[_FILE]` | `key` | |
| `--key FILE`, as colony owner | `COLONIES_COLONY_PRVKEY[_FILE]` | `colony_key` | |
| `--key FILE`, as server owner | `COLONIES_SERVER_PRVKEY[_FILE]` | `server_key` | |
| `--type NAME` | `COLONIES_EXECUTOR_TYPE` | `executor_type` | |
| (the *pin*: whose replies count) | `COLONIST_SERVER_ID` | `server_id` | nothing is sealed |

Most commands sign with a member's key (a user's or an executor's), `executor add`, `approve`,
`reject`, `remove`, `user add`, `remove` and `colony pause`, `resume`, `history` with the colony
owner's, `colony add`, `list`, `remove` and `stats --all` with the server owner's. `rotate-key`
signs with the key that it changes, which must be in a file. `--key` stands for whichever the
command needs. The pin holds with any `--server`: nobody else's reply is believed there. For another
server set `COLONIST_SERVER_ID` to its id. `colonist up` writes `colonist.toml`. `NO_COLOR` turns
colours off.

`-o json` prints what the server sent, in the protocol's own names; `watch` one JSON a line. Results
go to stdout, everything else to stderr.

## Exit codes

| code | meaning |
|---|---|
"""


def text() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    codes = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return HEAD + codes + "".join(section(name, each) for name, each in leaves(root, "colonist"))


def leaves(command: Any, path: str) -> list[tuple[str, Any]]:
    """All commands that do something, with their full names."""
    below = getattr(command, "commands", None)
    if below is None:
        return [(path, command)]
    does_something = command.invoke_without_command and " " in path
    own = [(path, command)] if does_something else []
    return own + [leaf for name, each in below.items() for leaf in leaves(each, f"{path} {name}")]


def section(name: str, command: Any) -> str:
    """One command."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join([name, *(metavar(each) for each in arguments)])
    rows = [f"| `{metavar(each)}` | {each.help or ''} |" for each in arguments]
    rows += [row(each) for each in options if each.opts[0] not in SHARED]
    shared = [f"`{each.opts[0]}`" for each in options if each.opts[0] in SHARED]
    parts = [f"\n## {name}\n", f"`{usage}`\n", f"{body(command)}\n"]
    if rows:
        parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    if shared:
        parts.append(f"Also: {', '.join(shared)}.\n")
    return "\n".join(parts)


def body(command: Any) -> str:
    """What it does: the paragraphs of its help."""
    paragraphs = (command.help or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def row(option: Any) -> str:
    """One option."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    said = "" if option.is_bool_flag else f" `{metavar(option)}`"
    default = option.default
    is_plain = default is None or callable(default) or default in ("", False, 0, ())
    shown = "" if is_plain else f" Default: {getattr(default, 'value', default)}."
    return f"| {names}{said} | {option.help or ''}{shown} |"


def metavar(param: Any) -> str:
    """What stands for its value."""
    if param.metavar:
        return str(param.metavar).replace("|", "\\|")
    kind = param.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "\\|".join(str(choice.value) for choice in kind)
    return KINDS.get(kind, "VALUE")


if __name__ == "__main__":
    FILE.write_text(text())
