"""Following a workflow to its end: by events, with a look at the whole where some were missed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator, Generator
from heapq import merge
from typing import Final, Protocol

from rich.live import Live
from rich.text import Text

from colonist_cli import board as boards
from colonist_cli import workflow_text
from colonist_cli.board import Board
from colonist_cli.exits import CliError, Exit
from colonist_cli.live import Event, Joined, Lost, events, jitter
from colonist_cli.output import console, note
from colonist_cli.tree import Fold
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import is_transient
from colonist_client.subscriptions import Subscriber
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.errors import ColonistError
from colonist_protocol.process import Process, State

QUIET_S: Final = 60.0
"""Look at the whole after so long without an event: cheap, and nothing is waited for in vain."""
REDRAW_S: Final = 0.2
FALLBACK_S: Final = 2.0
BEHIND_S: Final = 0.1
MAX_TRIES: Final = 20

_RESERVED: Final = 3


class View(Protocol):
    """Shows a workflow while it changes."""

    tick_s: float

    def show(self, board: Board, heard: list[Process]) -> None:
        """The board as it is now, after these events; none: a tick, or a look at the whole."""
        ...


class Lines:
    """One line for each change, on stderr."""

    tick_s = QUIET_S

    def show(self, board: Board, heard: list[Process]) -> None:
        """What changed."""
        for process in heard:
            name = board.names[board.numbers[process.processid]]
            note(workflow_text.changed(process, name))


class Progress:
    """How far it is, on stderr: a line that is written over, or one for each tenth in a pipe."""

    tick_s = QUIET_S

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._tenths = -1

    def show(self, board: Board, heard: list[Process]) -> None:
        """How far it is now."""
        del heard
        tenths = 10 * board.done // max(1, len(board.states))
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{workflow_text.summary(board)}")
            sys.stderr.write("\n" if board.graph.is_final else "")
            sys.stderr.flush()
        elif tenths != self._tenths:
            note(workflow_text.summary(board))
        self._tenths = tenths


class Redrawn:
    """The tree, drawn anew in its place on a terminal."""

    tick_s = 1.0

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, board: Board, heard: list[Process]) -> None:
        """The tree as it is now, as much of it as there is room for."""
        del heard
        fold = Fold(lines=max(1, self._live.console.height - _RESERVED))
        lines = workflow_text.text_of(board, fold=fold, now_ns=time.time_ns())
        drawn = Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
        self._live.update(drawn, refresh=True)


@contextlib.contextmanager
def tree_view() -> Generator[View]:
    """The tree on a terminal, lines otherwise; both on stderr."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    with Live(console=console(is_error=True), auto_refresh=False) as live:
        yield Redrawn(live)


async def follow(
    client: Client, subscriber: Subscriber, workflow_id: str, view: View, *, timeout_s: float = 0
) -> Board:
    """Until the workflow has ended; 0: however long it takes. Raises `CliError`."""
    board = Board(await client.workflow(workflow_id))
    colony = board.graph.colonyname
    source = events(lambda: subscriber.subscribe_processes(colony), jitter())
    following = _Following(client, board, view)
    pump = asyncio.create_task(following.pump(source))
    try:
        async with asyncio.timeout(timeout_s or None):
            await following.run()
    except TimeoutError:
        raise CliError(
            Exit.TIMEOUT, f"workflow {workflow_id} has not ended within {timeout_s:g} s; it goes on"
        ) from None
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
    return board


class _Following:
    def __init__(self, client: Client, board: Board, view: View) -> None:
        self._client = client
        self._board = board
        board.states = [State.WAITING] * len(board.states)  # the first look tells what is new
        self._view = view
        self._queue: asyncio.Queue[Event | ColonistError] = asyncio.Queue()
        self._look_after_s = QUIET_S
        self._looked = 0.0
        self._untold: set[int] = set()
        self._tries = 0

    async def pump(self, source: AsyncGenerator[Event]) -> None:
        """Bring events, and the error that ends them."""
        async with contextlib.aclosing(source):
            try:
                async for event in source:
                    self._queue.put_nowait(event)
            except ColonistError as error:
                self._queue.put_nowait(error)

    async def run(self) -> None:
        """Show what happens until the workflow has ended."""
        now, board = asyncio.get_running_loop().time, self._board
        must_look, batch = True, list[Event | ColonistError]()
        while True:
            heard: list[Process] = []
            for event in batch:
                if isinstance(event, Process):
                    if board.hear(event):
                        heard.append(event)
                        self._untold.discard(board.numbers[event.processid])
                    must_look |= board.is_mine(event) and event.processid not in board.numbers
                else:
                    self._tell(event)
                    must_look |= isinstance(event, Joined)
            if must_look or board.is_over or now() - self._looked >= self._look_after_s:
                self._looked = now()
                found = await self._look()
                must_look = found is None
                # An event may have come of what followed from a change that was missed.
                heard = list(merge(_in_time(found or []), heard, key=_moment))
            self._view.show(board, heard)
            if not board.graph.is_final:
                batch = await self._batch()
                continue
            # For a moment the members may be behind the graph: their reasons are still to come.
            self._tries += 1
            if not self._untold or self._tries > MAX_TRIES:
                return
            must_look, batch = True, []
            await asyncio.sleep(BEHIND_S)

    async def _batch(self) -> list[Event | ColonistError]:
        """What came within a moment; nothing where the view wants to be drawn again."""
        batch: list[Event | ColonistError] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self._view.tick_s, self._look_after_s)):
                batch.append(await self._queue.get())
        if batch:
            await asyncio.sleep(REDRAW_S)
        while not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    def _tell(self, event: Joined | Lost | ColonistError) -> None:
        match event:
            case Lost(reason):
                note(f"{reason}; connecting again")
            case Joined(away_s) if away_s is not None:
                note(f"connected again after {away_s:.1f} s")
            case NotSentError():
                note(f"no events to be had ({event}): looking every {FALLBACK_S:g} s")
                self._look_after_s = FALLBACK_S
            case ColonistError():
                raise event
            case _:
                pass

    async def _look(self) -> list[Process] | None:
        """Read the whole; members that changed unheard. None where the server is away."""
        board = self._board
        before = list(board.states)
        try:
            board.update(await self._client.workflow(board.graph.processgraphid))
            await boards.read_members(self._client, board)
        except (ServerError, UnreachableError) as error:
            if is_transient(error):
                return None
            raise
        self._untold |= {
            number
            for number, state in enumerate(board.states)
            if before[number : number + 1] != [state] and board.member(number) is not None
        }
        told = [
            (number, process)
            for number in sorted(self._untold)
            if (process := board.member(number)) is not None
            and process.state == board.states[number]
        ]
        self._untold -= {number for number, _ in told}
        return [process for _, process in told]


def _in_time(processes: list[Process]) -> list[Process]:
    return sorted(processes, key=_moment)


def _moment(process: Process) -> str:
    """When it came to its state; the texts of one server compare as their times do."""
    return max(process.starttime, process.endtime)
