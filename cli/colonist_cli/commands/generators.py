"""`colonist generator`: arguments that are collected until they are enough for a workflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.commands.work import Type
from colonist_cli.commands.workflows import around
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form, note
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from colonist_cli.documents import GeneratorFile
    from colonist_client.client import Client
    from colonist_protocol.generator import Generator

GeneratorName = Annotated[str, typer.Argument(metavar="ID|NAME", help="Its id, or its name.")]

generators = typer.Typer(help="Arguments collected for workflows.", no_args_is_help=True)


@command(generators, "add")
async def add_generator(
    shell: Shell,
    *,
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="A generator in JSON; flags win.")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Its name in the colony.")] = "",
    trigger: Annotated[
        int | None, typer.Option("--trigger", metavar="N", help="Arguments of one workflow.")
    ] = None,
    after: Annotated[
        str,
        typer.Option("--timeout", metavar="TIME", help="Fewer are enough after 30s, 1h; else not."),
    ] = "",
    workflow: Annotated[
        str, typer.Option("--workflow", metavar="FILE|-", help="What it starts, in JSON.")
    ] = "",
    type: Type = "",
) -> None:
    """Start a workflow for every so many arguments; prints the generator's id.

    A FILE has name, trigger, timeout in seconds, and workflowspec.
    """
    from colonist_cli import documents, durations

    base = documents.generator(file, documents.read(file)) if file else documents.GeneratorFile()
    source, data = _workflow(file, base, workflow)
    named = documents.colony_in(source, data) or base.colonyname
    spec = documents.workflow(source, data, around(shell, named, type))
    chosen = name or base.name
    if not chosen:
        raise CliError(Exit.USAGE, "which name? --name NAME")
    if not (trigger or base.trigger):
        raise CliError(Exit.USAGE, "after how many arguments? --trigger N")
    async with shell.client() as client:
        made = await client.add_generator(
            spec.colonyname,
            chosen,
            spec,
            trigger=base.trigger if trigger is None else trigger,
            timeout_s=durations.seconds_of(after, "--timeout") if after else base.timeout,
        )
    if shell.screen.form is Form.JSON:
        shell.screen.json(made)
    else:
        shell.screen.line(made.generatorid)


@command(generators, "pack", kind=Kind.CALL)
async def pack_generator(
    shell: Shell,
    generator: GeneratorName,
    arguments: Annotated[
        list[str], typer.Argument(metavar="ARG...|-", help="Each an argument; -: lines of stdin.")
    ],
) -> None:
    """Give a generator arguments, one after another, in this order.

    Stops at the first that fails, and says how many are there; after a lost reply one more may be.
    """
    from colonist_client.caller import OutcomeUnknownError
    from colonist_client.failure import ServerError
    from colonist_client.transport import UnreachableError

    packed = 0
    async with shell.client() as client:
        id = await _id_of(shell, client, generator)
        try:
            for each in _given(arguments):
                await client.pack_generator(id, each)
                packed += 1
        except (ServerError, UnreachableError) as error:
            doubt = ", and perhaps the next" if isinstance(error, OutcomeUnknownError) else ""
            note(f"{packed} arguments were packed{doubt}")
            raise


@command(generators, "list")
async def list_generators(shell: Shell) -> None:
    """List a colony's generators, oldest first."""
    from colonist_cli import definitions

    async with shell.client() as client:
        found = await client.generators(shell.settings.colony)
    shell.screen.rows(definitions.GENERATORS, found, empty="no generators yet")


@command(generators, "get")
async def get_generator(shell: Shell, generator: GeneratorName) -> None:
    """Show a generator and how many arguments wait at it."""
    from colonist_cli import definitions

    async with shell.client() as client:
        found = await _find(shell, client, generator)
    shell.screen.one(definitions.GENERATOR, found)


@command(generators, "remove", kind=Kind.CALL)
async def remove_generator(shell: Shell, generator: GeneratorName) -> None:
    """Remove a generator and the arguments that wait at it."""
    async with shell.client() as client:
        await client.remove_generator(await _id_of(shell, client, generator))


def _workflow(file: str, base: GeneratorFile, workflow: str) -> tuple[str, bytes]:
    """What it starts, and where that stands. Raises `CliError`."""
    from colonist_cli import documents

    if workflow:
        if workflow == file == "-":
            raise CliError(Exit.USAGE, "stdin can be read only once")
        return workflow, documents.read(workflow)
    if not bytes(base.workflowspec):
        raise CliError(Exit.USAGE, "what does it start? --workflow FILE, or workflowspec in FILE")
    return file, bytes(base.workflowspec)


def _given(arguments: Sequence[str]) -> Iterator[str]:
    from colonist_cli import stdin

    for each in arguments:
        if each != "-":
            yield each
            continue
        yield from stdin.lines()


async def _find(shell: Shell, client: Client, generator: str) -> Generator:
    from colonist_protocol.identity import is_id

    if is_id(generator):
        return await client.generator(generator)
    found = await client.generator_by_name(shell.settings.colony, generator)
    return await client.generator(found.generatorid)  # this one counts what waits


async def _id_of(shell: Shell, client: Client, generator: str) -> str:
    from colonist_protocol.identity import is_id

    if is_id(generator):
        return generator
    return (await client.generator_by_name(shell.settings.colony, generator)).generatorid
