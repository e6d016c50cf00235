"""The command `colonist`: every program and every remote procedure, for people and for scripts.

The root: the only module that reads the environment.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

from colonist_cli.commands import (
    agent,
    audit,
    colony,
    crons,
    enroll,
    events,
    generators,
    keys,
    members,
    records,
    rotate,
    start,
    store,
    work,
    workflows,
)
from colonist_cli.output import escape_what_stdout_lacks

ABOUT: Final = "Runs work on anything that can hold a key: cloud, edge gateway, microcontroller."

app = typer.Typer(
    name="colonist",
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
start.add(app)
app.add_typer(agent.agents, name="agent", rich_help_panel=start.PANEL)
app.add_typer(agent.bridges, name="bridge", rich_help_panel=start.PANEL)
work.add(app)
app.add_typer(workflows.workflows, name="workflow", rich_help_panel=work.PANEL)
app.add_typer(generators.generators, name="generator", rich_help_panel=work.PANEL)
app.add_typer(crons.crons, name="cron", rich_help_panel=work.PANEL)
store.add(app)
app.add_typer(store.stores, name="store", rich_help_panel=store.PANEL)
events.add(app)
app.add_typer(audit.audits, name="audit", rich_help_panel=work.PANEL)
records.add(app)
app.add_typer(colony.colonies, name="colony", rich_help_panel="Who is who")
app.add_typer(rotate.executors, name="executor", rich_help_panel="Who is who")
app.add_typer(enroll.enrolments, name="enroll", rich_help_panel="Who is who")
app.add_typer(members.users, name="user", rich_help_panel="Who is who")
app.add_typer(keys.keys, name="key", rich_help_panel="Who is who")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Take what comes before the command."""
    if version:
        from importlib.metadata import version as version_of

        print(f"colonist {version_of('colonist')}")
        raise typer.Exit


def main() -> None:
    """Run one command; exit codes are those of `colonist_cli.exits`."""
    if records.COMPLETING in os.environ:  # a shell asks what may follow
        from typer._completion_classes import completion_init

        completion_init()
    escape_what_stdout_lacks()
    sys.exit(app(obj=dict(os.environ), standalone_mode=True))


if __name__ == "__main__":
    main()
