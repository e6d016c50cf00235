"""Bad input about workflows, one by one: refused with its own code, nothing of it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from colonist_protocol import errors
from colonist_protocol.identity import Identity
from colonist_protocol.workflow import MAX_MEMBERS
from tests.server.house import Got, House, sign
from tests.server.people import OTHER, WHO, World, near
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, key
from tests.vectors.cases import load

ADA, BEN, UMA, EVE = key("ada"), key("ben"), key("uma"), key("eve")
NOWHERE = "ab" * 32

Members = dict[str, Any]


def node(name: Any = "a", *parents: Any, **changes: Any) -> Members:
    conditions = {"executortype": TYPE, "dependencies": list(parents)}
    return {
        "nodename": name,
        "funcname": "f",
        "conditions": {**conditions, **changes.pop("conditions", {})},
        **changes,
    }


def submit(*nodes: Any, colony: Any = COLONY) -> Members:
    return {
        "msgtype": "submitworkflowspecmsg",
        "spec": {"colonyname": colony, "functionspecs": list(nodes)},
    }


def about(kind: str, id: Any) -> Members:
    return {"msgtype": kind, "processgraphid": id}


def child(world: World, **changes: Any) -> Members:
    return {
        "msgtype": "addchildmsg",
        "processgraphid": world.workflow,
        "parentprocessid": world.parent,
        "childprocessid": "",
        "insert": False,
        "spec": node("c"),
        **changes,
    }


def body(message: Members, identity: Identity = ADA) -> bytes:
    return sign(json.dumps(message).encode(), identity)


def colony(kind: str, name: Any = COLONY, **more: Any) -> Members:
    return {"msgtype": kind, "colonyname": name, **more}


class Bad(NamedTuple):
    """A message and what it meets."""

    name: str
    make: Callable[[World], Members]
    error: type[errors.ColonistError]
    caller: Identity = ADA


def always(message: Members) -> Callable[[World], Members]:
    return lambda _: message


SUBMITS = [
    Bad("no spec", always({"msgtype": "submitworkflowspecmsg"}), errors.MissingMemberError),
    Bad("null spec", always({**submit(), "spec": None}), errors.MissingMemberError),
    Bad("spec a list", always({**submit(), "spec": []}), errors.WrongTypeError),
    Bad("spec a text", always({**submit(), "spec": "{}"}), errors.WrongTypeError),
    Bad(
        "nodes an object",
        always({**submit(), "spec": {"colonyname": COLONY, "functionspecs": {}}}),
        errors.WrongTypeError,
    ),
    Bad("no nodes", always(submit()), errors.InvalidValueError),
    Bad("a node null", always(submit(node(), None)), errors.WrongTypeError),
    Bad("a node a text", always(submit("a")), errors.WrongTypeError),
    Bad("name a number", always(submit(node(1))), errors.WrongTypeError),
    Bad("dependency a number", always(submit(node("b", 1))), errors.WrongTypeError),
    Bad(
        "dependencies a text",
        always(submit(node(), node("b", conditions={"dependencies": "a"}))),
        errors.WrongTypeError,
    ),
    Bad(
        "priority a text",
        always(submit(node(), node("b", priority="1"))),
        errors.WrongTypeError,
    ),
    Bad(
        "priority beyond 64 bits",
        always(submit(node(), node("b", priority=2**63))),
        errors.OutOfBoundsError,
    ),
    Bad(
        "priority out of range",
        always(submit(node(), node("b", priority=-50_001))),
        errors.InvalidValueError,
    ),
    Bad(
        "amount in the last of many",
        always(
            submit(
                *(node(f"n{number}") for number in range(300)),
                node("last", conditions={"mem": "1.5Gi"}),
            )
        ),
        errors.AmountError,
    ),
    Bad(
        "too many nodes",
        always(submit(*({"nodename": f"{number}"} for number in range(MAX_MEMBERS + 1)))),
        errors.InvalidValueError,
    ),
    Bad("long name", always(submit(node("n" * 100_000))), errors.NameFormError),
    Bad(
        "long name twice",
        always(submit(node("n" * 100_000), node("n" * 100_000))),
        errors.InvalidValueError,
    ),
    Bad(
        "long name waits for nothing",
        always(submit(node("n" * 100_000, "m" * 100_000))),
        errors.InvalidValueError,
    ),
    Bad(
        "long name waits for itself",
        always(submit(node("n" * 100_000, "n" * 100_000))),
        errors.InvalidValueError,
    ),
    Bad(
        "null character in a name",
        always(submit(node("a\u0000"))),
        errors.NameFormError,
    ),
    Bad("no colony", always(submit(node(), colony="")), errors.AccessError),
    Bad("unknown colony", always(submit(node(), colony="nowhere")), errors.AccessError),
    Bad("another colony", always(submit(node(), colony=OTHER)), errors.AccessError),
    Bad(
        "another colony in the nodes is not the workflow's",
        always(submit(node(conditions={"colonyname": COLONY}), colony=OTHER)),
        errors.AccessError,
    ),
    Bad("colony a list", always(submit(node(), colony=[])), errors.WrongTypeError),
    Bad("from the colony owner", always(submit(node())), errors.AccessError, COLONY_OWNER),
    Bad("from the server owner", always(submit(node())), errors.AccessError, OWNER),
    Bad("from a stranger", always(submit(node())), errors.AccessError, WHO["stranger"]),
]

LISTS = [
    *(
        Bad(f"{name} workflows", always(colony("getprocessgraphsmsg", **more)), error)
        for name, more, error in (
            ("101", {"count": 101}, errors.InvalidValueError),
            ("-1", {"count": -1}, errors.InvalidValueError),
            ("1.0", {"count": 1.0}, errors.WrongTypeError),
            ("2^63", {"count": 2**63}, errors.OutOfBoundsError),
            ("in state 5", {"count": 1, "state": 5}, errors.InvalidValueError),
            ("in state -2", {"count": 1, "state": -2}, errors.InvalidValueError),
            ("in a state by name", {"count": 1, "state": "waiting"}, errors.WrongTypeError),
        )
    ),
    Bad("nowhere", always(colony("getprocessgraphsmsg", "x", count=1)), errors.AccessError),
    Bad("elsewhere", always(colony("getprocessgraphsmsg", OTHER, count=1)), errors.AccessError),
    *(
        Bad(
            f"remove all in {state!r}",
            always(colony("removeallprocessgraphsmsg", state=state)),
            error,
            COLONY_OWNER,
        )
        for state, error in (
            (1, errors.InvalidValueError),
            (5, errors.InvalidValueError),
            (-2, errors.InvalidValueError),
            ("0", errors.WrongTypeError),
            (2**63, errors.OutOfBoundsError),
        )
    ),
    Bad(
        "remove all elsewhere",
        always(colony("removeallprocessgraphsmsg", OTHER)),
        errors.AccessError,
        COLONY_OWNER,
    ),
    Bad("remove all as a member", always(colony("removeallprocessgraphsmsg")), errors.AccessError),
]

ONES = [
    *(
        Bad(
            f"{kind} of {name}", lambda world, kind=kind, make=make: about(kind, make(world)), error
        )
        for kind in ("getprocessgraphmsg", "removeprocessgraphmsg", "cancelprocessgraphmsg")
        for name, make, error in (
            ("a process of its own", lambda world: world.running, errors.NotFoundError),
            ("a member", lambda world: world.parent, errors.NotFoundError),
            ("one that never was", lambda world: near(world.workflow), errors.NotFoundError),
            ("a number", lambda _: 1, errors.WrongTypeError),
            ("nothing", lambda _: None, errors.AccessError),
        )
    ),
    Bad(
        "remove what runs",
        lambda world: about("removeprocessgraphmsg", world.workflow),
        errors.ConflictError,
    ),
    *(
        Bad(
            f"{kind} of another colony",
            lambda world, kind=kind: about(kind, world.idle),
            error,
            EVE,
        )
        for kind, error in (
            ("getprocessgraphmsg", errors.AccessError),
            ("removeprocessgraphmsg", errors.AccessError),
            ("cancelprocessgraphmsg", errors.AccessError),
        )
    ),
]

CHILDREN = [
    Bad(
        "no child",
        lambda world: {k: v for k, v in child(world).items() if k != "spec"},
        errors.MissingMemberError,
    ),
    Bad("null child", lambda world: child(world, spec=None), errors.MissingMemberError),
    Bad("insert a text", lambda world: child(world, insert="true"), errors.WrongTypeError),
    Bad("insert a number", lambda world: child(world, insert=1), errors.WrongTypeError),
    Bad(
        "amount of a child",
        lambda world: child(world, spec=node(conditions={"cpu": "1.5"})),
        errors.AmountError,
    ),
    Bad(
        "priority of a child",
        lambda world: child(world, spec=node(priority=50_001)),
        errors.InvalidValueError,
    ),
    Bad(
        "name of a child",
        lambda world: child(world, spec=node("n" * 100_000)),
        errors.NameFormError,
    ),
    Bad(
        "below what waits",
        lambda world: child(world, parentprocessid=nth(world, 2)),
        errors.ConflictError,
    ),
    Bad(
        "below nothing",
        lambda world: child(world, parentprocessid=""),
        errors.NotFoundError,
    ),
    Bad(
        "below what never was",
        lambda world: child(world, parentprocessid=near(world.parent)),
        errors.NotFoundError,
    ),
    Bad(
        "below a member that will never be",
        lambda world: child(world, parentprocessid=nth(world, 99)),
        errors.NotFoundError,
    ),
    Bad(
        "below a process of its own",
        lambda world: child(world, parentprocessid=world.running),
        errors.NotFoundError,
    ),
    Bad(
        "below the workflow",
        lambda world: child(world, parentprocessid=world.workflow),
        errors.NotFoundError,
    ),
    Bad(
        "below a member of another workflow",
        lambda world: child(world, processgraphid=world.idle),
        errors.NotFoundError,
    ),
    Bad(
        "above what runs",
        lambda world: child(world, childprocessid=world.parent),
        errors.ConflictError,
    ),
    Bad(
        "above a process of its own",
        lambda world: child(world, childprocessid=world.waiting),
        errors.NotFoundError,
    ),
    Bad("above no id", lambda world: child(world, childprocessid="x"), errors.NotFoundError),
    Bad(
        "in no workflow",
        lambda world: child(world, processgraphid=near(world.workflow)),
        errors.NotFoundError,
    ),
    Bad("in no id", lambda world: child(world, processgraphid="x"), errors.AccessError),
    Bad("for somebody else", child, errors.AccessError, BEN),
    Bad("as a user", child, errors.AccessError, UMA),
    Bad("as a foreign executor", child, errors.AccessError, EVE),
]


def nth(world: World, number: int) -> str:
    """The id of a member by its number."""
    return f"{world.workflow[:-8]}{number:08x}"


@pytest.mark.parametrize("bad", [*SUBMITS, *LISTS, *ONES, *CHILDREN], ids=lambda bad: bad.name)
async def test_bad_input_has_its_own_code_and_stores_nothing(home: House, bad: Bad) -> None:
    await home.weave()
    await refuse(home, bad.make(home), bad.error, bad.caller)
    assert (await home.post(body(submit(node(), node("b", "a"))))).status == 200


async def refuse(
    home: House,
    message: Members,
    error: type[errors.ColonistError],
    identity: Identity = ADA,
) -> str:
    """The text of the refusal that a message meets; the store is as it was."""
    before = await home.dump()
    got = await home.post(body(message, identity))
    assert (got.status, got.code) == (error.status, error.code), got.payload
    assert await home.dump() == before
    assert len(got.body) < 2000
    return got.payload["message"]


def test_names_of_cases_are_used_once() -> None:
    names = [bad.name for bad in (*SUBMITS, *LISTS, *ONES, *CHILDREN)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", load("messages")["bad_workflows"], ids=lambda case: case["why"])
async def test_graphs_of_the_vectors_are_refused(home: House, case: dict[str, str]) -> None:
    spec = {**json.loads(case["text"]), "colonyname": COLONY}
    kind = next(each for each in CLASSES if each.code == case["code"])
    await refuse(home, {"msgtype": "submitworkflowspecmsg", "spec": spec}, kind)


CLASSES = [
    errors.InvalidValueError,
    errors.AmountError,
    errors.NameFormError,
    errors.WrongTypeError,
]


async def test_what_is_wrong_with_a_graph_is_named(home: House) -> None:
    said = [
        await refuse(home, submit(*nodes), errors.InvalidValueError)
        for nodes in (
            [node("a", "b"), node("b", "c"), node("c", "a")],
            [node("a", "a")],
            [node("a"), node("b", "nowhere")],
            [node("twice"), node("twice")],
            [node("")],
            [],
        )
    ]
    parts = [
        "cycle: a waits for b waits for c waits for a",
        "cycle: a waits for a",
        "'b' depends on 'nowhere'",
        "Duplicate nodename: twice",
        "Nodename is missing",
        "no functionspecs",
    ]
    assert [part in text for part, text in zip(parts, said, strict=True)] == [True] * 6, said


async def test_what_has_ended_is_not_ended_again_and_does_not_grow(home: House) -> None:
    await home.weave()
    cancel = about("cancelprocessgraphmsg", home.workflow)
    assert (await home.post(body(cancel))).status == 200
    # The second may meet it while the members are being ended: that is a conflict too.
    assert (await home.post(body(cancel))).code == "conflict"
    assert (await home.post(body(child(home)))).code == "conflict"
    remove = about("removeprocessgraphmsg", home.workflow)
    while (got := await home.post(body(remove))).code == "conflict":
        pass  # until the last member is ended; each try is an answer of the server
    assert got.status == 200
    for message in (cancel, remove, about("getprocessgraphmsg", home.workflow), child(home)):
        await refuse(home, message, errors.NotFoundError)


@pytest.mark.parametrize("id", ["", "x", "AB" * 32, NOWHERE, "ab" * 31, "é" * 64, "ab" * 5000])
@pytest.mark.parametrize(
    "kind",
    ["getprocessgraphmsg", "removeprocessgraphmsg", "cancelprocessgraphmsg", "addchildmsg"],
)
async def test_an_id_that_is_none_is_refused_like_a_foreign_one(
    home: House, kind: str, id: str
) -> None:
    await home.weave()
    full = {**child(home), "msgtype": kind}
    foreign = (await home.post(body(full, EVE))).payload
    mine = (await home.post(body({**full, "processgraphid": id}))).payload
    assert mine == foreign
    assert mine["status"] == 403


async def test_what_another_colony_holds_is_never_in_an_answer(home: House) -> None:
    await home.weave()
    for message in (
        colony("getprocessgraphsmsg", OTHER, count=100),
        colony("getprocessesmsg", OTHER, count=100, state=-1, processgraphid=home.workflow),
    ):
        got: Got = await home.post(body(message, EVE))
        assert home.workflow not in json.dumps(got.payload)
        assert got.payload == [] or got.code == "not_found"


# -- weaknesses of section 5.2


async def test_P2_a_child_below_a_parent_that_never_was_is_refused(home: House) -> None:
    await home.weave()
    for parent in (near(home.parent), nth(home, 99), "", "x", NOWHERE):
        await refuse(home, child(home, parentprocessid=parent), errors.NotFoundError)
    assert (await home.post(body(child(home)))).status == 200


async def test_P5_of_a_workflow_that_is_refused_nothing_is_left(home: House) -> None:
    refused = (
        (submit(node("a"), node("b", "nowhere")), errors.InvalidValueError),
        (submit(node("a"), node("b", conditions={"mem": "1.5Gi"})), errors.AmountError),
    )
    for message, error in refused:
        await refuse(home, message, error)
    assert (await home.post(body(colony("getprocessgraphsmsg", count=100)))).payload == []


async def test_P6_empty_and_cyclic_workflows_are_refused(home: House) -> None:
    for nodes in ((), (node("a", "a"),), (node("a", "b"), node("b", "a"))):
        await refuse(home, submit(*nodes), errors.InvalidValueError)
    assert (await home.post(body(colony("getprocessgraphsmsg", count=100)))).payload == []
