"""`colonist enroll`: devices that nobody has added by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form, Screen, note, write
from colonist_cli.settings import SERVER_ID, Role
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from colonist_protocol.claims import Claim

enrolments = typer.Typer(help="Let devices become executors by a card.", no_args_is_help=True)

_MILLISECONDS = 1000


@command(enrolments, "create")
async def create_claim(
    shell: Shell,
    *,
    type: Annotated[str, typer.Option("--type", help="What kind of executor they become.")],
    count: Annotated[int, typer.Option(min=1, help="How many may enrol.")] = 1,
    expires: Annotated[str, typer.Option(metavar="TIME", help="For how long: 30m, 24h, 7d.")] = (
        "24h"
    ),
    ask: Annotated[
        bool, typer.Option("--ask", help="They wait until `colonist enroll approve`.")
    ] = False,
    host: Annotated[
        str, typer.Option(metavar="HOST[:PORT]", help="Where devices find the server.")
    ] = "",
    qr: Annotated[bool, typer.Option(help="Draw the card as a QR code.")] = True,
    light: Annotated[bool, typer.Option("--light", help="For a terminal with a light ground.")] = (
        False
    ),
) -> None:
    """Make a card by which devices enrol; prints its code and a QR code.

    Whoever has the card may enrol: give it only to those who set the devices up.
    """
    import time

    from colonist_cli import durations
    from colonist_cli.enrolling import new_card
    from colonist_protocol.claims import AddClaim, Approval, claim_key, pack_card

    settings = shell.settings
    if not settings.server_id:
        raise CliError(
            Exit.USAGE,
            f"a card names the server by its id: set {SERVER_ID} (see `colonist server id`)",
        )
    life_s = durations.seconds_of(expires, "--expires")
    card = new_card(settings.server, settings.server_id, settings.colony, host)
    text = pack_card(card)
    wanted = AddClaim(
        colonyname=card.colony,
        claim=claim_key(card.code).id,
        executortype=type,
        count=count,
        expires=time.time_ns() // 1_000_000 + life_s * _MILLISECONDS,
        approval=Approval.PERSON if ask else Approval.AT_ONCE,
    )
    drawing = _drawing(text, is_inverted=light) if qr and shell.screen.form is Form.TABLE else ""
    async with shell.client(Role.COLONY) as client:
        claim = await client.add_claim(wanted)
    try:
        _show(shell.screen, drawing, text, card.code, claim)
    except (CliError, BrokenPipeError) as error:  # the code stood nowhere else
        raise CliError(
            Exit.USAGE,
            f"the card is lost: {error}; its claim is of no use: "
            f"colonist enroll remove {claim.claim[:12]}",
        ) from error


def _drawing(text: str, *, is_inverted: bool) -> str:
    """The card as a QR code; "" where what it is drawn with cannot be shown."""
    import sys

    from colonist_cli.qr import drawn

    drawing = drawn(text, is_inverted=is_inverted)
    try:
        drawing.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        note(f"no QR code: {sys.stdout.encoding} has no such characters; UTF-8 has")
        return ""
    return drawing


def _show(screen: Screen, drawing: str, text: str, code: str, claim: Claim) -> None:
    if screen.form is Form.JSON:
        screen.json({"card": text, "code": code, "claim": claim})
    else:
        lines = (drawing, f"card  {text}", f"code  {code}", f"claim {claim.claim}")
        screen.line("\n".join(filter(None, lines)))
    write("", now=True)


@command(enrolments, "list")
async def list_claims(
    shell: Shell,
    executors: Annotated[
        bool, typer.Option("--executors", help="Who came by them, instead.")
    ] = False,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Who waits for approval, instead.")
    ] = False,
) -> None:
    """List claims, or the executors that came by them."""
    from colonist_cli import tables
    from colonist_protocol.executor import ExecutorState

    colony = shell.settings.colony
    async with shell.client(Role.COLONY) as client:
        if not (executors or waiting):
            shell.screen.rows(tables.CLAIMS, await client.claims(colony), empty="no claims")
            return
        state = ExecutorState.PENDING if waiting else -1
        found = await client.enrolled(colony, state=state)
    shell.screen.rows(tables.ENROLLED, found, empty="nobody")


@command(enrolments, "remove", kind=Kind.CALL)
async def remove_claim(
    shell: Shell,
    claim: Annotated[str, typer.Argument(metavar="CLAIM", help="Its id, or how that begins.")],
    executors: Annotated[
        bool, typer.Option("--executors", help="Remove all who came by it, too.")
    ] = False,
) -> None:
    """Let nobody enrol by a claim any more."""
    from colonist_cli.enrolling import one_of

    colony = shell.settings.colony
    async with shell.client(Role.COLONY) as client:
        found = one_of(await client.claims(colony), claim)
        await client.remove_claim(colony, found.claim, executors=executors)


@command(enrolments, "approve", kind=Kind.CALL)
async def approve(
    shell: Shell,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Who may work.")
    ] = None,
    *,
    hook: Annotated[
        str,
        typer.Option(
            metavar="COMMAND",
            help="A command that decides: JSON on its stdin; 0 approves, 1 rejects.",
        ),
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="With --hook: go on until interrupted.")
    ] = False,
) -> None:
    """Approve executors that wait, by name or by a command that decides."""
    from colonist_cli.enrolling import Hook, settle, settle_on

    if bool(names) == bool(hook) or (follow and not hook):
        raise CliError(Exit.USAGE, "names, or --hook COMMAND, the latter perhaps with --follow")
    colony = shell.settings.colony
    decider = Hook.read(hook, shell.environment) if hook else None
    async with shell.client(Role.COLONY) as client:
        for name in names or ():
            await client.approve_executor(colony, name)
        if decider is not None:
            work = settle_on if follow else settle
            await work(client, colony, decider, lambda name, what: note(f"{name}: {what}"))


@command(enrolments, "join", kind=Kind.LOCAL)
async def join_colony(
    shell: Shell,
    card: Annotated[
        str, typer.Argument(metavar="CARD", help="The text of the card; - reads it from stdin.")
    ],
    *,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="This device's key; made where missing.")
    ] = Path("agent.key"),
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The agent's settings, to be written.")
    ] = Path("agent.toml"),
    server: Annotated[
        str, typer.Option("--server", metavar="URL", help="Default: https:// and the card's host.")
    ] = "",
    hw: Annotated[str, typer.Option(help="What names this hardware; default: a digest.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until somebody has approved.")] = False,
) -> None:
    """Enrol this machine by a card, and write the settings of its agent.

    Others on this machine can see a card on the command line while this runs: `-` is better.
    """
    from colonist_cli import enrolling, stdin
    from colonist_cli.keys import read_or_make
    from colonist_protocol.claims import read_card
    from colonist_protocol.executor import ExecutorState

    read = read_card(stdin.line("card: ").strip() if card == "-" else card)
    url = server or enrolling.address_of(read)
    if config.exists() and not enrolling.is_agent_of(config, read, server=url, key_file=key):
        raise CliError(Exit.CONFLICT, f"{config} is there already: not overwritten")
    identity = read_or_make(key, shell.place.custody)
    executor = await enrolling.join(
        read, identity, server=url, hw=hw or enrolling.hardware(), wait=wait
    )
    if executor.state == ExecutorState.REJECTED:
        raise CliError(Exit.REFUSED, f"{executor.executorname} was rejected")
    enrolling.write_config(config, read, executor, server=url, key_file=key)
    if executor.state == ExecutorState.PENDING:
        note(f"waits for approval: colonist enroll approve {executor.executorname}")
    shell.screen.line(executor.executorname)
    note(f"start it with: colonist agent run --config {config}")
