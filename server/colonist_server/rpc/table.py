"""The remote procedures: one row each, of message type, access rule, scope and handler.

The scope says which colony a message is about. Access is checked once, against that colony, before
the handler. What is unknown and what is foreign are refused alike (COLONIES-RPC S11).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from colonist_core.access import Access
from colonist_protocol import attribute as attribute_wire
from colonist_protocol import audit as audit_wire
from colonist_protocol import claims as claims_wire
from colonist_protocol import colony as colony_wire
from colonist_protocol import cron as cron_wire
from colonist_protocol import executor as executor_wire
from colonist_protocol import function as function_wire
from colonist_protocol import generator as generator_wire
from colonist_protocol import log as log_wire
from colonist_protocol import process as process_wire
from colonist_protocol import server as server_wire
from colonist_protocol import subscription as subscription_wire
from colonist_protocol import user as user_wire
from colonist_protocol import workflow as workflow_wire
from colonist_protocol.errors import AccessError
from colonist_protocol.message import Message
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony
from colonist_server.repo.once import Derived, Mark
from colonist_server.repo.view import View
from colonist_server.rpc import (
    attributes,
    claims,
    colonies,
    crons,
    evidence,
    executors,
    functions,
    generators,
    logs,
    processes,
    server,
    subscriptions,
    users,
    workflows,
)
from colonist_server.rpc.contract import CONTRACTS, Errors
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms

M = TypeVar("M", bound=Message)

Handler = Callable[[Rooms, Call, M], Coroutine[Any, Any, Reply]]
Again = Callable[[Rooms, Call, M, bytes], Coroutine[Any, Any, Reply]]
Derives = Callable[[bytes, Mark], Derived]
"""From a colony's tag and a request the object that it makes."""

API: Final = "/api"
PUBSUB: Final = "/pubsub"
"""Where a message is served: by `POST` at the one, on a WebSocket at the other."""
_OPEN: Final = (Access.ANYONE, Access.OBJECT)


async def done(rooms: Rooms, call: Call, message: Message, value: bytes) -> Reply:
    """The reply to what is answered by nothing but that it was done."""
    del rooms, call, message, value
    return NOTHING


async def said(rooms: Rooms, call: Call, message: Message, value: bytes) -> Reply:
    """The reply to what is answered by its own words."""
    del rooms, call, value
    return Reply(message)


class Scope(msgspec.Struct, Generic[M], frozen=True):
    """How a message names its colony: by name, or by the id of a process in it."""

    of: Callable[[M], str]
    by_process: bool = False

    def find(self, view: View, message: M) -> Colony | None:
        """The colony, if there is one."""
        name = self.of(message)
        if not self.by_process:
            return view.colonies.get(name)
        pid = keys.parse_pid(name)
        return view.tags.get(pid[: keys.TAG_BYTES]) if pid is not None else None


class Route(msgspec.Struct, Generic[M], frozen=True):
    """One remote procedure.

    One that `has_steps` runs to its end even when its caller leaves. One that `takes_all` acts on
    whatever this node knows of, and so has to know all.

    Of sealed requests: `again` makes the reply to one that took effect before, from its record; it
    also finishes what a stop may have left undone. One that `derives` makes an object whose id
    follows from the request. One that `records_last` has steps that may be repeated, and its record
    is written after them. One that `ends_access` changes the caller's id: repeated, it is answered
    although that id is nobody's any more.
    """

    kind: type[M]
    access: Access
    handler: Handler[M]
    scope: Scope[M] | None = None
    has_steps: bool = False
    takes_all: bool = False
    door: str = API
    again: Again[M] = done
    derives: Derives | None = None
    records_last: bool = False
    ends_access: bool = False

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return CONTRACTS[self.kind].is_read

    @property
    def is_repeatable(self) -> bool:
        """Whether a sealed one may be answered again and again: a stream of events may not."""
        return self.is_read and self.door != PUBSUB

    @property
    def needs_all(self) -> bool:
        """Whether its answer rests on all that was acknowledged before, at any node."""
        return self.takes_all or CONTRACTS[self.kind].is_read

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.kind.__doc__ or "").strip().splitlines()[0]

    @property
    def reply(self) -> Any:
        """The type of the reply's JSON; None: an empty object."""
        return CONTRACTS[self.kind].reply

    @property
    def errors(self) -> Errors:
        """What it may be refused with, besides what any message may."""
        own = CONTRACTS[self.kind].refusals
        return own if self.access in _OPEN or AccessError in own else (AccessError, *own)


