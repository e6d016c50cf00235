"""The columns of crons and generators, for people. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from colonist_cli import cron_times, durations
from colonist_cli.exits import CliError
from colonist_cli.output import Column
from colonist_cli.tables import shortened, some, when
from colonist_protocol import codec
from colonist_protocol.cron import Cron
from colonist_protocol.errors import MalformedError
from colonist_protocol.generator import Generator
from colonist_protocol.workflow import WorkflowSpec


def disabled(thing: Cron | Generator) -> str:
    """Why it starts nothing any more, or nothing."""
    return "" if thing.disabledreason is UNSET else thing.disabledreason


def next_runs(cron: Cron) -> str:
    """A line for each of the next runs."""
    try:
        return "" if disabled(cron) else "\n".join(cron_times.planned(cron))
    except CliError:  # a zone that this machine does not know: the server tells the next one
        return when(cron.nextrun)


def waits(generator: Generator) -> str:
    """How long an argument waits for others."""
    return durations.shown(generator.timeout) if generator.timeout > 0 else "for ever"


def starts(text: str) -> str:
    """The nodes of a stored workflow and what they call."""
    try:
        spec = codec.decode(text.encode(), WorkflowSpec, "workflowspec")
    except MalformedError:
        return shortened(text)
    return some([f"{each.nodename}: {each.funcname}" for each in spec.functionspecs])


CRONS: Final = (
    Column[Cron]("NAME", lambda cron: cron.name),
    Column[Cron]("RUNS", cron_times.rule),
    Column[Cron]("NEXT RUN", lambda cron: "" if disabled(cron) else when(cron.nextrun)),
    Column[Cron]("LAST RUN", lambda cron: when(cron.lastrun)),
    Column[Cron]("WAITS", lambda cron: "yes" if cron.waits else ""),
    Column[Cron]("PREVIOUS WORKFLOW", lambda cron: cron.prevprocessgraphid),
    Column[Cron]("DISABLED", disabled),
    Column[Cron]("ID", lambda cron: cron.cronid),
)

CRON: Final = (
    Column[Cron]("cron", lambda cron: cron.cronid),
    Column[Cron]("name", lambda cron: cron.name),
    Column[Cron]("runs", cron_times.rule),
    Column[Cron]("waits", lambda cron: "until the run before has ended" if cron.waits else ""),
    Column[Cron]("next runs", next_runs),
    Column[Cron]("last run", lambda cron: when(cron.lastrun)),
    Column[Cron]("workflow", lambda cron: cron.prevprocessgraphid),
    Column[Cron]("made by", lambda cron: cron.initiatorname),
    Column[Cron]("disabled", disabled),
    Column[Cron]("starts", lambda cron: starts(cron.workflowspec)),
)

GENERATORS: Final = (
    Column[Generator]("NAME", lambda generator: generator.name),
    Column[Generator]("TRIGGER", lambda generator: generator.trigger),
    Column[Generator]("TIMEOUT", waits),
    Column[Generator]("WAITING", lambda generator: generator.queuesize),
    Column[Generator]("SINCE", lambda generator: when(generator.firstpack)),
    Column[Generator]("LAST RUN", lambda generator: when(generator.lastrun)),
    Column[Generator]("DISABLED", disabled),
    Column[Generator]("ID", lambda generator: generator.generatorid),
)

GENERATOR: Final = (
    Column[Generator]("generator", lambda generator: generator.generatorid),
    Column[Generator]("name", lambda generator: generator.name),
    Column[Generator]("trigger", lambda generator: f"{generator.trigger} arguments"),
    Column[Generator]("timeout", waits),
    Column[Generator]("waiting", lambda generator: f"{generator.queuesize} arguments"),
    Column[Generator]("since", lambda generator: when(generator.firstpack)),
    Column[Generator]("last run", lambda generator: when(generator.lastrun)),
    Column[Generator]("made by", lambda generator: generator.initiatorname),
    Column[Generator]("disabled", disabled),
    Column[Generator]("starts", lambda generator: starts(generator.workflowspec)),
)
