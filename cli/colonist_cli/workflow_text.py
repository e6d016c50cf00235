"""A workflow as lines for people: its head, its tree, what is not in it. Pure, but for `print_`."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from colonist_cli import tables
from colonist_cli.board import Board
from colonist_cli.output import clean, console, write
from colonist_cli.tree import Fold, Kind, Line, draw
from colonist_protocol.process import Process, State
from colonist_protocol.times import SECOND_NS, from_text

MAX_REASONS: Final = 10
REASON_CHARS: Final = 160

_STYLES: Final = {
    State.WAITING: "dim",
    State.RUNNING: "cyan",
    State.SUCCESS: "green",
    State.FAILED: "bold red",
    State.CANCELLED: "yellow",
}


def style_of(state: int) -> str:
    """The colour of a state, as rich names it."""
    return _STYLES.get(State(state), "") if state in tuple(State) else ""


def text_of(board: Board, *, fold: Fold | None, now_ns: int = 0) -> list[Text]:
    """All of it. `now_ns`, where it is known, tells how long what runs has been running."""
    tree = draw(board.children, board.states, fold)
    lines = [_head(board, now_ns)]
    lines += [_line(board, line, now_ns) for line in tree.lines]
    unseen = [number for number in board.failed() if not tree.shown[number]]
    lines += [
        Text.assemble(("failed, not drawn: ", "bold red"), clean(_named(board, number)))
        for number in unseen[:MAX_REASONS]
    ]
    hidden = tree.shown.count(False)
    if hidden:
        lines.append(Text(f"{hidden} of {len(tree.shown)} nodes are not drawn: --all", "dim"))
    return lines


def summary(board: Board) -> str:
    """`3 of 12 done: 2 success, 1 failed, 9 waiting`."""
    each = ", ".join(
        f"{count} {tables.state_name(state)}"
        for state, count in sorted(board.counts.items(), key=lambda found: -found[0])
    )
    return f"{board.done} of {len(board.states)} done: {each}"


def reasons(board: Board) -> str:
    """Which nodes failed and why, in one line."""
    failed = board.failed()
    told = "; ".join(_named(board, number) for number in failed[:3])
    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""  # noqa: PLR2004
    return clean(told + more)


def changed(process: Process, name: str) -> str:
    """One line for one change of a node."""
    parts = [tables.when(moment(process)), f"{tables.state_name(process.state):<9}", name]
    parts.append(_aside(process, 0))
    return clean("  ".join(part for part in parts if part))


def moment(process: Process) -> str:
    """When it entered the state that it is in, as the wire tells it."""
    if process.is_final:
        return process.endtime
    return process.starttime if process.state == State.RUNNING else process.submissiontime


def print_(lines: list[Text]) -> None:
    """To stdout, in colour where that is a terminal."""
    drawn = console()
    if not drawn.is_terminal:
        write("".join(f"{line.plain}\n" for line in lines))
        return
    with drawn.capture() as captured:
        for line in lines:
            drawn.print(line)
    write(captured.get())


def _head(board: Board, now_ns: int) -> Text:
    graph = board.graph
    took = _span(graph.starttime, graph.endtime, now_ns)
    return Text.assemble(
        f"workflow {graph.processgraphid}  ",
        (tables.state_name(board.state), style_of(board.state)),
        f"  {summary(board)}",
        f"  {took}" if took else "",
    )


def _line(board: Board, line: Line, now_ns: int) -> Text:
    guide = (line.guide, "dim")
    if line.kind is Kind.MORE:
        more = f"… {line.number} more {tables.state_name(line.state)}"
        return Text.assemble(guide, (more, style_of(line.state)))
    name = clean(board.names[line.node])
    if line.kind is Kind.AGAIN:
        return Text.assemble(guide, (f"{name} ↑ above", "dim"))
    state, process = board.states[line.node], board.member(line.node)
    aside = clean(_aside(process, now_ns)) if process and process.state == state else ""
    return Text.assemble(
        guide,
        name,
        "  ",
        (tables.state_name(state), style_of(state)),
        f"  {aside}" if aside else "",
    )


def _aside(process: Process, now_ns: int) -> str:
    """How long it ran, how often it was given again, why it failed."""
    parts = [_span(process.starttime, process.endtime, now_ns)]
    if process.retries:
        parts.append(f"given again {process.retries}")
    if process.errors:
        parts.append(tables.shortened("; ".join(process.errors), REASON_CHARS))
    return "  ".join(part for part in parts if part)


def _span(start: str, end: str, now_ns: int) -> str:
    ended = tables.span_s(start, end)
    if ended is None and now_ns and from_text(start):
        ended = max(0.0, (now_ns - from_text(start)) / SECOND_NS)
    return tables.seconds(ended)


def _named(board: Board, number: int) -> str:
    process = board.member(number)
    reason = "; ".join(process.errors) if process is not None else ""
    return f"{board.names[number]}: {tables.shortened(reason, REASON_CHARS) or 'no reason known'}"
