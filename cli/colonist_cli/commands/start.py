"""Commands that start something and run until Ctrl-C: `up`, `server`, `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colonist_cli.command import Kind, command, group_command
from colonist_cli.shell import Shell

PANEL = "Start something"

servers = typer.Typer()


def add(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "demo", kind=Kind.LOCAL, panel=PANEL)(demo)
    command(app, "up", kind=Kind.LOCAL, panel=PANEL)(up)
    group_command(servers, kind=Kind.LOCAL)(server)
    app.add_typer(servers, name="server", rich_help_panel=PANEL)


def up(
    shell: Shell,
    port: Annotated[int, typer.Option(help="The server's port; 0: a free one.")] = 50080,
    broker_port: Annotated[
        int, typer.Option(help="The MQTT broker's port; 0: a free one.")
    ] = 50883,
    colony: Annotated[str, typer.Option(metavar="NAME", help="The colony to found.")] = "home",
    nodes: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=9, help="Servers; several share an etcd that is started here."
        ),
    ] = 1,
) -> None:
    """Run a whole colony in one process: server, broker, bridge, two agents.

    A second run finds the same colony again. Ctrl-C stops everything. One node keeps its colony in
    a file; several nodes keep another one, in etcd.
    """
    from colonist_cli import up as program
    from colonist_cli.house import Plan

    plan = Plan(
        port=port,
        broker_port=broker_port,
        colony=colony,
        nodes=nodes,
        search=shell.environment.get("PATH", ""),
    )
    program.run_blocking(shell.place, plan)


def server(
    shell: Shell,
    *,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: a free one.")] = 50080,
    store: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="sqlite:PATH, or etcd://HOST,HOST/PREFIX; default: in the state folder.",
        ),
    ] = "",
    node: Annotated[
        str, typer.Option(metavar="NAME", help="This server's name, its own on a shared store.")
    ] = "",
    keys: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Key files; default: beside the store.")
    ] = None,
    retention_age: Annotated[
        str,
        typer.Option(metavar="AGE", help="Remove what ended so long ago: 30d, 12h; else nothing."),
    ] = "",
    retention_count: Annotated[
        int, typer.Option(metavar="N", help="Closed processes that a colony keeps; 0: all.")
    ] = 0,
    archive: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Where old history goes: sqlite:PATH, or postgresql://USER@HOST/DATABASE.",
        ),
    ] = "",
    archive_after_age: Annotated[
        str, typer.Option(metavar="AGE", help="It goes there so long after its end; default: 300s.")
    ] = "",
    archive_after_count: Annotated[
        str,
        typer.Option(
            metavar="N", help="Closed processes that the store keeps at most; default: 100000."
        ),
    ] = "",
    limits: Annotated[
        str,
        typer.Option(metavar="NAME=N,..", help="What callers may do: rate=100,polls=8; else much."),
    ] = "",
    plain_requests: Annotated[
        str,
        typer.Option(
            metavar="allow|refuse",
            help="What becomes of the server owner's requests that are not sealed.",
        ),
    ] = "",
) -> None:
    """Run the central server.

    At its first start it makes its keys and says where they are. COLONIES_SERVER_ID names the
    server owner instead, COLONIES_ALLOW_EXECUTOR_REREGISTER lets names be taken again,
    COLONIES_RETENTION=true with COLONIES_RETENTION_POLICY=SECONDS is --retention-age.
    """
    from colonist_cli import server as program

    if not store:
        shell.place.make()
        store = f"sqlite:{shell.place.store}"
    options = program.Options(
        host=host,
        port=port,
        store=store,
        keys=keys,
        node=node,
        retention_age=retention_age,
        retention_count=retention_count,
        archive=archive,
        archive_after_age=archive_after_age,
        archive_after_count=archive_after_count,
        plain_requests=plain_requests,
        limits=limits,
    )
    program.run_blocking(options, shell.environment)


def demo(
    shell: Shell,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what it made, and say where.")] = False,
) -> None:
    """Show the whole story on this machine: real work, two agents, a crash, in half a minute."""
    from colonist_cli.demo import story

    story.run_blocking(shell.environment, keep=keep)
