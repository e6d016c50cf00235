"""The table of remote procedures against the protocol: COLONIES-RPC section 2.0.1, row by row."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from colonist_core.access import Access
from colonist_protocol import codec, errors, messages
from colonist_protocol.audit import GetEvidence
from colonist_protocol.cron import AddCron, Cron
from colonist_protocol.envelope import pack_failure, pack_reply, pack_request
from colonist_protocol.errors import ColonistError
from colonist_protocol.executor import GetExecutorById
from colonist_protocol.generator import AddGenerator, Generator
from colonist_protocol.log import GetLogs, SearchLogs
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, GetProcess, ReleaseProcess
from colonist_protocol.workflow import WorkflowSpec
from colonist_server.rpc import contract
from colonist_server.rpc.table import API, PUBSUB, ROUTES
from scripts import make_error_reference, make_rpc_reference
from tests.server import conformance
from tests.server.people import World, attribute_of, function_of, near, world
from tests.server.test_routes import BY_TYPE, MAY
from tests.support.clock import virtual
from tests.support.rooms import COLONY, key, spec
from tests.vectors.cases import load

# As section 2.0.1 lists them, written down from the document and not from the server's own lists
# (`colonist_protocol.messages`): that the two agree is what is tested. Nowhere else is such a list.
CORE = [
    "getstatisticsmsg",
    "versionmsg",
    "changeserveridmsg",
    "addcolonymsg",
    "removecolonymsg",
    "getcoloniesmsg",
    "getcolonymsg",
    "getcolonystatsmsg",
    "changecolonyidmsg",
    "pauseassignmentsmsg",
    "resumeassignmentsmsg",
    "getpausestatusmsg",
    "addusermsg",
    "getusersmsg",
    "removeusermsg",
    "getusermsg",
    "getuserbyidmsg",
    "changeuseridmsg",
    "addexecutormsg",
    "getexecutorsmsg",
    "getexecutormsg",
    "approveexecutormsg",
    "removeexecutormsg",
    "rejectexecutormsg",
    "getexecutorbyidmsg",
    "changeexecutoridmsg",
    "addfunctionmsg",
    "getfunctionsmsg",
    "removefunctionmsg",
    "submitfuncspecmsg",
    "assignprocessmsg",
    "getprocessesmsg",
    "getprocessmsg",
    "removeprocessmsg",
    "removeallprocessesmsg",
    "closesuccessfulmsg",
    "closefailedmsg",
    "setoutputmsg",
    "getprocesshistmsg",
    "cancelprocessmsg",
    "addattributemsg",
    "getattributemsg",
    "addlogmsg",
    "getlogsmsg",
    "addexecutorlogmsg",
    "searchlogsmsg",
    "submitworkflowspecmsg",
    "getprocessgraphmsg",
    "getprocessgraphsmsg",
    "removeprocessgraphmsg",
    "removeallprocessgraphsmsg",
    "addchildmsg",
    "cancelprocessgraphmsg",
    "addgeneratormsg",
    "getgeneratormsg",
    "getgeneratorsmsg",
    "removegeneratormsg",
    "packgeneratormsg",
    "resolvegeneratormsg",
    "addcronmsg",
    "getcronmsg",
    "getcronsmsg",
    "runcronmsg",
    "removecronmsg",
    "subscribeprocessmsg",
    "subscribeprocessesmsg",
]
EXT = [
    "getserverinfomsg",
    "getclustermsg",
    "reportallocationmsg",
    "updateexecutormsg",
    "addfilemsg",
    "removefilemsg",
    "getfilemsg",
    "getfilesmsg",
    "getfilelabelsmsg",
    "createsnapshotmsg",
    "getsnapshotmsg",
    "getsnapshotsmsg",
    "removesnapshotmsg",
    "removeallsnapshotmsg",
    "addlocationmsg",
    "getlocationmsg",
    "getlocationsmsg",
    "removelocationmsg",
    "channelappendmsg",
    "channelreadmsg",
    "subscribechannelmsg",
    "addblueprintdefinitionmsg",
    "getblueprintdefinitionmsg",
    "getblueprintdefinitionsmsg",
    "removeblueprintdefinitionmsg",
    "addblueprintmsg",
    "getblueprintmsg",
    "getblueprintsmsg",
    "updateblueprintmsg",
    "removeblueprintmsg",
    "updateblueprintstatusmsg",
    "reconcileblueprintmsg",
    "getblueprinthistorymsg",
]
ON_PUBSUB = {"subscribeprocessmsg", "subscribeprocessesmsg"}


@pytest.mark.parametrize("kind", CORE)
def test_what_is_core_is_served(kind: str) -> None:
    assert kind in ROUTES
    assert messages.level(kind) == "CORE"


def test_levels_are_those_of_the_document() -> None:
    assert conformance.core() == set(CORE)
    known = {*messages.TYPED, *messages.UNSUPPORTED}
    assert {kind for kind in known if messages.level(kind) == "EXT"} == set(EXT)
    assert {kind for kind in known if messages.level(kind) == "ours"} == messages.OURS
    assert len(CORE) == len(set(CORE))


def test_what_is_known_is_served_or_said_not_to_be() -> None:
    assert set(ROUTES) == set(messages.TYPED)
    assert not messages.UNSUPPORTED & set(ROUTES)
    assert set(contract.CONTRACTS) == {route.kind for route in ROUTES.values()}


@pytest.mark.parametrize("kind", ROUTES)
def test_a_row_is_whole(kind: str) -> None:
    """A handler, vectors, a caller that may and one that may not, a reply, the errors."""
    route = ROUTES[kind]
    assert callable(route.handler)
    assert route.handler.__doc__
    assert route.door == (PUBSUB if kind in ON_PUBSUB else API)
    assert kind in {case["msgtype"] for case in load("messages")["messages"]}
    case = BY_TYPE[kind]
    assert route.access is Access.OBJECT or case.caller in MAY[route.access]
    assert route.access is Access.ANYONE or "stranger" not in MAY[route.access]
    listed = conformance.codes_of(kind)
    assert (errors.AccessError.code in listed) == (
        route.access not in (Access.ANYONE, Access.OBJECT) or kind == "removefunctionmsg"
    )
    assert len(set(route.errors)) == len(route.errors)


@pytest.mark.parametrize("kind", ROUTES)
def test_the_page_tells_reply_level_and_errors(kind: str) -> None:
    _, _, after = make_rpc_reference.page().partition(f"\n## {kind}\n")
    part = after.partition("\n## ")[0]
    assert f"Level: {messages.level(kind)}." in part
    assert "Reply: " in part
    for error in ROUTES[kind].errors:
        assert f"`{error.code}`" in part


def test_headings_of_the_page_are_used_once_and_links_lead_to_them() -> None:
    page = make_rpc_reference.page()
    headings = [line.lstrip("# ") for line in page.splitlines() if line.startswith("#")]
    assert len(headings) == len(set(headings))
    anchors = {heading.lower().replace(".", "").replace(" ", "-") for heading in headings}
    linked = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert linked <= anchors


def test_every_listed_error_is_in_the_list_of_errors() -> None:
    page = make_error_reference.page()
    listed: set[type[ColonistError]] = {
        *contract.UNREADABLE,
        *contract.UNSIGNED,
        *contract.ANYWHERE,
        *(error for route in ROUTES.values() for error in route.errors),
    }
    assert [error for error in listed if f"| `{error.code}` |" not in page] == []


def test_an_answer_that_is_not_listed_is_noticed() -> None:
    """The guard that all tests of the server run under works."""
    body = pack_request(GetProcess(processid="ab" * 32), key("ada"))
    watchman = conformance.Watchman()
    watchman.look(body, pack_failure(errors.NotFoundError("no")))
    assert watchman.unlisted == []
    watchman.look(body, pack_failure(errors.ExistsError("no")))
    watchman.look(body, pack_reply("getprocessmsg", b"{}"))
    watchman.look(body, pack_reply("getprocessmsg", b"[]"))
    assert len(watchman.unlisted) == 3


@pytest.mark.parametrize(
    ("reply", "kind", "is_one"),
    [
        (b"{}", None, True),
        (b"[]", None, False),
        (b'{"a":1}', None, False),
        (b"[]", list[int], True),
        (b"null", list[int], False),
        (b'{"x":1,"y":2}', msgspec.defstruct("P", [("x", int), ("y", int)]), True),
        (b'{"x":1,"y":2,"z":3}', msgspec.defstruct("P", [("x", int), ("y", int)]), False),
        (b'{"x":1}', msgspec.defstruct("P", [("x", int), ("y", int)]), False),
    ],
)
def test_what_is_of_a_type(reply: bytes, kind: object, is_one: bool) -> None:
    assert conformance.is_of_type(reply, kind) is is_one


RARE: list[tuple[Callable[[World], Message], type[ColonistError]]] = [
    (
        lambda _: GetExecutorById(colonyname=COLONY, executorid="ab" * 32),
        errors.NotFoundError,
    ),
    (lambda _: function_of("ada", "a\u0007"), errors.NameFormError),
    (lambda _: generator_of(mem="1.5Gi"), errors.AmountError),
    (lambda _: cron_of(mem="1.5Gi"), errors.AmountError),
    (
        lambda _: AssignProcess(colonyname=COLONY, timeout=-1, availablecpu="much"),
        errors.AmountError,
    ),
    (lambda world: ReleaseProcess(processid=near(world.running)), errors.NotFoundError),
    (lambda world: ReleaseProcess(processid=world.succeeded), errors.ConflictError),
    (lambda world: GetEvidence(processid=near(world.running)), errors.NotFoundError),
    (lambda world: attribute_of(near(world.running)), errors.NotFoundError),
    (lambda _: GetLogs(colonyname=COLONY, executorname="ada", count=501), errors.InvalidValueError),
    (lambda _: SearchLogs(colonyname=COLONY, days=31, count=1), errors.InvalidValueError),
]


def workflow_text(mem: str) -> str:
    bad = spec(nodename="a", mem=mem)
    return codec.encode(WorkflowSpec(colonyname=COLONY, functionspecs=[bad])).decode()


def generator_of(mem: str) -> Message:
    wanted = Generator(colonyname=COLONY, name="g", trigger=1, workflowspec=workflow_text(mem))
    return AddGenerator(generator=wanted)


def cron_of(mem: str) -> Message:
    wanted = Cron(colonyname=COLONY, name="c", interval=60, workflowspec=workflow_text(mem))
    return AddCron(cron=wanted)


@pytest.mark.parametrize(("make", "error"), RARE)
@virtual
async def test_errors_that_no_other_test_meets(
    make: Callable[[World], Message], error: type[ColonistError]
) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        message = make(made)
        assert error in ROUTES[message.msgtype()].errors
        refused = await made.refuse(message, key("ada"))
        assert (refused.failure.status, refused.failure.code) == (error.status, error.code)
