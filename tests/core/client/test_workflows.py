"""What the client sends about workflows, and what it makes of the replies."""

from typing import Any

import msgspec
import pytest

from colonist_client.caller import OutcomeUnknownError
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, Retry
from colonist_client.transport import UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.messages import TYPED
from colonist_protocol.process import GetProcesses, Process, State
from colonist_protocol.times import UNSET
from colonist_protocol.workflow import (
    AddChild,
    CancelProcessGraph,
    Edge,
    GetProcessGraph,
    GetProcessGraphs,
    Node,
    Position,
    ProcessGraph,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
    SubmitWorkflowSpec,
    WorkflowSpec,
)
from tests.support.clock import virtual
from tests.support.transports import DirectTransport

KEY = Identity(bytes(31) + b"\x03")
SPEC = WorkflowSpec(
    colonyname="home",
    functionspecs=[
        FunctionSpec(nodename="a", funcname="f"),
        FunctionSpec(nodename="b", funcname="g", conditions=Conditions(dependencies=["a"])),
    ],
)
GRAPH = ProcessGraph(
    processgraphid="w",
    initiatorid=KEY.id,
    colonyname="home",
    rootprocessids=["p1"],
    processids=["p1", "p2"],
    nodes=[Node(id="p1", data={"label": "a"}, position=Position(1, 2), type="input", style={})],
    edges=[Edge(id="p1-p2", source="p1", target="p2", animated=False)],
)
PROCESS = Process(
    processid="p1",
    initiatorid=KEY.id,
    initiatorname="",
    assignedexecutorid="",
    isassigned=False,
    state=State.WAITING,
    prioritytime=0,
    submissiontime=UNSET,
    spec=SPEC.functionspecs[0],
)
RETRY = Retry(backoff=Backoff(uniform=lambda _, high: high, base_s=1, cap_s=4), attempts=3)


class Desk:
    """A client whose server answers everything with one value, and what that was asked."""

    def __init__(self, reply: Any = None, *, retry: Retry | None = None) -> None:
        self.asked: list[Message] = []
        self._reply = reply
        self.transport = DirectTransport(self._answer)
        self.client = Client(self.transport, KEY, retry=retry)

    async def _answer(self, body: bytes) -> bytes:
        request = envelope.parse_request(body)
        kind = TYPED[request.payloadtype]
        self.asked.append(envelope.open_message(request, kind))
        if isinstance(self._reply, InvalidValueError):
            return envelope.pack_failure(self._reply)
        return envelope.pack_reply(request.payloadtype, codec.encode(self._reply))


@virtual
async def test_a_submitted_workflow_is_shown() -> None:
    desk = Desk(GRAPH)
    assert await desk.client.submit_workflow(SPEC) == GRAPH
    (asked,) = desk.asked
    assert isinstance(asked, SubmitWorkflowSpec)
    assert [spec.nodename for spec in asked.spec.functionspecs] == ["a", "b"]
    assert asked.spec.functionspecs[1].conditions.dependencies == ["a"]


@virtual
async def test_one_workflow_comes_with_its_drawing() -> None:
    desk = Desk(GRAPH)
    assert await desk.client.workflow("w") == GRAPH
    assert desk.asked == [GetProcessGraph(processgraphid="w")]


@virtual
async def test_workflows_are_listed_in_any_state_unless_one_is_named() -> None:
    desk = Desk([GRAPH])
    assert await desk.client.workflows("home") == [GRAPH]
    assert await desk.client.workflows("home", count=5, state=State.FAILED) == [GRAPH]
    assert desk.asked == [
        GetProcessGraphs(colonyname="home", count=100, state=-1),
        GetProcessGraphs(colonyname="home", count=5, state=3),
    ]


@virtual
async def test_members_are_listed_in_any_state_unless_one_is_named() -> None:
    desk = Desk([PROCESS])
    assert [each.processid for each in await desk.client.workflow_members("home", "w")] == ["p1"]
    await desk.client.workflow_members("home", "w", count=2, state=State.WAITING)
    assert desk.asked == [
        GetProcesses(colonyname="home", count=100, state=-1, processgraphid="w"),
        GetProcesses(colonyname="home", count=2, state=0, processgraphid="w"),
    ]


@virtual
async def test_null_for_no_workflows_is_an_empty_list() -> None:
    client = Desk(msgspec.Raw(b"null")).client
    assert await client.workflows("home") == []
    assert await client.workflow_members("home", "w") == []


@virtual
async def test_a_child_is_added_as_a_leaf_between_or_before_all() -> None:
    desk = Desk(PROCESS)
    spec = FunctionSpec(nodename="c", funcname="h")
    assert (await desk.client.add_child("w", "p1", spec)).processid == "p1"
    await desk.client.add_child("w", "p1", spec, child_id="p2")
    await desk.client.add_child("w", "p1", spec, insert=True)
    assert [
        (each.processgraphid, each.parentprocessid, each.childprocessid, each.insert)
        for each in desk.asked
        if isinstance(each, AddChild) and each.spec.nodename == "c"
    ] == [("w", "p1", "", False), ("w", "p1", "p2", False), ("w", "p1", "", True)]


@virtual
async def test_orders_about_workflows() -> None:
    desk = Desk({})
    await desk.client.cancel_workflow("w")
    await desk.client.remove_workflow("w")
    await desk.client.remove_all_workflows("home")
    await desk.client.remove_all_workflows("home", state=State.SUCCESS)
    assert desk.asked == [
        CancelProcessGraph(processgraphid="w"),
        RemoveProcessGraph(processgraphid="w"),
        RemoveAllProcessGraphs(colonyname="home", state=-1),
        RemoveAllProcessGraphs(colonyname="home", state=2),
    ]


@virtual
async def test_a_refusal_is_raised() -> None:
    desk = Desk(InvalidValueError("Duplicate nodename: a"))
    with pytest.raises(ServerError, match="Duplicate nodename: a"):
        await desk.client.submit_workflow(SPEC)


@virtual
async def test_what_makes_something_is_not_repeated_after_a_lost_reply_and_reads_are() -> None:
    desk = Desk(GRAPH, retry=RETRY)
    desk.transport.drop_replies_to = {"submitworkflowspecmsg", "addchildmsg", "getprocessgraphmsg"}
    with pytest.raises(OutcomeUnknownError, match="submitworkflowspecmsg: the outcome is unknown"):
        await desk.client.submit_workflow(SPEC)
    with pytest.raises(OutcomeUnknownError, match="addchildmsg"):
        await desk.client.add_child("w", "p1", SPEC.functionspecs[0])
    assert len(desk.asked) == 2
    with pytest.raises(UnreachableError):
        await desk.client.workflow("w")
    assert len(desk.asked) == 5


@pytest.mark.parametrize(("state", "is_final"), [(0, False), (1, False), (2, True), (4, True)])
def test_a_workflow_is_final_when_its_state_is(state: int, is_final: bool) -> None:
    assert msgspec.structs.replace(GRAPH, state=state).is_final is is_final
