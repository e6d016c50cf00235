"""Calls about workflows: COLONIES-RPC section 2.7."""

from __future__ import annotations

from colonist_client.caller import Caller
from colonist_protocol import process, workflow
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process
from colonist_protocol.workflow import ANY_STATE, ProcessGraph, WorkflowSpec


class WorkflowCalls(Caller):
    """Submit workflows, look at them, let them grow, end and remove them."""

    async def submit_workflow(self, spec: WorkflowSpec) -> ProcessGraph:
        """Submit a workflow; a lost reply raises `OutcomeUnknownError`. See `submit`.

        Its `processids` are in the order of the specs.
        """
        return await self.write(workflow.SubmitWorkflowSpec(spec=spec), ProcessGraph)

    async def workflow(self, workflow_id: str) -> ProcessGraph:
        """Read one workflow, with nodes and edges."""
        return await self.read(workflow.GetProcessGraph(processgraphid=workflow_id), ProcessGraph)

    async def workflows(
        self, colony: str, *, count: int = process.MAX_LIST, state: int = ANY_STATE
    ) -> list[ProcessGraph]:
        """List workflows, newest submission first, without nodes and edges."""
        message = workflow.GetProcessGraphs(colonyname=colony, count=count, state=state)
        return await self.read_list(message, ProcessGraph)

    async def workflow_members(
        self,
        colony: str,
        workflow_id: str,
        *,
        count: int = process.MAX_LIST,
        state: int = ANY_STATE,
    ) -> list[Process]:
        """The first processes of a workflow, or of those in a state, in the order of the specs."""
        message = process.GetProcesses(
            colonyname=colony, count=count, state=state, processgraphid=workflow_id
        )
        return await self.read_list(message, Process)

    async def add_child(
        self,
        workflow_id: str,
        parent_id: str,
        spec: FunctionSpec,
        *,
        child_id: str = "",
        insert: bool = False,
    ) -> Process:
        """Add a process below one that runs; the parent's assignee only. See `submit`.

        `insert`: all children of the parent wait for the new process, and no more for the parent.
        Else `child_id`, if given, waits for the new process too.
        """
        message = workflow.AddChild(
            processgraphid=workflow_id,
            parentprocessid=parent_id,
            childprocessid=child_id,
            insert=insert,
            spec=spec,
        )
        return await self.write(message, Process)

    async def cancel_workflow(self, workflow_id: str) -> None:
        """End what has not ended of a workflow."""
        await self.order(workflow.CancelProcessGraph(processgraphid=workflow_id))

    async def remove_workflow(self, workflow_id: str) -> None:
        """Remove a workflow that is not running, with its processes."""
        await self.order(workflow.RemoveProcessGraph(processgraphid=workflow_id))

    async def remove_all_workflows(self, colony: str, *, state: int = ANY_STATE) -> None:
        """Remove all workflows in a state; -1: in every state but running. Colony owner only."""
        await self.order(workflow.RemoveAllProcessGraphs(colonyname=colony, state=state))
