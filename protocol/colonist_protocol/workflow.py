"""Workflows (process graphs): COLONIES-RPC sections 2.7 and 3.6."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.message import Int, Message
from colonist_protocol.process import FINAL
from colonist_protocol.times import UNSET

MAX_MEMBERS: Final = 10_000
"""What one submit may hold; children added later count too."""
ANY_STATE: Final = -1


class WorkflowSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow is made of; `conditions.dependencies` of each node names its parents."""

    colonyname: str = ""
    functionspecs: list[FunctionSpec] = []


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a node is drawn."""

    x: Int = 0
    y: Int = 0


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A member as a drawing shows it."""

    id: str
    data: dict[str, str]
    position: Position
    type: str
    style: dict[str, str]


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """A dependency as a drawing shows it."""

    id: str
    source: str
    target: str
    animated: bool


class ProcessGraph(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as a client reads it."""

    processgraphid: str
    initiatorid: str = ""
    initiatorname: str = ""
    colonyname: str
    rootprocessids: list[str] = []
    state: Int = 0
    submissiontime: str = UNSET
    starttime: str = UNSET
    endtime: str = UNSET
    processids: list[str] = []
    nodes: list[Node] = []
    edges: list[Edge] = []

    @property
    def is_final(self) -> bool:
        """Whether all members have ended."""
        return self.state in FINAL


class SubmitWorkflowSpec(Message, tag="submitworkflowspecmsg"):
    """Submit a workflow: all of its processes appear at once, or none."""

    spec: WorkflowSpec


class GetProcessGraph(Message, tag="getprocessgraphmsg"):
    """Read one workflow, with nodes and edges."""

    processgraphid: str = ""


class GetProcessGraphs(Message, tag="getprocessgraphsmsg"):
    """List workflows, newest submission first; -1 or nothing: in any state."""

    colonyname: str = ""
    count: Int = 0
    state: Int = ANY_STATE


class RemoveProcessGraph(Message, tag="removeprocessgraphmsg"):
    """Remove a workflow that is not running, with its processes."""

    processgraphid: str = ""


class RemoveAllProcessGraphs(Message, tag="removeallprocessgraphsmsg"):
    """Remove all workflows in a state; -1 or nothing: in every state but RUNNING."""

    colonyname: str = ""
    state: Int = ANY_STATE


class CancelProcessGraph(Message, tag="cancelprocessgraphmsg"):
    """Cancel what has not ended of a workflow."""

    processgraphid: str = ""


class AddChild(Message, tag="addchildmsg", kw_only=True):
    """Add a process to a running workflow, as a child of a process that the caller runs.

    `insert`: the new process takes over all children of the parent. `childprocessid`: that process
    waits for the new one too.
    """

    processgraphid: str = ""
    parentprocessid: str = ""
    childprocessid: str = ""
    insert: bool = False
    spec: FunctionSpec


MESSAGES: Final = (
    SubmitWorkflowSpec,
    GetProcessGraph,
    GetProcessGraphs,
    RemoveProcessGraph,
    RemoveAllProcessGraphs,
    CancelProcessGraph,
    AddChild,
)