class OfColony(Protocol):
    """A message that names its colony."""

    colonyname: str


class OfProcess(Protocol):
    """A message about one process."""

    processid: str


def of_colony(message: OfColony) -> str:
    """The colony's name."""
    return message.colonyname


def of_process(message: OfProcess) -> str:
    """The process's id."""
    return message.processid


class OfGenerator(Protocol):
    """A message about one generator, whose id begins as those of its colony's processes do."""

    generatorid: str


def of_generator(message: OfGenerator) -> str:
    """The generator's id."""
    return message.generatorid


class OfCron(Protocol):
    """A message about one cron, whose id begins as those of its colony's processes do."""

    cronid: str


def of_cron(message: OfCron) -> str:
    """The cron's id."""
    return message.cronid


class OfGraph(Protocol):
    """A message about one workflow."""

    processgraphid: str


def of_graph(message: OfGraph) -> str:
    """The workflow's id."""
    return message.processgraphid


ROUTES: Final[dict[str, Route[Any]]] = {}


def _route(
    kind: type[M],
    access: Access,
    handler: Handler[M],
    *,
    colony: Callable[[M], str] | None = None,
    process: Callable[[M], str] | None = None,
    has_steps: bool = False,
    takes_all: bool = False,
    door: str = API,
    again: Again[M] = done,
    derives: Derives | None = None,
    records_last: bool = False,
    ends_access: bool = False,
) -> None:
    scope = None
    if colony is not None:
        scope = Scope[M](colony)
    elif process is not None:
        scope = Scope[M](process, by_process=True)
    ROUTES[kind.msgtype()] = Route(
        kind,
        access,
        handler,
        scope,
        has_steps,
        takes_all,
        door,
        again,
        derives,
        records_last,
        ends_access,
    )


_route(server_wire.Version, Access.ANYONE, server.version)
_route(server_wire.GetServerInfo, Access.ANYONE, server.info)
_route(server_wire.GetStatistics, Access.SERVER_OWNER, server.statistics)
_route(server_wire.GetCluster, Access.SERVER_OWNER, server.cluster)
_route(
    server_wire.ChangeServerId, Access.SERVER_OWNER, server.change_id, again=said, ends_access=True
)

_route(colony_wire.AddColony, Access.SERVER_OWNER, colonies.add, again=colonies.added_again)
_route(colony_wire.RemoveColony, Access.SERVER_OWNER, colonies.remove, has_steps=True)
_route(colony_wire.GetColonies, Access.SERVER_OWNER, colonies.list_all)
_route(colony_wire.GetColony, Access.MEMBER, colonies.get, colony=of_colony)
_route(colony_wire.GetColonyStatistics, Access.MEMBER, server.colony_statistics, colony=of_colony)
_route(colony_wire.PauseAssignments, Access.COLONY_OWNER, colonies.pause, colony=of_colony)
_route(colony_wire.ResumeAssignments, Access.COLONY_OWNER, colonies.resume, colony=of_colony)
_route(colony_wire.GetPauseStatus, Access.NEWCOMER, colonies.pause_status, colony=of_colony)
_route(
    colony_wire.ChangeColonyId,
    Access.COLONY_OWNER,
    colonies.change_id,
    colony=of_colony,
    again=said,
    ends_access=True,
)
_route(colony_wire.GetMemberHistory, Access.COLONY_OWNER, colonies.member_history, colony=of_colony)

_route(
    colony_wire.SetPolicy,
    Access.COLONY_OWNER,
    colonies.set_policy,
    colony=of_colony,
    again=colonies.settled_again,
)
_route(colony_wire.GetPolicy, Access.MEMBER, colonies.get_policy, colony=of_colony)

