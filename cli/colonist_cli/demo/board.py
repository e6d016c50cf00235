"""The demo's table: who ran what, over which way, how long each step took, and what came out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from colonist_cli.demo.jobs import Job
from colonist_cli.output import clean
from colonist_cli.tables import seconds
from colonist_protocol.process import Process, State
from colonist_protocol.times import SECOND_NS, from_text

_NARROW: Final = 100
_GAP: Final = 2
_LEAST: Final = 16


@dataclass(frozen=True, slots=True)
class _Head:
    text: str
    width: int
    justify: Literal["left", "right"] = "left"
    is_extra: bool = False


_HEADS: Final = (
    _Head("#", 2, "right", is_extra=True),
    _Head("work", 26),
    _Head("way", 4),
    _Head("run by", 10, is_extra=True),
    _Head("runs", 4, "right", is_extra=True),
    _Head("waited", 6, "right"),
    _Head("ran", 6, "right"),
    _Head("delivered", 9, "right"),
    _Head("", 1),
)
_COLOURS: Final = {"http": "cyan", "mqtt": "magenta"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a process by one agent, on this machine's clock; 0: it never ended."""

    agent: str
    started_ns: int
    ended_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How long a process took, step by step; None where nobody knows."""

    waited_s: float | None = None
    ran_s: float | None = None
    delivered_s: float | None = None


@dataclass(slots=True)
class Row:
    """One process of the demo and what is known of it."""

    job: Job
    process: Process
    runs: list[Run] = field(default_factory=list[Run])

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.process.is_final

    @property
    def steps(self) -> Steps:
        """Submitted, began to run, ended to run, delivered: of the run whose result counted."""
        submitted = from_text(self.process.submissiontime)
        given, closed = from_text(self.process.starttime), from_text(self.process.endtime)
        # A run that began after the close was a second one that nobody needed any more.
        delivered = [run for run in self.runs if 0 < run.ended_ns <= closed]
        if not delivered:
            return Steps(waited_s=_span(submitted, given), delivered_s=_span(given, closed))
        run = delivered[-1]
        return Steps(
            waited_s=_span(submitted, run.started_ns),
            ran_s=_span(run.started_ns, run.ended_ns),
            delivered_s=_span(run.ended_ns, closed),
        )


@dataclass(frozen=True, slots=True)
class Agents:
    """Executors by id: their names and the ways that they go."""

    names: Mapping[str, str]
    ways: Mapping[str, str]

    def name(self, process: Process) -> str:
        """Who has a process, or ""."""
        return self.names.get(process.assignedexecutorid, "")


def read_journals(paths: Mapping[str, Path]) -> dict[str, list[Run]]:
    """All runs of each process, oldest first."""
    found: dict[str, list[Run]] = {}
    for agent, path in paths.items():
        for process, run in _runs(agent, path):
            found.setdefault(process, []).append(run)
    return {
        process: sorted(runs, key=lambda run: run.started_ns) for process, runs in found.items()
    }


def table(rows: Sequence[Row], agents: Agents, *, columns: int) -> Table:
    """The table as it stands, on a screen that is so many columns wide."""
    is_narrow = columns < _NARROW
    heads = [head for head in _HEADS if not (is_narrow and head.is_extra)]
    taken = sum(head.width + _GAP for head in heads)
    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        drawn.add_column(head.text, width=head.width, justify=head.justify, no_wrap=True)
    result = max(_LEAST, columns - taken)
    drawn.add_column("result", width=result, no_wrap=True, overflow="ellipsis")
    for number, row in enumerate(rows, 1):
        cells = _cells(number, row, agents)
        drawn.add_row(*(cells[head.text] for head in heads), _result(row))
    return drawn


def _cells(number: int, row: Row, agents: Agents) -> dict[str, Text]:
    steps, name = row.steps, agents.name(row.process)
    way = agents.ways.get(name, "")
    return {
        "#": Text(str(number), style="dim"),
        "work": Text(row.job.title),
        "way": Text(way, style=_COLOURS.get(way, "")),
        "run by": Text(name),
        "runs": Text(str(max(1, len(row.runs))), style="bold" if len(row.runs) > 1 else "dim"),
        "waited": Text(seconds(steps.waited_s)),
        "ran": Text(seconds(steps.ran_s)),
        "delivered": Text(seconds(steps.delivered_s)),
        "": _mark(row),
    }


def _result(row: Row) -> Text:
    return Text(clean(row.job.picture(row.process)), style="dim" if row.job.fails else "")


def _mark(row: Row) -> Text:
    if row.process.state == State.SUCCESS:
        return Text("✓", style="green")
    return Text("✗", style="yellow" if row.job.fails else "bold red")


def _runs(agent: str, path: Path) -> Iterable[tuple[str, Run]]:
    if not path.exists():
        return
    begun: dict[str, int] = {}
    for line in path.read_text().splitlines():
        note = json.loads(line)
        process = note["process"]
        if note["event"] == "started":
            if process in begun:
                yield process, Run(agent=agent, started_ns=begun[process])
            begun[process] = note["time_ns"]
        elif process in begun:
            started_ns = begun.pop(process)
            yield process, Run(agent=agent, started_ns=started_ns, ended_ns=note["time_ns"])
    for process, started_ns in begun.items():
        yield process, Run(agent=agent, started_ns=started_ns)


def _span(start_ns: int, end_ns: int) -> float | None:
    return (end_ns - start_ns) / SECOND_NS if start_ns and end_ns else None
