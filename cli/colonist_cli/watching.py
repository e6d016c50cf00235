"""`colonist watch`: events as they come, for people or one JSON a line."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus

from colonist_cli import tables, workflow_live, workflow_text
from colonist_cli.board import Board
from colonist_cli.live import Event, Joined, Lost, events, jitter
from colonist_cli.output import Form, Screen, clean, note
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.subscriptions import Subscriber, Subscription
from colonist_protocol.process import Process
from colonist_protocol.subscription import ANY_STATE
from colonist_protocol.times import to_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One process or workflow by its id, else a colony's processes."""

    colony: str = ""
    id: str = ""
    state: int = ANY_STATE
    executor_type: str = ""


async def watch(screen: Screen, client: Client, subscriber: Subscriber, wanted: Wanted) -> None:
    """Until what is watched has ended; a colony: for ever."""
    if wanted.id and not await _is_process(client, wanted.id):
        await workflow_live.follow(client, subscriber, wanted.id, _Members(screen))
        return
    if wanted.colony:
        await client.colony(wanted.colony)  # refused here rather than after the first words
    teller = _Teller(screen, wanted)
    source = events(lambda: _subscribe(subscriber, wanted), jitter(), is_one=bool(wanted.id))
    async with contextlib.aclosing(source):
        async for event in source:
            teller.tell(event)


def _subscribe(subscriber: Subscriber, wanted: Wanted) -> Subscription:
    if wanted.id:
        return subscriber.subscribe_process(wanted.id)
    return subscriber.subscribe_processes(
        wanted.colony, state=wanted.state, executor_type=wanted.executor_type
    )


class _Teller:
    """Events on stdout; on stderr, that some may have been missed."""

    def __init__(self, screen: Screen, wanted: Wanted) -> None:
        self._screen = screen
        self._wanted = wanted
        self._left = ""

    def tell(self, event: Event) -> None:
        match event:
            case Process():
                show(self._screen, event)
            case Lost(reason):
                self._left = _now()
                note(f"{reason}; connecting again")
            case Joined(None):
                if not self._wanted.id:
                    note(f"watching the colony {self._wanted.colony}")
            case Joined():
                note(self._missed())

    def _missed(self) -> str:
        if self._wanted.id:
            return "connected again; states that it passed through meanwhile are not shown"
        return (
            f"connected again at {_now()}: what happened since {self._left} is not shown; "
            "colonist history --since tells"
        )


def show(screen: Screen, process: Process) -> None:
    """One event in one line, at once."""
    if screen.form is Form.JSON:
        screen.json_line(process)
        return
    when = tables.when(workflow_text.moment(process))
    parts = [
        when,
        f"{tables.state_name(process.state):<9}",
        process.processid,
        tables.call(process, 40),
        tables.seconds(tables.span_s(process.starttime, process.endtime)),
        tables.result(process),
    ]
    screen.line(clean("  ".join(part for part in parts if part)))
    sys.stdout.flush()


class _Members:
    """The members of a workflow, shown as processes are."""

    tick_s = workflow_live.QUIET_S

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, board: Board, heard: list[Process]) -> None:
        """What changed."""
        del board
        for process in heard:
            show(self._screen, process)


async def _is_process(client: Client, id: str) -> bool:
    """Whether it is that, and not a workflow. Raises `ServerError` where it is neither."""
    try:
        await client.get(id)
    except ServerError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        await client.workflow(id)
        return False
    return True


def _now() -> str:
    return tables.when(to_text(time.time_ns()))