_route(
    claims_wire.AddClaim,
    Access.COLONY_OWNER,
    claims.add,
    colony=of_colony,
    again=claims.added_again,
)
_route(claims_wire.GetClaims, Access.COLONY_OWNER, claims.list_all, colony=of_colony)
_route(
    claims_wire.RemoveClaim,
    Access.COLONY_OWNER,
    claims.remove,
    colony=of_colony,
    has_steps=True,
    takes_all=True,
    again=claims.removed_again,
)
_route(claims_wire.GetEnrolled, Access.COLONY_OWNER, claims.list_enrolled, colony=of_colony)
_route(
    claims_wire.Enrol,
    Access.CLAIM,
    claims.enrol,
    colony=of_colony,
    again=claims.enrolled_again,
)

_route(
    user_wire.AddUser,
    Access.COLONY_OWNER,
    users.add,
    colony=lambda message: message.user.colonyname,
    again=users.added_again,
)
_route(user_wire.GetUsers, Access.NEWCOMER, users.list_all, colony=of_colony)
_route(user_wire.GetUser, Access.NEWCOMER, users.get, colony=of_colony)
_route(user_wire.GetUserById, Access.NEWCOMER, users.get_by_id, colony=of_colony)
_route(user_wire.RemoveUser, Access.COLONY_OWNER, users.remove, colony=of_colony)
_route(
    user_wire.ChangeUserId,
    Access.USER,
    users.change_id,
    colony=of_colony,
    again=said,
    ends_access=True,
)

_route(
    executor_wire.AddExecutor,
    Access.COLONY_OWNER,
    executors.add,
    colony=lambda message: message.executor.colonyname,
    has_steps=True,
    again=executors.added_again,
)
_route(executor_wire.GetExecutors, Access.NEWCOMER, executors.list_all, colony=of_colony)
_route(executor_wire.GetExecutor, Access.MEMBER, executors.get, colony=of_colony)
_route(executor_wire.GetExecutorById, Access.MEMBER, executors.get_by_id, colony=of_colony)
_route(executor_wire.ApproveExecutor, Access.COLONY_OWNER, executors.approve, colony=of_colony)
_route(executor_wire.RejectExecutor, Access.COLONY_OWNER, executors.reject, colony=of_colony)
_route(
    executor_wire.RemoveExecutor,
    Access.COLONY_OWNER,
    executors.remove,
    colony=of_colony,
    has_steps=True,
    takes_all=True,
    again=executors.removed_again,
)
_route(
    executor_wire.ChangeExecutorId,
    Access.EXECUTOR,
    executors.change_id,
    colony=of_colony,
    takes_all=True,
    again=said,
    ends_access=True,
)

_route(
    function_wire.AddFunction,
    Access.EXECUTOR,
    functions.add,
    colony=lambda message: message.function.colonyname,
    again=functions.added_again,
)
_route(function_wire.GetFunctions, Access.MEMBER, functions.list_all, colony=of_colony)
_route(function_wire.RemoveFunction, Access.OBJECT, functions.remove)

_route(
    generator_wire.AddGenerator,
    Access.MEMBER,
    generators.add,
    colony=lambda message: message.generator.colonyname,
    again=generators.added_again,
)
_route(generator_wire.GetGenerator, Access.MEMBER, generators.get, process=of_generator)
_route(generator_wire.ResolveGenerator, Access.MEMBER, generators.resolve, colony=of_colony)
_route(generator_wire.GetGenerators, Access.MEMBER, generators.list_some, colony=of_colony)
_route(generator_wire.PackGenerator, Access.MEMBER, generators.pack, process=of_generator)
_route(
    generator_wire.RemoveGenerator,
    Access.MEMBER,
    generators.remove,
    process=of_generator,
    has_steps=True,
)

_route(
    cron_wire.AddCron,
    Access.MEMBER,
    crons.add,
    colony=lambda message: message.cron.colonyname,
    again=crons.added_again,
)
_route(cron_wire.GetCron, Access.MEMBER, crons.get, process=of_cron)
_route(cron_wire.GetCrons, Access.MEMBER, crons.list_some, colony=of_colony)
_route(
    cron_wire.RunCron,
    Access.MEMBER,
    crons.run,
    process=of_cron,
    has_steps=True,
    again=crons.run_again,
)
_route(cron_wire.RemoveCron, Access.MEMBER, crons.remove, process=of_cron)

