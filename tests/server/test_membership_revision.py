"""`members` in sealed replies: another number after each change of who may do what, at every node.

A bridge fetches the list of members anew when it sees another number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from colonist_protocol.colony import ChangeColonyId, GetColony
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    ChangeExecutorId,
    Executor,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.user import AddUser, ChangeUserId, RemoveUser, User
from tests.support import enrolling, sealing
from tests.support.clock import virtual
from tests.support.cluster import cluster
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, TYPE, Bench, bench, key

ADA, BEN, UMA = key("ada"), key("ben"), key("uma")


def executor(name: str, id: str) -> AddExecutor:
    wanted = Executor(executorid=id, executortype=TYPE, executorname=name, colonyname=COLONY)
    return AddExecutor(executor=wanted)


def of_colony(kind: type, **members: str) -> Message:
    return kind(colonyname=COLONY, **members)


STEPS: list[tuple[Callable[[], Message], Identity]] = [
    (lambda: executor("eva", key("eva").id), COLONY_OWNER),
    (lambda: of_colony(ApproveExecutor, executorname="eva"), COLONY_OWNER),
    (lambda: of_colony(RejectExecutor, executorname="eva"), COLONY_OWNER),
    (lambda: of_colony(ChangeExecutorId, executorid=key("ben 2").id), BEN),
    (lambda: of_colony(RemoveExecutor, executorname="ben"), COLONY_OWNER),
    (
        lambda: AddUser(user=User(colonyname=COLONY, userid=UMA.id, name="uma")),
        COLONY_OWNER,
    ),
    (lambda: of_colony(ChangeUserId, userid=key("uma 2").id), UMA),
    (lambda: of_colony(RemoveUser, name="uma"), COLONY_OWNER),
    (lambda: of_colony(ChangeColonyId, colonyid=key("owner 2").id), COLONY_OWNER),
]


async def told(made: Bench) -> int:
    """What a sealed reply tells at that node."""
    sent = sealing.of_now(made.dispatch, GetColony(colonyname=COLONY), ADA)
    return (await sealing.present(made.dispatch, sent))[1].members


@virtual
async def test_every_change_gives_another_one_that_is_the_same_at_all_nodes() -> None:
    async with cluster("a", "b") as made:
        a, b = made["a"].bench, made["b"].bench
        await a.found("ada", "ben")
        seen = [await told(a)]
        for number, (make, who) in enumerate(STEPS):
            await (a, b)[number % 2].call(make(), who)
            seen.append(await told(b))
            assert await told(a) == seen[-1], make()
        assert seen == sorted(set(seen))


@virtual
async def test_it_outlives_a_restart_also_after_a_removal() -> None:
    store = MemoryStore()
    async with bench(store) as made:
        await made.found("ada", "ben")
        for make, who in STEPS[:-1]:
            await made.call(make(), who)
        before = await told(made)
    async with bench(store) as made:
        assert await told(made) == before


@virtual
async def test_enrolment_and_the_end_of_silence_change_it_and_work_does_not() -> None:
    async with bench(MemoryStore(), stale_s=60.0, presence_every_s=5.0) as made:
        await made.found("ada", "ben")
        first = await told(made)
        await enrolling.enrol(made.dispatch, await enrolling.open_claim(made), key("device"))
        second = await told(made)
        await made.submit("ada")
        await made.close("ada", (await made.assign("ada")).processid)
        assert (second != first, await told(made)) == (True, second)
        await made.call(GetColony(colonyname=COLONY), BEN)
        for _ in range(20):
            await asyncio.sleep(10)
            await made.call(GetColony(colonyname=COLONY), ADA)
        assert await told(made) != second


@pytest.mark.parametrize("node", ["a", "b"])
@virtual
async def test_who_is_no_member_is_told_of_the_change_that_made_it_none(node: str) -> None:
    async with cluster("a", "b") as made:
        a = made["a"].bench
        await a.found("ada", "ben")
        await a.call(of_colony(RemoveExecutor, executorname="ben"), COLONY_OWNER)
        sent = sealing.of_now(made[node].bench.dispatch, GetColony(colonyname=COLONY), BEN)
        reply, seal = await sealing.present(made[node].bench.dispatch, sent)
        assert enrolling.failed(reply, "access_denied")
        assert (seal.to, seal.members) == (BEN.id, await told(made[node].bench))
