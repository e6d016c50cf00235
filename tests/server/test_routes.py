"""Every remote procedure: who may call it, who may not, and what its reply looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest

from colonist_core.access import Access
from colonist_protocol import messages
from colonist_protocol.attribute import GetAttribute
from colonist_protocol.audit import GetAudit, GetEvidence
from colonist_protocol.claims import Enrol, GetClaims, GetEnrolled, RemoveClaim
from colonist_protocol.codec import scan
from colonist_protocol.colony import (
    AddColony,
    ChangeColonyId,
    Colony,
    GetColonies,
    GetColony,
    GetColonyStatistics,
    GetMemberHistory,
    GetPauseStatus,
    GetPolicy,
    PauseAssignments,
    PlainRequests,
    RemoveColony,
    ResumeAssignments,
    SetPolicy,
)
from colonist_protocol.cron import GetCron, GetCrons, RemoveCron, RunCron
from colonist_protocol.envelope import Failure, pack_request, parse_reply
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    ChangeExecutorId,
    Executor,
    GetExecutor,
    GetExecutorById,
    GetExecutors,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.function import GetFunctions, RemoveFunction
from colonist_protocol.generator import (
    GetGenerator,
    GetGenerators,
    PackGenerator,
    RemoveGenerator,
    ResolveGenerator,
)
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddExecutorLog, AddLog, GetLogs, SearchLogs
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    GetProcessHistory,
    ReleaseProcess,
    RemoveAllProcesses,
    RemoveProcess,
    Renew,
    SetOutput,
    State,
)
from colonist_protocol.server import (
    ChangeServerId,
    GetCluster,
    GetServerInfo,
    GetStatistics,
    Version,
)
from colonist_protocol.subscription import ON_PUBSUB, SubscribeProcess, SubscribeProcesses
from colonist_protocol.user import (
    AddUser,
    ChangeUserId,
    GetUser,
    GetUserById,
    GetUsers,
    RemoveUser,
    User,
)
from colonist_protocol.workflow import (
    AddChild,
    CancelProcessGraph,
    GetProcessGraph,
    GetProcessGraphs,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
    SubmitWorkflowSpec,
    WorkflowSpec,
)
from colonist_server.rpc.table import API, PUBSUB, ROUTES
from scripts import make_rpc_reference
from tests.server import shapes
from tests.server.people import (
    WHO,
    World,
    attribute_of,
    function_of,
    submit_of,
    world,
)
from tests.support import enrolling
from tests.support.clock import virtual
from tests.support.crons import add_of as cron_of
from tests.support.generators import add_of as generator_of
from tests.support.rooms import COLONY, key, spec

NEW = key("new")


class Case(NamedTuple):
    """One procedure: a message that succeeds, the caller to whom it does, and its reply."""

    make: Callable[[World], Message]
    shape: shapes.Shape
    caller: str = "approved"


def _executor(name: str) -> Executor:
    return Executor(executorid=NEW.id, executortype="cli", executorname=name, colonyname=COLONY)


CASES = [
    Case(lambda _: Version(), shapes.VERSION),
    Case(lambda _: GetServerInfo(), shapes.INFO),
    Case(lambda _: GetStatistics(), shapes.STATISTICS, "server owner"),
    Case(lambda _: GetCluster(), shapes.CLUSTER, "server owner"),
    Case(lambda _: ChangeServerId(serverid=NEW.id), shapes.SERVER_ID, "server owner"),
    Case(
        lambda _: AddColony(colony=Colony(colonyid=NEW.id, name="new")),
        shapes.COLONY,
        "server owner",
    ),
    Case(lambda _: RemoveColony(colonyname=COLONY), shapes.NOTHING, "server owner"),
    Case(lambda _: GetColonies(), shapes.many(shapes.COLONY), "server owner"),
    Case(lambda _: GetColony(colonyname=COLONY), shapes.COLONY),
    Case(lambda _: GetColonyStatistics(colonyname=COLONY), shapes.STATISTICS),
    Case(lambda _: PauseAssignments(colonyname=COLONY), shapes.NOTHING, "colony owner"),
    Case(lambda _: ResumeAssignments(colonyname=COLONY), shapes.NOTHING, "colony owner"),
    Case(lambda _: GetPauseStatus(colonyname=COLONY), shapes.PAUSE_STATUS, "pending"),
    Case(
        lambda _: ChangeColonyId(colonyname=COLONY, colonyid=NEW.id),
        shapes.COLONY_ID,
        "colony owner",
    ),
    Case(
        lambda _: GetMemberHistory(colonyname=COLONY, count=9),
        shapes.many(shapes.MEMBER_CHANGE),
        "colony owner",
    ),
    Case(
        lambda _: SetPolicy(colonyname=COLONY, plainrequests="allow"),
        shapes.POLICY,
        "colony owner",
    ),
    Case(lambda _: GetPolicy(colonyname=COLONY), shapes.POLICY),
    Case(lambda _: enrolling.claim_of(enrolling.code_of("new")), shapes.CLAIM, "colony owner"),
    Case(lambda _: GetClaims(colonyname=COLONY), shapes.many(shapes.CLAIM), "colony owner"),
    Case(
        lambda world: RemoveClaim(colonyname=COLONY, claim=world.claim),
        shapes.NOTHING,
        "colony owner",
    ),
    Case(lambda _: GetEnrolled(colonyname=COLONY), shapes.many(shapes.ENROLLED), "colony owner"),
    Case(lambda _: Enrol(colonyname=COLONY), shapes.EXECUTOR, "whoever has the code"),
    Case(lambda _: GetAudit(colonyname=COLONY), shapes.AUDIT_PAGE, "colony owner"),
    Case(lambda world: GetEvidence(processid=world.failed), shapes.EVIDENCE, "user"),
    Case(
        lambda _: AddUser(user=User(colonyname=COLONY, userid=NEW.id, name="new")),
        shapes.USER,
        "colony owner",
    ),
    Case(lambda _: GetUsers(colonyname=COLONY), shapes.many(shapes.USER), "pending"),
    Case(lambda _: GetUser(colonyname=COLONY, name="uma"), shapes.USER),
    Case(lambda _: GetUserById(colonyname=COLONY, userid=key("uma").id), shapes.USER),
    Case(lambda _: RemoveUser(colonyname=COLONY, name="uma"), shapes.NOTHING, "colony owner"),
    Case(lambda _: ChangeUserId(colonyname=COLONY, userid=NEW.id), shapes.USER_ID, "user"),
    Case(lambda _: AddExecutor(executor=_executor("new")), shapes.EXECUTOR, "colony owner"),
    Case(lambda _: GetExecutors(colonyname=COLONY), shapes.many(shapes.EXECUTOR), "pending"),
    Case(lambda _: GetExecutor(colonyname=COLONY, executorname="ben"), shapes.EXECUTOR),
    Case(lambda _: GetExecutorById(colonyname=COLONY, executorid=key("ben").id), shapes.EXECUTOR),
    Case(
        lambda _: ApproveExecutor(colonyname=COLONY, executorname="pat"),
        shapes.NOTHING,
        "colony owner",
    ),
    Case(
        lambda _: RejectExecutor(colonyname=COLONY, executorname="ada"),
        shapes.NOTHING,
        "colony owner",
    ),
    Case(
        lambda _: RemoveExecutor(colonyname=COLONY, executorname="ada"),
        shapes.NOTHING,
        "colony owner",
    ),
    Case(lambda _: ChangeExecutorId(colonyname=COLONY, executorid=NEW.id), shapes.EXECUTOR_ID),
    Case(lambda _: function_of("ada", "g"), shapes.FUNCTION),
    Case(lambda _: GetFunctions(colonyname=COLONY), shapes.many(shapes.FUNCTION)),
    Case(lambda world: RemoveFunction(functionid=world.function), shapes.NOTHING),
    Case(lambda _: submit_of(), shapes.PROCESS),
    Case(lambda _: AssignProcess(colonyname=COLONY, timeout=1), shapes.PROCESS),
    Case(lambda _: GetProcesses(colonyname=COLONY, count=9), shapes.many(shapes.PROCESS), "user"),
    Case(
        lambda _: GetProcessHistory(colonyname=COLONY, seconds=9, state=State.SUCCESS),
        shapes.many(shapes.PROCESS),
        "user",
    ),
    Case(lambda world: GetProcess(processid=world.failed), shapes.PROCESS, "user"),
    Case(lambda world: RemoveProcess(processid=world.waiting), shapes.NOTHING, "user"),
    Case(lambda _: RemoveAllProcesses(colonyname=COLONY, state=-1), shapes.NOTHING, "colony owner"),
    Case(
        lambda world: CloseSuccessful(processid=world.running, out=msgspec.Raw(b"[1]")),
        shapes.NOTHING,
    ),
    Case(lambda world: CloseFailed(processid=world.running, errors=["e"]), shapes.NOTHING),
    Case(lambda world: SetOutput(processid=world.running, out=msgspec.Raw(b"[1]")), shapes.NOTHING),
    Case(lambda world: CancelProcess(processid=world.running), shapes.NOTHING, "user"),
    Case(lambda world: ReleaseProcess(processid=world.running), shapes.NOTHING),
    Case(lambda world: Renew(processid=world.running, count=1), shapes.ATTEMPT),
    Case(
        lambda _: SubmitWorkflowSpec(
            spec=WorkflowSpec(
                colonyname=COLONY,
                functionspecs=[spec(nodename="a"), spec(nodename="b", dependencies=["a"])],
            )
        ),
        shapes.GRAPH,
        "user",
    ),
    Case(lambda world: GetProcessGraph(processgraphid=world.workflow), shapes.GRAPH, "user"),
    Case(lambda _: GetProcessGraphs(colonyname=COLONY, count=9), shapes.many(shapes.GRAPH), "user"),
    Case(lambda world: RemoveProcessGraph(processgraphid=world.idle), shapes.NOTHING, "user"),
    Case(lambda _: RemoveAllProcessGraphs(colonyname=COLONY), shapes.NOTHING, "colony owner"),
    Case(lambda world: CancelProcessGraph(processgraphid=world.workflow), shapes.NOTHING, "user"),
    Case(
        lambda world: AddChild(
            processgraphid=world.workflow, parentprocessid=world.parent, spec=spec(nodename="c")
        ),
        shapes.PROCESS,
    ),
    Case(lambda _: cron_of("new"), shapes.CRON),
    Case(lambda world: GetCron(cronid=world.cron), shapes.CRON, "user"),
    Case(lambda _: GetCrons(colonyname=COLONY, count=9), shapes.many(shapes.CRON), "user"),
    Case(lambda world: RunCron(cronid=world.cron), shapes.CRON),
    Case(lambda world: RemoveCron(cronid=world.cron), shapes.NOTHING, "user"),
    Case(lambda _: generator_of("new"), shapes.GENERATOR),
    Case(lambda world: GetGenerator(generatorid=world.generator), shapes.GENERATOR, "user"),
    Case(
        lambda _: ResolveGenerator(colonyname=COLONY, generatorname="g"), shapes.GENERATOR, "user"
    ),
    Case(
        lambda _: GetGenerators(colonyname=COLONY, count=9), shapes.many(shapes.GENERATOR), "user"
    ),
    Case(lambda world: PackGenerator(generatorid=world.generator, arg="1"), shapes.NOTHING),
    Case(lambda world: RemoveGenerator(generatorid=world.generator), shapes.NOTHING, "user"),
    Case(lambda world: attribute_of(world.running), shapes.ATTRIBUTE),
    Case(lambda world: GetAttribute(attributeid=world.attribute), shapes.ATTRIBUTE, "user"),
    Case(lambda world: SubscribeProcess(processid=world.running), shapes.PROCESS, "user"),
    Case(lambda _: SubscribeProcesses(colonyname=COLONY), shapes.PROCESS, "user"),
    Case(lambda world: AddLog(processid=world.running, message="m"), shapes.NOTHING),
    Case(
        lambda _: AddExecutorLog(colonyname=COLONY, executorname="ada", message="m"),
        shapes.NOTHING,
    ),
    Case(
        lambda world: GetLogs(colonyname=COLONY, processid=world.running, count=9),
        shapes.many(shapes.LOG),
        "user",
    ),
    Case(
        lambda _: SearchLogs(colonyname=COLONY, text="work", days=1, count=9),
        shapes.many(shapes.LOG),
        "user",
    ),
]


def _type_of(case: Case) -> str:
    made = case.make(_Anything())  # pyright: ignore[reportArgumentType]
    return made.msgtype()


class _Anything:
    def __getattr__(self, name: str) -> str:
        return name


BY_TYPE = {_type_of(case): case for case in CASES}

MEMBERS = {"user", "approved", "approved too"}
MAY = {
    Access.ANYONE: set(WHO),
    Access.SERVER_OWNER: {"server owner"},
    Access.COLONY_OWNER: {"colony owner"},
    Access.MEMBER: MEMBERS,
    Access.NEWCOMER: MEMBERS | {"pending"},
    Access.EXECUTOR: {"approved", "approved too"},
    Access.USER: {"user"},
    Access.OBJECT: MEMBERS,
    Access.CLAIM: {"whoever has the code"},
}


SEALED = {kind for kind, route in ROUTES.items() if route.access is Access.CLAIM} | {"renewmsg"}
"""What is never served plain; test_enrolment.py and test_attempts.py have it."""
AT_API = [kind for kind, route in ROUTES.items() if route.door == API and kind not in SEALED]
"""What `POST /api` serves plain; test_subscriptions.py has the rest."""


def test_every_route_has_a_case_and_every_case_a_route():
    assert sorted(_type_of(case) for case in CASES) == sorted(ROUTES)


def test_every_typed_message_is_served():
    assert set(messages.TYPED) == set(ROUTES)


def test_the_reference_page_is_fresh():
    assert make_rpc_reference.PAGE.read_text() == make_rpc_reference.page()


@pytest.mark.parametrize("kind", ROUTES)
def test_the_reference_page_has_every_route_and_its_members(kind: str):
    _, _, after = make_rpc_reference.page().partition(f"\n## {kind}\n")
    part = after.partition("\n## ")[0]
    for field in msgspec.structs.fields(ROUTES[kind].kind):
        assert f"| `{field.encode_name}` |" in part


def test_every_route_says_what_it_does():
    for route in ROUTES.values():
        assert route.summary.endswith(".")


def test_what_is_served_on_a_websocket_is_known_to_clients():
    assert set(ROUTES) - set(AT_API) - SEALED == ON_PUBSUB
    assert {ROUTES[kind].door for kind in ON_PUBSUB} == {PUBSUB}


@pytest.mark.parametrize("kind", sorted(ON_PUBSUB))
@virtual
async def test_what_is_served_elsewhere_says_where(kind: str) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        before = await made.dump()
        for identity in WHO.values():
            failure = (await made.refuse(BY_TYPE[kind].make(made), identity)).failure
            assert (failure.status, failure.code) == (400, "wrong_door")
            assert PUBSUB in failure.message
        assert await made.dump() == before


@pytest.mark.parametrize("kind", AT_API)
@virtual
async def test_who_may_is_answered_in_the_right_shape(kind: str) -> None:
    case = BY_TYPE[kind]
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.weave()
        code = await enrolling.open_claim(made, "another")
        await enrolling.enrol(made.dispatch, code, key("device"))
        answer = await made.answer(case.make(made), WHO[case.caller])
        assert answer.status == 200, answer.body
        sent = scan(answer.body)
        expected = "pausestatusreplymsg" if kind == "getpausestatusmsg" else kind
        assert (sent["payloadtype"], sent["error"]) == (expected, False)
        reply = parse_reply(answer.body)
        assert isinstance(reply, bytes)
        assert case.shape(scan(reply)), reply
        if isinstance(scan(reply), list):
            assert scan(reply), "an empty list proves no shape"


@pytest.mark.parametrize(
    "kind", [kind for kind in AT_API if ROUTES[kind].access is not Access.ANYONE]
)
@virtual
async def test_who_may_not_is_refused_and_changes_nothing(kind: str) -> None:
    route, case = ROUTES[kind], BY_TYPE[kind]
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.weave()
        before = await made.dump()
        message = case.make(made)
        refused = [WHO[who] for who in WHO if who not in MAY[route.access]]
        failures = [(await made.refuse(message, identity)).failure for identity in refused]
        assert await made.dump() == before
    if route.access is Access.OBJECT:
        assert {(failure.status, failure.code) for failure in failures} == {(404, "not_found")}
    else:
        assert {(failure.status, failure.code) for failure in failures} == {(403, "access_denied")}
        assert all("Access denied" in failure.message for failure in failures)


OF_NO_COLONY = {
    kind for kind, route in ROUTES.items() if route.access in (Access.ANYONE, Access.SERVER_OWNER)
}


@virtual
async def test_a_colony_that_refuses_plain_requests_refuses_each() -> None:
    """Of the whole table, also what names no colony and is found by the id of an object."""
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.weave()
        kinds = [kind for kind in ROUTES if kind in {*AT_API, *SEALED} - OF_NO_COLONY]
        asked = [(BY_TYPE[kind].make(made), BY_TYPE[kind].caller) for kind in kinds]
        policy = SetPolicy(colonyname=COLONY, plainrequests=PlainRequests.REFUSE)
        await made.call(policy, WHO["colony owner"])
        before = await made.dump()
        failures = [
            (await made.refuse(message, WHO.get(who, NEW))).failure for message, who in asked
        ]
        assert {failure.code for failure in failures} == {"plain_refused"}
        assert await made.dump() == before


@pytest.mark.parametrize(
    "kind", [kind for kind, route in ROUTES.items() if route.access is Access.ANYONE]
)
@virtual
async def test_anyone_needs_no_signature(kind: str) -> None:
    async with world() as made:
        answer = await made.dispatch.answer(pack_request(BY_TYPE[kind].make(made), None))
        assert answer.status == 200


@pytest.mark.parametrize(
    "kind",
    [kind for kind in AT_API if ROUTES[kind].access in (Access.MEMBER, Access.NEWCOMER)],
)
@virtual
async def test_every_kind_of_member_may(kind: str) -> None:
    for who in MAY[ROUTES[kind].access]:
        async with world() as made:
            await made.populate()
            await made.employ()
            await made.weave()
            await made.call(BY_TYPE[kind].make(made), WHO[who])


@pytest.mark.parametrize(
    "kind",
    [
        "closesuccessfulmsg",
        "closefailedmsg",
        "setoutputmsg",
        "addattributemsg",
        "addlogmsg",
        "addexecutorlogmsg",
        "addfunctionmsg",
        "removefunctionmsg",
        "addchildmsg",
    ],
)
@virtual
async def test_an_executor_may_not_speak_for_another(kind: str) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.weave()
        before = await made.dump()
        refused = await made.refuse(BY_TYPE[kind].make(made), key("ben"))
        assert refused.failure.status == 403
        assert await made.dump() == before


@pytest.mark.parametrize("kind", sorted(messages.UNSUPPORTED))
@virtual
async def test_what_is_not_served_yet_says_so(kind: str) -> None:
    async with world() as made:
        await made.populate()
        before = await made.dump()
        body = _bare(kind, key("ada"))
        failure = parse_reply((await made.dispatch.answer(body)).body)
        assert isinstance(failure, Failure)
        assert (failure.status, failure.code) == (501, "not_supported")
        assert await made.dump() == before


def _bare(kind: str, identity: Identity) -> bytes:
    message = msgspec.defstruct("Bare", [], bases=(Message,), tag=kind, kw_only=True)
    return pack_request(message(), identity)
