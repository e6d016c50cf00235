"""Executors: COLONIES-RPC sections 2.4 and 3.3."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from colonist_protocol.function_spec import Gpu
from colonist_protocol.message import Int, Message
from colonist_protocol.times import UNSET


class ExecutorState(IntEnum):
    """The numbers of the wire."""

    PENDING = 0
    APPROVED = 1
    REJECTED = 2
    UNREGISTERED = 3


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of machine that an executor has; shown, not matched."""

    model: str = ""
    nodes: Int = 0
    cpu: str = ""
    cores: Int = 0
    mem: str = ""
    storage: str = ""
    gpu: Gpu = Gpu()
    platform: str = ""
    architecture: str = ""
    network: list[str] | None = None


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """A program that an executor has; shown, not matched."""

    name: str = ""
    type: str = ""
    version: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor says of itself."""

    hardware: list[Hardware] | None = None
    software: list[Software] | None = None


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A share of an executor."""

    allocatedcpu: Int = 0
    usedcpu: Int = 0
    allocatedgpu: Int = 0
    usedgpu: Int = 0
    allocatedstorage: Int = 0
    usedstorage: Int = 0


class Allocations(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of an executor by project."""

    projects: dict[str, Project] | None = None


class Executor(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever pulls processes and runs them."""

    executorid: str
    executortype: str
    executorname: str
    colonyname: str
    state: Int = ExecutorState.PENDING
    requirefuncreg: bool = False
    commissiontime: str = UNSET
    lastheardfromtime: str = UNSET
    locationname: str | msgspec.UnsetType = msgspec.UNSET
    capabilities: Capabilities = Capabilities()
    allocations: Allocations = Allocations()
    blueprintid: str | msgspec.UnsetType = msgspec.UNSET
    blueprintgen: Int | msgspec.UnsetType = msgspec.UNSET
    sealed: bool | msgspec.UnsetType = msgspec.UNSET
    """Ours alone: only sealed requests are taken from it. Not there where it is false."""


class AddExecutor(Message, tag="addexecutormsg"):
    """Register an executor; it waits for approval."""

    executor: Executor


class GetExecutors(Message, tag="getexecutorsmsg"):
    """List a colony's executors."""

    colonyname: str = ""


class GetExecutor(Message, tag="getexecutormsg"):
    """Read an executor by name."""

    colonyname: str = ""
    executorname: str = ""


class GetExecutorById(Message, tag="getexecutorbyidmsg"):
    """Read an executor by id."""

    colonyname: str = ""
    executorid: str = ""


class ApproveExecutor(Message, tag="approveexecutormsg"):
    """Let an executor work."""

    colonyname: str = ""
    executorname: str = ""


class RejectExecutor(Message, tag="rejectexecutormsg"):
    """Keep an executor from work."""

    colonyname: str = ""
    executorname: str = ""


class RemoveExecutor(Message, tag="removeexecutormsg"):
    """Unregister an executor; its running work goes back to the queue."""

    colonyname: str = ""
    executorname: str = ""


class ChangeExecutorId(Message, tag="changeexecutoridmsg"):
    """Give the calling executor a new id; signed with the old key, which is refused from then on.

    What it runs stays its own.
    """

    colonyname: str = ""
    executorid: str = ""


MESSAGES: Final = (
    AddExecutor,
    GetExecutors,
    GetExecutor,
    GetExecutorById,
    ApproveExecutor,
    RejectExecutor,
    RemoveExecutor,
    ChangeExecutorId,
)
