"""`colonist backup`, `restore` and `store`: what servers keep, without asking a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form
from colonist_cli.shell import Shell

PANEL = "The store"

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", help="sqlite:PATH or etcd://HOST/PREFIX; default: ours here."
    ),
]
ArchiveUrl = Annotated[
    str, typer.Option("--archive", metavar="URL", help="The archive of its history, if it has one.")
]

stores = typer.Typer(help="What servers keep: move, check, look.", no_args_is_help=True)


def add(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "backup", kind=Kind.LOCAL_SHOW, panel=PANEL)(backup)
    command(app, "restore", kind=Kind.LOCAL_SHOW, panel=PANEL)(restore)


async def backup(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    *,
    store: StoreUrl = "",
    archive: ArchiveUrl = "",
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Save a store and its archive in a file, while servers are at work on it."""
    from colonist_cli import stored

    saved = await stored.back_up(
        stored.url(shell, store), archive, file.expanduser(), may_replace=force
    )
    stored.show(shell, {"file": str(file), **saved._asdict()})


async def restore(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that backup made.")],
    *,
    store: StoreUrl = "",
    archive: ArchiveUrl = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Only see whether FILE is whole; restore nothing.")
    ] = False,
) -> None:
    """Restore a backup into an empty store, read it back and compare it.

    Servers start on it once it is whole. One that was cut off is to be repeated.
    """
    from colonist_cli import stored

    if verify:
        stored.show(shell, stored.verify(file.expanduser()))
        return
    done = await stored.bring_back(file.expanduser(), stored.url(shell, store), archive)
    stored.show(shell, {"file": str(file), **done._asdict()})


@command(stores, "migrate", kind=Kind.LOCAL_SHOW)
async def migrate(
    shell: Shell,
    *,
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="The store to read; it is not changed.")
    ],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="An empty store.")],
    from_archive: Annotated[
        str, typer.Option(metavar="URL", help="The archive to read, if there is one.")
    ] = "",
    to_archive: Annotated[str, typer.Option(metavar="URL", help="An empty archive.")] = "",
    force: Annotated[
        bool,
        typer.Option("--force", help="Even while servers are at work: what they write is lost."),
    ] = False,
) -> None:
    """Copy a store into another kind of store, read it back and compare it.

    Stop the servers first; then start them on the new store.
    """
    from colonist_cli import stored

    done = await stored.migrate(
        stored.Ends(source, from_archive), stored.Ends(target, to_archive), even_if_alive=force
    )
    stored.show(shell, done._asdict())


@command(stores, "check", kind=Kind.LOCAL_SHOW)
async def check(shell: Shell, *, store: StoreUrl = "") -> None:
    """Read every record, and compare those that must go together; exit code 1 for problems.

    Servers may be at work on it.
    """
    from colonist_cli import stored

    report = await stored.check(stored.url(shell, store))
    shell.screen.rows(stored.PROBLEMS, report.problems, empty="every record can be read")
    if report.problems:
        raise CliError(Exit.FAILED, f"{len(report.problems)} problems")


@command(stores, "status", kind=Kind.LOCAL_SHOW)
async def status(shell: Shell, *, store: StoreUrl = "") -> None:
    """Show a store's revision, size and keys of each kind; of etcd its quota and alarms too."""
    from colonist_cli import stored

    found = await stored.status(stored.url(shell, store))
    if shell.screen.form is Form.JSON:
        shell.screen.json(dict(found))
    else:
        for name, value in found:
            shell.screen.line(f"{name:<16}  {value}")


@command(stores, "drop", kind=Kind.LOCAL_SHOW)
async def drop(
    shell: Shell,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key as store check shows it.")],
    *,
    store: StoreUrl = "",
    force: Annotated[bool, typer.Option("--force", help="Even if it can be read.")] = False,
) -> None:
    """Give up one record that cannot be read. A server on an SQLite file must be stopped."""
    from colonist_cli import stored

    why = await stored.drop(stored.url(shell, store), key, even_if_sound=force)
    stored.show(shell, {"dropped": key, "why": why or "as told"})


@command(stores, "new-era", kind=Kind.LOCAL_SHOW)
async def new_era(
    shell: Shell,
    *,
    store: StoreUrl = "",
    force: Annotated[
        bool,
        typer.Option("--force", help="Even while servers are at work on etcd; they take it up."),
    ] = False,
) -> None:
    """Refuse all that was sealed before, after a snapshot or a copy was put in the store's place.

    Such a store has forgotten what took effect since, and would do it again if it were sent again.
    `restore` and `store migrate` do this by themselves. Stop the servers first.
    """
    from colonist_cli import stored

    minute = await stored.begin_era(stored.url(shell, store), even_if_alive=force)
    stored.show(shell, {"begun": "another era", "minute": minute})
