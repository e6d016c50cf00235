"""`colonist workflow`: many processes of which some wait for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.commands.work import Timeout, Type, Which, checked
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form, clean, note
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from colonist_cli.board import Board
    from colonist_cli.documents import Around
    from colonist_client.client import Client
    from colonist_protocol.process import Process

PANEL = "Work"

WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Its id.")]
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE|-", help="A workflow in JSON, or a list of function specs; -: stdin."
    ),
]

workflows = typer.Typer(help="Processes that wait for each other.", no_args_is_help=True)


@command(workflows, "submit")
async def submit_workflow(
    shell: Shell,
    *,
    file: File,
    type: Type = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Until it has ended; how far it is.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="As --wait, with its tree, or a line for each change.")
    ] = False,
    timeout_s: Timeout = 0,
) -> None:
    """Submit a workflow; prints its id.

    With --wait or --follow: the results of its last nodes, and exit code 1 when it fails. The
    colony and the type of executor need not be in the file.
    """
    from colonist_cli import documents

    data = documents.read(file)
    spec = documents.workflow(file, data, around(shell, documents.colony_in(file, data), type))
    async with shell.client() as client:
        graph = await client.submit_workflow(spec)
        id = graph.processgraphid
        if not (wait or follow):
            if shell.screen.form is Form.JSON:
                shell.screen.json(graph)
            else:
                shell.screen.line(id)
            return
        note(f"workflow {id}")
        await _print_result(
            shell, client, await _ended(shell, client, id, timeout_s, is_tree=follow)
        )


@command(workflows, "list")
async def list_workflows(
    shell: Shell,
    state: Annotated[Which | None, typer.Option(help="Default: any.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="At most.")] = 20,
) -> None:
    """List workflows, newest first."""
    from colonist_cli import tables
    from colonist_protocol.process import State
    from colonist_protocol.workflow import ANY_STATE

    wanted = State[state.name] if state else ANY_STATE
    async with shell.client() as client:
        found = await client.workflows(shell.settings.colony, count=count, state=wanted)
    shell.screen.rows(tables.WORKFLOWS, found, empty="no such workflows")


@command(workflows, "get")
async def get_workflow(
    shell: Shell,
    workflow: WorkflowId,
    all: Annotated[
        bool, typer.Option("--all", help="Every node; else twenty siblings of a state, 500 lines.")
    ] = False,
) -> None:
    """Show a workflow as a tree: each node once, with its state, its time, and why it failed."""
    import time

    from colonist_cli import board, workflow_text
    from colonist_cli.tree import Fold

    checked(workflow, "workflow")
    async with shell.client() as client:
        if shell.screen.form is Form.JSON:
            shell.screen.json(await client.workflow(workflow))
            return
        found = await board.read(client, workflow)
    fold = None if all else Fold()
    workflow_text.print_(workflow_text.text_of(found, fold=fold, now_ns=time.time_ns()))


@command(workflows, "members")
async def list_members(
    shell: Shell,
    workflow: WorkflowId,
    state: Annotated[Which | None, typer.Option(help="Default: any.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="At most.")] = 100,
) -> None:
    """List the processes of a workflow, in the order of its nodes."""
    from colonist_cli import tables
    from colonist_protocol.process import State
    from colonist_protocol.workflow import ANY_STATE

    checked(workflow, "workflow")
    wanted = State[state.name] if state else ANY_STATE
    async with shell.client() as client:
        graph = await client.workflow(workflow)
        found = await client.workflow_members(graph.colonyname, workflow, count=count, state=wanted)
    shell.screen.rows(tables.MEMBERS, found, empty="no such members")
    if state is None and len(graph.processids) > len(found):
        note(f"the first {len(found)} of {len(graph.processids)}: --state, or workflow get --all")


@command(workflows, "cancel", kind=Kind.CALL)
async def cancel_workflow(shell: Shell, workflow: WorkflowId) -> None:
    """End what has not ended of a workflow."""
    async with shell.client() as client:
        await client.cancel_workflow(checked(workflow, "workflow"))


@command(workflows, "remove", kind=Kind.CALL)
async def remove_workflow(shell: Shell, workflow: WorkflowId) -> None:
    """Remove a workflow that is not running, with its processes."""
    async with shell.client() as client:
        await client.remove_workflow(checked(workflow, "workflow"))


def around(shell: Shell, named: str, type: str = "") -> Around:
    """What completes a workflow of a file, which names this colony or none."""
    from colonist_cli.documents import Around

    colony = named if named and not shell.flags.colony else shell.settings.colony
    return Around(colony=colony, type=type or shell.settings.executor_type, flag=shell.flags.colony)


async def _ended(
    shell: Shell, client: Client, id: str, timeout_s: float, *, is_tree: bool
) -> Board:
    from colonist_cli import workflow_live

    subscriber = shell.subscriber()
    if not is_tree:
        progress = workflow_live.Progress()
        return await workflow_live.follow(client, subscriber, id, progress, timeout_s=timeout_s)
    with workflow_live.tree_view() as view:
        return await workflow_live.follow(client, subscriber, id, view, timeout_s=timeout_s)


async def _print_result(shell: Shell, client: Client, board: Board) -> None:
    from colonist_cli import workflow_text
    from colonist_cli.board import results
    from colonist_cli.tables import state_name
    from colonist_protocol.process import State

    graph = board.graph
    if shell.screen.form is Form.JSON:
        shell.screen.json(graph)
    else:
        found = await results(client, board)
        is_one = len(board.last) == 1
        for name, process in found:
            _print_outputs(shell, "" if is_one else f"{name}\t", process)
    if graph.state != State.SUCCESS:
        why = workflow_text.reasons(board)
        what = f"workflow {graph.processgraphid} {state_name(graph.state)}"
        raise CliError(Exit.FAILED, f"{what}: {why}" if why else what)


def _print_outputs(shell: Shell, head: str, process: Process) -> None:
    from colonist_cli.tables import printed

    for value in process.output():
        shell.screen.line(clean(head + printed(value)))
