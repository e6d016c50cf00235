"""What each remote procedure answers: the type of its reply, and the errors of its own.

The reference page is made from this, and the tests hold every answer that they get against it: a
reply of another type, or an error that is not listed here, fails them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from colonist_protocol import (
    attribute,
    audit,
    claims,
    colony,
    cron,
    executor,
    function,
    generator,
    log,
    process,
    server,
    subscription,
    user,
    workflow,
)
from colonist_protocol.errors import (
    AccessError,
    AmountError,
    AssignPausedError,
    AssignPausedTimeoutError,
    AttemptInvalidError,
    AttemptOverError,
    Base64Error,
    BusyError,
    ColonistError,
    ConflictError,
    ContendedError,
    CorruptRecordError,
    DuplicateMemberError,
    EpochStaleError,
    ExistsError,
    HighSError,
    IdFormError,
    InvalidMessageError,
    InvalidValueError,
    LoneSurrogateError,
    MalformedError,
    MessageTypeError,
    MissingMemberError,
    NameFormError,
    NoKeyError,
    NoProcessError,
    NotFoundError,
    NotJsonError,
    NotUtf8Error,
    NumberError,
    OutOfBoundsError,
    PlainRefusedError,
    ResultConflictError,
    SealError,
    SignatureHexError,
    SignatureLengthError,
    SignatureRangeError,
    SlowError,
    TooDeepError,
    TooLargeError,
    TooOldError,
    UnavailableError,
    WrongDoorError,
    WrongServerError,
    WrongTypeError,
)
from colonist_protocol.message import Message

Errors = tuple[type[ColonistError], ...]

UNREADABLE: Final[Errors] = (
    MalformedError,
    NotJsonError,
    NotUtf8Error,
    NumberError,
    LoneSurrogateError,
    DuplicateMemberError,
    TooDeepError,
    Base64Error,
    InvalidMessageError,
    MissingMemberError,
    WrongTypeError,
    OutOfBoundsError,
    MessageTypeError,
)
"""What any request meets that cannot be read."""
UNSIGNED: Final[Errors] = (
    SignatureLengthError,
    SignatureHexError,
    SignatureRangeError,
    HighSError,
    NoKeyError,
)
"""What any request meets whose signature proves nothing, where one is asked for."""
ANYWHERE: Final[Errors] = (
    SlowError,
    TooLargeError,
    BusyError,
    WrongDoorError,
    UnavailableError,
    CorruptRecordError,
    ColonistError,
    SealError,
    WrongServerError,
    PlainRefusedError,
    TooOldError,
    EpochStaleError,
)
"""What any request may meet, whatever it asks for."""

_SPEC: Final[Errors] = (InvalidValueError, AmountError, NameFormError)
_PROCESS: Final[Errors] = (NotFoundError, ConflictError)
_ATTEMPT: Final[Errors] = (AttemptInvalidError, AttemptOverError)
_RESULT: Final[Errors] = (AttemptInvalidError, ResultConflictError)


class Contract(NamedTuple):
    """The type of a reply's JSON, None for `{}`; and its own errors, besides what any may meet.

    `is_read`: it changes nothing, whatever it is answered.
    """

    reply: Any = None
    refusals: Errors = ()
    is_read: bool = False


CONTRACTS: Final[dict[type[Message], Contract]] = {}


def _reads(kind: type[Message], reply: Any, *refusals: type[ColonistError]) -> None:
    CONTRACTS[kind] = Contract(reply, refusals, is_read=True)


def _writes(kind: type[Message], reply: Any, *refusals: type[ColonistError]) -> None:
    CONTRACTS[kind] = Contract(reply, (*refusals, ContendedError))


_reads(server.Version, server.VersionReply)
_reads(server.GetServerInfo, server.ServerInfo)
_reads(server.GetStatistics, server.Statistics)
_reads(server.GetCluster, server.Cluster)
_writes(server.ChangeServerId, server.ChangeServerId, IdFormError, ExistsError)

_writes(colony.AddColony, colony.Colony, IdFormError, NameFormError, ExistsError)
_writes(colony.RemoveColony, None, NotFoundError)
_reads(colony.GetColonies, list[colony.Colony])
_reads(colony.GetColony, colony.Colony)
_reads(colony.GetColonyStatistics, server.Statistics)
_writes(colony.PauseAssignments, None)
_writes(colony.ResumeAssignments, None)
_reads(colony.GetPauseStatus, colony.PauseStatus)
_writes(colony.ChangeColonyId, colony.ChangeColonyId, IdFormError, ExistsError)
_reads(colony.GetMemberHistory, list[colony.MemberChange], InvalidValueError)

_writes(colony.SetPolicy, colony.Policy, InvalidValueError)
_reads(colony.GetPolicy, colony.Policy)

_writes(
    claims.AddClaim,
    claims.Claim,
    IdFormError,
    NameFormError,
    InvalidValueError,
    ExistsError,
    BusyError,
)
_reads(claims.GetClaims, list[claims.Claim])
_writes(claims.RemoveClaim, None, IdFormError, ConflictError)
_reads(claims.GetEnrolled, list[claims.Enrolled])
_writes(claims.Enrol, executor.Executor, NameFormError, ConflictError, NotFoundError)

_writes(user.AddUser, user.User, IdFormError, NameFormError, ExistsError)
_reads(user.GetUsers, list[user.User])
_reads(user.GetUser, user.User, NotFoundError)
_reads(user.GetUserById, user.User, NotFoundError)
_writes(user.RemoveUser, None, NotFoundError)
_writes(user.ChangeUserId, user.ChangeUserId, IdFormError, ExistsError)

_writes(executor.AddExecutor, executor.Executor, IdFormError, NameFormError, ExistsError)
_reads(executor.GetExecutors, list[executor.Executor])
_reads(executor.GetExecutor, executor.Executor, NotFoundError)
_reads(executor.GetExecutorById, executor.Executor, NotFoundError)
_writes(executor.ApproveExecutor, None, NotFoundError, ConflictError)
_writes(executor.RejectExecutor, None, NotFoundError, ConflictError)
_writes(executor.RemoveExecutor, None, NotFoundError)
_writes(
    executor.ChangeExecutorId, executor.ChangeExecutorId, IdFormError, ExistsError, ConflictError
)

_writes(function.AddFunction, function.Function, NotFoundError, NameFormError)
_reads(function.GetFunctions, list[function.Function])
_writes(function.RemoveFunction, None, NotFoundError, AccessError)

_writes(generator.AddGenerator, generator.Generator, *_SPEC, ExistsError, NotFoundError)
_reads(generator.GetGenerator, generator.Generator, NotFoundError)
_reads(generator.ResolveGenerator, generator.Generator, NotFoundError)
_reads(generator.GetGenerators, list[generator.Generator], InvalidValueError)
_writes(generator.PackGenerator, None, NotFoundError, ConflictError)
_writes(generator.RemoveGenerator, None, NotFoundError)

_writes(cron.AddCron, cron.Cron, *_SPEC, ExistsError, NotFoundError)
_reads(cron.GetCron, cron.Cron, NotFoundError)
_reads(cron.GetCrons, list[cron.Cron], InvalidValueError)
_writes(cron.RunCron, cron.Cron, NotFoundError, ConflictError, InvalidValueError)
_writes(cron.RemoveCron, None, NotFoundError)

_writes(process.SubmitFunctionSpec, process.Process, *_SPEC, NotFoundError)
_writes(
    process.AssignProcess,
    process.Process,
    InvalidValueError,
    AmountError,
    NoProcessError,
    AssignPausedError,
    AssignPausedTimeoutError,
    ConflictError,
    BusyError,
)
_reads(process.GetProcesses, list[process.Process], InvalidValueError, NotFoundError)
_reads(process.GetProcessHistory, list[process.Process], InvalidValueError)
_reads(process.GetProcess, process.Process, NotFoundError)
_writes(process.RemoveProcess, None, *_PROCESS)
_writes(process.RemoveAllProcesses, None, InvalidValueError)
_writes(process.CloseSuccessful, process.Outcome, *_PROCESS, *_RESULT)
_writes(process.CloseFailed, process.Outcome, *_PROCESS, InvalidValueError, *_RESULT)
_writes(process.SetOutput, None, *_PROCESS, *_ATTEMPT)
_writes(process.Renew, process.Attempt, InvalidValueError, *_ATTEMPT)
_writes(process.CancelProcess, None, *_PROCESS)
_writes(process.ReleaseProcess, None, *_PROCESS, AttemptInvalidError)

_writes(workflow.SubmitWorkflowSpec, workflow.ProcessGraph, *_SPEC, ConflictError, NotFoundError)
_reads(workflow.GetProcessGraph, workflow.ProcessGraph, NotFoundError)
_reads(workflow.GetProcessGraphs, list[workflow.ProcessGraph], InvalidValueError)
_writes(workflow.RemoveProcessGraph, None, *_PROCESS)
_writes(workflow.RemoveAllProcessGraphs, None, InvalidValueError)
_writes(workflow.CancelProcessGraph, None, *_PROCESS)
_writes(workflow.AddChild, process.Process, *_PROCESS, *_SPEC)

_writes(attribute.AddAttribute, attribute.Attribute, *_PROCESS, InvalidValueError, *_ATTEMPT)
_reads(attribute.GetAttribute, attribute.Attribute, NotFoundError)

_writes(log.AddLog, None, *_PROCESS, *_ATTEMPT)
_writes(log.AddExecutorLog, None)
_reads(log.GetLogs, list[log.Log], InvalidValueError, NotFoundError)
_reads(log.SearchLogs, list[log.Log], InvalidValueError)

_reads(
    subscription.SubscribeProcess,
    process.Process,
    NotFoundError,
    InvalidValueError,
    ConflictError,
    ContendedError,
)
_reads(
    subscription.SubscribeProcesses,
    process.Process,
    InvalidValueError,
    ConflictError,
    ContendedError,
)

_reads(audit.GetAudit, audit.AuditPage, InvalidValueError)
_reads(audit.GetEvidence, audit.ProcessEvidence, NotFoundError, InvalidValueError)
