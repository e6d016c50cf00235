"""`colonist audit`: evidence of what happened, read, exported, and checked without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form, note
from colonist_cli.settings import Role
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from colonist_cli.audit.export import Exported
    from colonist_client.client import Client

audits = typer.Typer(help="Evidence of what happened, for anyone to check.", no_args_is_help=True)

ServerId = Annotated[
    str,
    typer.Option("--server-id", metavar="ID", help="The pinned server id; default: the settings'."),
]


@command(audits, "show")
async def show(
    shell: Shell,
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="Its id.")],
    *,
    server_id: ServerId = "",
) -> None:
    """Show the events of a process, each with who signed it; exit code 1 if one is wrong."""
    from colonist_cli.audit import show as showing
    from colonist_cli.commands.work import checked
    from colonist_protocol.audit_reading import AuditError

    pin = server_id or shell.settings.server_id
    async with shell.client() as client:
        evidence = await client.process_evidence(checked(process))
        names = await _names(client, shell.settings.colony)
    try:
        rows = showing.shown(evidence, pin, names)
    except AuditError as error:
        raise CliError(Exit.FAILED, f"the evidence is wrong: {error}") from None
    shell.screen.rows(showing.SHOWN, rows, empty="no events")
    if not pin:
        note("no server id is pinned (--server-id): checkpoints are as the server itself says")
    if not all(row.is_sound for row in rows):
        raise CliError(Exit.FAILED, "the evidence is wrong, see the last event")


async def _names(client: Client, colony: str) -> Mapping[str, str]:
    executors = await client.executors(colony)
    users = await client.users(colony)
    found = {each.executorid: each.executorname for each in executors}
    return found | {each.userid: each.name for each in users}


@command(audits, "export")
async def export(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Write all evidence of a colony into a file; needs the key of the colony's owner."""
    from colonist_cli.audit import export as exporting

    def tell(done: Exported) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done.events} events, {done.bytes >> 20} MiB")
            sys.stderr.flush()

    async with shell.client(Role.COLONY) as client:
        pages = client.audit_pages(shell.settings.colony)
        done = await exporting.export(pages, file.expanduser(), tell, may_replace=force)
    if sys.stderr.isatty():
        note("")
    told = {"file": str(file), **done._asdict()}
    if shell.screen.form is Form.JSON:
        shell.screen.json(told)
        return
    for name, value in told.items():
        shell.screen.line(f"{name:<11}  {value}")


@command(audits, "verify", kind=Kind.LOCAL_SHOW)
def verify(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that export made.")],
    *,
    server_id: ServerId = "",
    receipts: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Kept replies, whose events must be in FILE."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, max=1024, help="Processes; 0: one for each core.")
    ] = 0,
) -> None:
    """Check a file of evidence without any server; exit code 1 if something is wrong.

    What is wrong first is named, with its place.
    """
    from concurrent.futures.process import BrokenProcessPool

    from colonist_cli.audit import report
    from colonist_cli.audit.verify import verify as checked
    from colonist_protocol.identity import is_id

    pin = server_id or shell.settings.server_id
    if not is_id(pin):
        raise CliError(
            Exit.USAGE,
            "which server? --server-id ID, the id that you pinned: a file vouches only for itself",
        )
    try:
        found = checked(file.expanduser(), pin, receipts=receipts, jobs=jobs)
    except OSError as error:
        name = error.filename or file
        raise CliError(Exit.USAGE, f"{name} cannot be read: {error.strerror}") from error
    except BrokenProcessPool:
        why = "a process of the verification was ended from outside; too little memory? --jobs 1"
        raise CliError(Exit.UNAVAILABLE, why) from None
    if shell.screen.form is Form.JSON:
        shell.screen.json(found)
    elif found.sound:
        for line in report.lines(found):
            shell.screen.line(line)
    if not found.sound:
        raise CliError(Exit.FAILED, f"{file}: {report.fault(found)}")
