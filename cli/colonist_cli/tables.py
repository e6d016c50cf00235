"""The columns of each noun, for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from colonist_cli.output import Column
from colonist_protocol import digests
from colonist_protocol.claims import Claim, Enrolled
from colonist_protocol.colony import Colony, MemberChange, Policy
from colonist_protocol.errors import ColonistError
from colonist_protocol.executor import Executor, ExecutorState
from colonist_protocol.identity import recover
from colonist_protocol.log import Log
from colonist_protocol.process import Process, State
from colonist_protocol.server import Statistics
from colonist_protocol.times import SECOND_NS, from_text, to_text
from colonist_protocol.user import User
from colonist_protocol.workflow import ProcessGraph

_SHORT: Final = 60
MILLISECOND_NS: Final = 1_000_000


def state_name(number: int) -> str:
    """`waiting`, `running`, ...; a number that we do not know stays one."""
    return State(number).name.lower() if number in tuple(State) else str(number)


def executor_state_name(number: int) -> str:
    """`pending`, `approved`, ..."""
    known = number in tuple(ExecutorState)
    return ExecutorState(number).name.lower() if known else str(number)


def span_s(start: str, end: str) -> float | None:
    """Seconds between two times of the wire; None where one is not set."""
    start_ns, end_ns = from_text(start), from_text(end)
    return (end_ns - start_ns) / SECOND_NS if start_ns and end_ns else None


def seconds(value: float | None) -> str:
    """`12 ms`, `1.20 s`, `3 min 20 s`, or nothing."""
    if value is None:
        return ""
    if abs(value) < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:  # noqa: PLR2004 - a minute
        return f"{value:.2f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def when(text: str) -> str:
    """A time of the wire, to the second; nothing where it is not set."""
    return text[:19].replace("T", " ") if from_text(text) else ""


def shortened(text: str, limit: int = _SHORT) -> str:
    """One line of at most that many characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def printed(value: object) -> str:
    """An element of a result: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def result(process: Process) -> str:
    """What came out, or why nothing did, in one short line."""
    if process.errors:
        return shortened("; ".join(process.errors))
    return shortened(" ".join(printed(value) for value in process.output()))


def call(process: Process, limit: int = _SHORT) -> str:
    """`function(arguments)`."""
    spec = process.spec
    given = [printed(value) for value in spec.arguments()]
    given += [f"{name}={printed(value)}" for name, value in spec.keywords().items()]
    return shortened(f"{spec.funcname}({', '.join(given)})", limit)


def names(values: Sequence[str]) -> str:
    """Names for a sentence."""
    return ", ".join(values) or "none"


def some(values: Sequence[str], limit: int = 20) -> str:
    """Some of many, a line for each, and how many more there are."""
    more = [f"and {len(values) - limit} more"] if len(values) > limit else []
    return "\n".join([*values[:limit], *more])


def wanted(process: Process) -> str:
    """Which executors may run it."""
    conditions = process.spec.conditions
    only = f", only {names(conditions.executornames)}" if conditions.executornames else ""
    return f"type {conditions.executortype}{only}"


def checked(change: MemberChange) -> str:
    """Whether the request of a change was signed by whom the record names."""
    if not change.by:
        return ""
    if not change.payload:
        return "too long to be kept"
    try:
        text = change.payload.encode()
        if change.seal:
            text = digests.tagged_text(digests.REQUEST, change.payload, change.seal)
        signer = recover(text, change.signature)
    except ColonistError:
        return "BAD"
    return "good" if signer == change.by else "BAD"


COLONIES: Final = (
    Column[Colony]("NAME", lambda colony: colony.name),
    Column[Colony]("ID", lambda colony: colony.colonyid),
)

POLICY: Final = (
    Column[Policy]("COLONY", lambda policy: policy.colonyname),
    Column[Policy]("PLAIN REQUESTS", lambda policy: policy.plainrequests),
)

CLAIMS: Final = (
    Column[Claim]("CLAIM", lambda claim: claim.claim[:16]),
    Column[Claim]("TYPE", lambda claim: claim.executortype),
    Column[Claim]("ENROLLED", lambda claim: f"{claim.used} of {claim.count}"),
    Column[Claim]("UNTIL", lambda claim: when(to_text(claim.expires * MILLISECOND_NS))),
    Column[Claim]("APPROVAL", lambda claim: claim.approval),
)

ENROLLED: Final = (
    Column[Enrolled]("NAME", lambda each: each.executorname),
    Column[Enrolled]("STATE", lambda each: executor_state_name(each.state)),
    Column[Enrolled]("HARDWARE", lambda each: each.hw),
    Column[Enrolled]("SINCE", lambda each: when(to_text(each.enrolled * MILLISECOND_NS))),
    Column[Enrolled]("CLAIM", lambda each: each.claim[:16]),
    Column[Enrolled]("ID", lambda each: each.executorid),
)

USERS: Final = (
    Column[User]("NAME", lambda user: user.name),
    Column[User]("EMAIL", lambda user: user.email),
    Column[User]("ID", lambda user: user.userid),
)

USER: Final = (
    Column[User]("user", lambda user: user.name),
    Column[User]("colony", lambda user: user.colonyname),
    Column[User]("email", lambda user: user.email),
    Column[User]("phone", lambda user: user.phone),
    Column[User]("id", lambda user: user.userid),
)

EXECUTORS: Final = (
    Column[Executor]("NAME", lambda executor: executor.executorname),
    Column[Executor]("TYPE", lambda executor: executor.executortype),
    Column[Executor]("STATE", lambda executor: executor_state_name(executor.state)),
    Column[Executor]("LAST HEARD", lambda executor: when(executor.lastheardfromtime)),
    Column[Executor]("ID", lambda executor: executor.executorid),
)

EXECUTOR: Final = (
    Column[Executor]("executor", lambda executor: executor.executorname),
    Column[Executor]("type", lambda executor: executor.executortype),
    Column[Executor]("state", lambda executor: executor_state_name(executor.state)),
    Column[Executor]("colony", lambda executor: executor.colonyname),
    Column[Executor]("registered", lambda executor: when(executor.commissiontime)),
    Column[Executor]("last heard", lambda executor: when(executor.lastheardfromtime)),
    Column[Executor]("id", lambda executor: executor.executorid),
)

CHANGES: Final = (
    Column[MemberChange]("TIME", lambda change: when(to_text(change.timestamp))),
    Column[MemberChange]("CHANGE", lambda change: change.what.replace("_", " ")),
    Column[MemberChange]("NAME", lambda change: change.name),
    Column[MemberChange]("BY", lambda change: change.by or "the server"),
    Column[MemberChange]("SIGNATURE", checked),
)

PROCESSES: Final = (
    Column[Process]("PROCESS", lambda process: process.processid),
    Column[Process]("CALL", lambda process: call(process, 40)),
    Column[Process]("STATE", lambda process: state_name(process.state)),
    Column[Process]("SUBMITTED", lambda process: when(process.submissiontime)),
    Column[Process](
        "WAITED", lambda process: seconds(span_s(process.submissiontime, process.starttime))
    ),
    Column[Process]("RAN", lambda process: seconds(span_s(process.starttime, process.endtime))),
    Column[Process]("RESULT", result),
)

PROCESS: Final = (
    Column[Process]("process", lambda process: process.processid),
    Column[Process]("call", lambda process: call(process, 2000)),
    Column[Process]("state", lambda process: state_name(process.state)),
    Column[Process]("for", wanted),
    Column[Process]("submitted by", lambda process: process.initiatorname),
    Column[Process]("executor", lambda process: process.assignedexecutorid),
    Column[Process]("submitted", lambda process: when(process.submissiontime)),
    Column[Process]("started", lambda process: when(process.starttime)),
    Column[Process]("ended", lambda process: when(process.endtime)),
    Column[Process]("given again", lambda process: process.retries or ""),
    Column[Process]("label", lambda process: process.spec.label),
    Column[Process](
        "attributes",
        lambda process: ", ".join(f"{each.key}={each.value}" for each in process.attributes),
    ),
    Column[Process]("workflow", lambda process: process.processgraphid),
    Column[Process]("node", lambda process: process.spec.nodename),
    Column[Process]("parents", lambda process: some(process.parents)),
    Column[Process]("children", lambda process: some(process.children)),
    Column[Process]("in", lambda process: some([printed(value) for value in process.input()])),
    Column[Process]("errors", lambda process: "; ".join(process.errors)),
    Column[Process](
        "output", lambda process: "\n".join(printed(value) for value in process.output())
    ),
)

MEMBERS: Final = (Column[Process]("NODE", lambda process: process.spec.nodename), *PROCESSES)

WORKFLOWS: Final = (
    Column[ProcessGraph]("WORKFLOW", lambda graph: graph.processgraphid),
    Column[ProcessGraph]("STATE", lambda graph: state_name(graph.state)),
    Column[ProcessGraph]("NODES", lambda graph: len(graph.processids)),
    Column[ProcessGraph]("SUBMITTED", lambda graph: when(graph.submissiontime)),
    Column[ProcessGraph]("RAN", lambda graph: seconds(span_s(graph.starttime, graph.endtime))),
    Column[ProcessGraph]("BY", lambda graph: graph.initiatorname),
)

LOGS: Final = (
    Column[Log]("TIME", lambda line: when(to_text(line.timestamp))),
    Column[Log]("EXECUTOR", lambda line: line.executorname),
    Column[Log]("PROCESS", lambda line: line.processid),
    Column[Log]("LINE", lambda line: line.message),
)

STATISTICS: Final = (
    Column[Statistics]("waiting", lambda counts: counts.waitingprocesses),
    Column[Statistics]("running", lambda counts: counts.runningprocesses),
    Column[Statistics]("successful", lambda counts: counts.successfulprocesses),
    Column[Statistics]("failed", lambda counts: counts.failedprocesses),
    Column[Statistics]("cancelled", lambda counts: counts.cancelledprocesses),
    Column[Statistics]("executors", lambda counts: counts.executors),
    Column[Statistics]("active executors", lambda counts: counts.activeexecutors),
)