_route(
    process_wire.SubmitFunctionSpec,
    Access.MEMBER,
    processes.submit,
    colony=lambda message: message.spec.conditions.colonyname,
    again=processes.submitted_again,
    derives=processes.derived,
)
_route(
    process_wire.AssignProcess,
    Access.EXECUTOR,
    processes.assign,
    colony=of_colony,
    again=processes.assigned_again,
)
_route(process_wire.GetProcesses, Access.MEMBER, processes.list_some, colony=of_colony)
_route(process_wire.GetProcessHistory, Access.MEMBER, processes.history, colony=of_colony)
_route(process_wire.GetProcess, Access.MEMBER, processes.get, process=of_process)
_route(
    process_wire.RemoveProcess, Access.MEMBER, processes.remove, process=of_process, has_steps=True
)
_route(
    process_wire.RemoveAllProcesses,
    Access.COLONY_OWNER,
    processes.remove_all,
    colony=of_colony,
    has_steps=True,
    takes_all=True,
    records_last=True,
)
_route(
    process_wire.CloseSuccessful, Access.EXECUTOR, processes.close_successful, process=of_process
)
_route(process_wire.CloseFailed, Access.EXECUTOR, processes.close_failed, process=of_process)
_route(process_wire.SetOutput, Access.EXECUTOR, processes.set_output, process=of_process)
_route(process_wire.Renew, Access.EXECUTOR, processes.renew, process=of_process)
_route(process_wire.CancelProcess, Access.MEMBER, processes.cancel, process=of_process)
_route(process_wire.ReleaseProcess, Access.EXECUTOR, processes.release, process=of_process)

_route(
    workflow_wire.SubmitWorkflowSpec,
    Access.MEMBER,
    workflows.submit,
    colony=lambda message: message.spec.colonyname,
    has_steps=True,
    again=workflows.submitted_again,
    derives=workflows.derived,
)
_route(workflow_wire.GetProcessGraph, Access.MEMBER, workflows.get, process=of_graph)
_route(workflow_wire.GetProcessGraphs, Access.MEMBER, workflows.list_some, colony=of_colony)
_route(
    workflow_wire.RemoveProcessGraph,
    Access.MEMBER,
    workflows.remove,
    process=of_graph,
    has_steps=True,
    again=workflows.removed_again,
)
_route(
    workflow_wire.RemoveAllProcessGraphs,
    Access.COLONY_OWNER,
    workflows.remove_all,
    colony=of_colony,
    has_steps=True,
    takes_all=True,
    records_last=True,
)
_route(
    workflow_wire.CancelProcessGraph,
    Access.MEMBER,
    workflows.cancel,
    process=of_graph,
    has_steps=True,
)
_route(
    workflow_wire.AddChild,
    Access.EXECUTOR,
    workflows.add_child,
    process=of_graph,
    has_steps=True,
    again=workflows.child_again,
)

_route(
    attribute_wire.AddAttribute,
    Access.EXECUTOR,
    attributes.add,
    process=lambda message: message.attribute.targetid,
)
_route(attribute_wire.GetAttribute, Access.OBJECT, attributes.get)

_route(log_wire.AddLog, Access.EXECUTOR, logs.add, process=of_process)
_route(log_wire.AddExecutorLog, Access.EXECUTOR, logs.add_executor, colony=of_colony)
_route(log_wire.GetLogs, Access.MEMBER, logs.get, colony=of_colony)
_route(log_wire.SearchLogs, Access.MEMBER, logs.search, colony=of_colony)

_route(
    subscription_wire.SubscribeProcess,
    Access.MEMBER,
    subscriptions.process,
    process=of_process,
    door=PUBSUB,
    again=subscriptions.again,
)
_route(
    subscription_wire.SubscribeProcesses,
    Access.MEMBER,
    subscriptions.processes,
    colony=of_colony,
    door=PUBSUB,
    again=subscriptions.again,
)

_route(audit_wire.GetAudit, Access.COLONY_OWNER, evidence.export, colony=of_colony)
_route(audit_wire.GetEvidence, Access.MEMBER, evidence.of_process, process=of_process)
