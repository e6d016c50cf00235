"""Any node answers any request as if there were one: right after a write at another node.

The second node's watch is held back until it is asked; what it answers must be as fresh as if it
had made all the writes itself. In virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_core.process import What
from colonist_protocol.attribute import GetAttribute
from colonist_protocol.colony import PauseAssignments
from colonist_protocol.errors import AccessError
from colonist_protocol.executor import GetExecutor
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    GetProcess,
    Process,
    RemoveAllProcesses,
    SetOutput,
    State,
)
from colonist_protocol.server import GetCluster
from colonist_server.repo.freshness import DEADLINE_S, Freshness
from colonist_server.rpc.contract import CONTRACTS
from colonist_server.rpc.dispatch import Answer
from colonist_server.rpc.table import ROUTES
from tests.server.people import STRANGER, WHO, World, attribute_of, out_of, parked, world
from tests.server.test_routes import AT_API, BY_TYPE
from tests.support.clock import run_virtual, virtual
from tests.support.rooms import COLONY, COLONY_OWNER, Refused, key
from tests.support.shared_store import Connection, SharedStore

HELD_S = 0.05
LAG_S = 0.003
READS = [kind for kind in AT_API if CONTRACTS[ROUTES[kind].kind].is_read]
IN_VIEW_OF_NODES = {GetCluster.msgtype()}


class Two(NamedTuple):
    """Two nodes on one store: what they know, and their ways to it."""

    a: World
    b: World
    way_a: Connection
    way_b: Connection

    async def late(self, message: Message, who: Identity) -> Any:
        """Ask `b`, whose watch goes on only a while after it was asked."""
        asyncio.get_running_loop().call_later(HELD_S, self.way_b.flow)
        return await self.b.call(message, who)


@asynccontextmanager
async def two_nodes(**changes: float) -> AsyncGenerator[Two]:
    shared = SharedStore()
    ways = [Connection(shared, **{"answer_s": 0.002, "lag_s": LAG_S, **changes}) for _ in range(2)]
    async with world(ways[0], node="a") as a, world(ways[1], node="b") as b:
        await asyncio.sleep(0.1)
        yield Two(a, b, *ways)
        for way in ways:
            way.flow()


async def full(two: Two) -> None:
    """Everything there is, made at `a`; `b` has heard of none of it."""
    two.way_b.hold()
    await two.a.populate()
    await two.a.employ()
    await two.a.weave()


def timeless(reply: Any) -> Any:
    """Without when members were heard last: each node remembers that of its own callers.

    Of evidence the chains alone: headers and checkpoints say when they were made.
    """
    if isinstance(reply, list):
        return list(map(timeless, cast("list[Any]", reply)))
    if "lines" in reply:
        return [line for line in reply["lines"] if '"chain":' in line]
    return {name: value for name, value in reply.items() if name != "lastheardfromtime"}


@pytest.mark.parametrize("kind", AT_API)
def test_what_was_made_at_another_node_is_there(kind: str) -> None:
    async def story() -> None:
        async with two_nodes() as two:
            await full(two)
            case = BY_TYPE[kind]
            await two.late(case.make(two.a), WHO[case.caller])

    run_virtual(story())


@pytest.mark.parametrize("kind", sorted(set(READS) - IN_VIEW_OF_NODES))
def test_every_read_shows_what_another_node_has_acknowledged(kind: str) -> None:
    async def story() -> None:
        async with two_nodes() as two:
            await full(two)
            case = BY_TYPE[kind]
            message, who = case.make(two.a), WHO[case.caller]
            seen = await two.late(message, who)
            await asyncio.sleep(0.1)
            assert timeless(seen) == timeless(await two.b.call(message, who))

    run_virtual(story())


class Anywhere(World):
    """Everybody calls whichever node they meet."""

    def __init__(self, two: Two, choices: list[bool]) -> None:
        super().__init__(two.a.dispatch)
        self._two = two
        self._choices = choices

    async def answer(self, message: Message, identity: Identity) -> Answer:
        choice = self._choices.pop() if self._choices else True
        node = self._two.a if choice else self._two.b
        return await node.answer(message, identity)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.booleans(), min_size=60, max_size=60), st.sampled_from([0.0, 0.003, 0.3]))
def test_calls_one_after_the_other_at_any_nodes_are_as_at_one(
    choices: list[bool], lag_s: float
) -> None:
    async def story() -> None:
        async with two_nodes(lag_s=lag_s) as two:
            made = Anywhere(two, choices)
            await made.populate()
            for _ in range(3):
                id = (await made.submit("uma")).processid
                assert (await made.list(State.WAITING)) == [id]
                assert (await made.assign("ada")).processid == id
                assert (await made.read(id)).state == State.RUNNING
                attribute = (await made.call(attribute_of(id), key("ada")))["attributeid"]
                assert await made.call(GetAttribute(attributeid=attribute), key("uma"))
                assert [one.value for one in (await made.read(id)).attributes] == ["v"]
                await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[7]")), key("ada"))
                assert out_of(await made.read(id)) == [7]
                await made.close("ada", id, b"[]")
                done = await made.read(id)
                assert (done.state, out_of(done)) == (State.SUCCESS, [7])
                assert [one.value for one in done.attributes] == ["v"]
            await made.weave()
            await made.call(
                CancelProcess(processid=(await made.submit("uma")).processid), key("uma")
            )
            counted = await made.statistics()
            assert counted["successfulprocesses"] == 3
            id = (await made.submit("uma")).processid
            await made.call(RemoveAllProcesses(colonyname=COLONY, state=-1), COLONY_OWNER)
            assert id not in await made.list(State.WAITING)
            assert await made.list(State.SUCCESS) == []

    run_virtual(story())


@virtual
async def test_an_assign_that_does_not_wait_finds_what_was_submitted_elsewhere() -> None:
    async with two_nodes() as two:
        await two.a.populate()
        await asyncio.sleep(1)
        two.way_b.hold()
        id = (await two.a.submit("uma")).processid
        given = await two.late(AssignProcess(colonyname=COLONY, timeout=-1), key("ada"))
        assert given["processid"] == id


@virtual
async def test_a_long_poll_that_waited_is_not_made_again() -> None:
    async with two_nodes() as two:
        await two.a.populate()
        await asyncio.sleep(1)
        asked, begun = two.way_b.asked_newest, asyncio.get_running_loop().time()
        failure = await two.b.refuse(AssignProcess(colonyname=COLONY, timeout=5), key("ada"))
        assert failure.failure.code == "no_process"
        assert asyncio.get_running_loop().time() - begun == pytest.approx(5, abs=0.1)
        assert two.way_b.asked_newest == asked


@virtual
async def test_what_had_an_effect_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant that could not be shown was committed, and goes back: its refusal stands."""
    async with two_nodes() as two:
        await two.a.populate()
        id = (await two.a.submit("uma")).processid
        await asyncio.sleep(1)
        births = type(two.b.rooms.listing._births)

        async def refuse(*_: object) -> None:
            raise AccessError("not for you")

        monkeypatch.setattr(births, "of", refuse)
        refused = await two.b.refuse(AssignProcess(colonyname=COLONY, timeout=-1), key("ada"))
        assert refused.failure.code == "access_denied"
        monkeypatch.undo()
        await asyncio.sleep(1)
        process = await two.a.read(id)
        assert process.state == State.WAITING
        live = two.a.rooms.view.rows[bytes.fromhex(id)].live()
        assert [event.what for event in live.events] == [What.ASSIGNED, What.UNDELIVERED]


@virtual
async def test_a_node_that_is_behind_answers_no_read_and_no_refusal() -> None:
    async with two_nodes() as two:
        await full(two)
        for message in (
            GetExecutor(colonyname=COLONY, executorname="ada"),
            CancelProcess(processid=two.a.waiting),
        ):
            begun = asyncio.get_running_loop().time()
            refused = await two.b.refuse(message, key("ada"))
            assert refused.failure.code == "unavailable"
            assert "this node is behind" in refused.failure.message
            assert asyncio.get_running_loop().time() - begun == pytest.approx(DEADLINE_S, abs=0.1)


@virtual
async def test_a_crowd_of_strangers_costs_the_store_a_question_or_two() -> None:
    async with two_nodes() as two:
        await two.a.populate()
        await asyncio.sleep(1)
        asked = two.way_b.asked_newest
        message = GetExecutor(colonyname=COLONY, executorname="ada")
        crowd = [two.b.refuse(message, STRANGER) for _ in range(200)]
        refusals = await asyncio.gather(*crowd)
        assert {each.failure.code for each in refusals} == {"access_denied"}
        assert two.way_b.asked_newest - asked <= 2


# -- long polls


@virtual
async def test_a_waiter_is_woken_by_a_submit_at_another_node() -> None:
    async with two_nodes() as two:
        await two.a.populate()
        await asyncio.sleep(2)
        poll = await parked(two.b, "ada")
        await asyncio.sleep(2)
        begun = asyncio.get_running_loop().time()
        id = (await two.a.submit("uma")).processid
        assert (await poll).processid == id
        assert asyncio.get_running_loop().time() - begun < 0.02


@virtual
async def test_one_process_and_a_waiter_at_each_node_exactly_one_gets_it() -> None:
    async with two_nodes() as two:
        await two.a.populate()
        await asyncio.sleep(1)
        for _ in range(10):
            polls = [await parked(two.a, "ada", 3), await parked(two.b, "ben", 3)]
            await asyncio.sleep(1.5)
            id = (await two.a.submit("uma")).processid
            given = await asyncio.gather(*polls, return_exceptions=True)
            assert [each.processid for each in given if isinstance(each, Process)] == [id]


@virtual
async def test_a_waiter_that_leaves_while_it_is_given_work_leaves_it_to_another_nodes() -> None:
    async with two_nodes() as two:
        await two.a.populate()
        await asyncio.sleep(1)
        for steps_s in (0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.012):
            leaving, staying = await parked(two.a, "ada"), await parked(two.b, "ben")
            await asyncio.sleep(1.5)
            submit = asyncio.create_task(two.a.submit("uma"))
            await asyncio.sleep(steps_s)
            leaving.cancel()
            id = (await submit).processid
            await asyncio.gather(leaving, return_exceptions=True)
            if leaving.cancelled():
                assert (await asyncio.wait_for(staying, 1)).processid == id
            staying.cancel()
            await asyncio.sleep(0.1)


@virtual
async def test_a_colony_that_is_paused_elsewhere_hands_out_nothing_here() -> None:
    """The guard decides: this node has not heard of the pause when work comes."""
    async with two_nodes() as two:
        await two.a.populate()
        await asyncio.sleep(1)
        two.way_b.hold()
        poll = await parked(two.b, "ada", 5)
        await two.a.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        id = (await two.b.submit("uma")).processid
        await asyncio.sleep(0.5)
        assert not poll.done()
        assert two.b.colony.record.is_paused
        two.way_b.flow()
        with pytest.raises(Refused, match="paused"):
            await poll
        assert (await two.a.read(id)).state == State.WAITING


@virtual
async def test_a_read_that_waits_hears_of_what_another_node_does() -> None:
    async with two_nodes() as two:
        await two.a.populate()
        id = (await two.a.submit("uma")).processid
        message = GetProcess(processid=id, waitwhile=State.WAITING, timeout=100)
        held = asyncio.create_task(two.b.process(message, key("uma")))
        await asyncio.sleep(1)
        assert not held.done()
        await two.a.assign("ada")
        assert (await asyncio.wait_for(held, 1)).state == State.RUNNING


def test_without_the_barrier_a_node_tells_of_less_than_was_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the tests above rest on: the second node does lag."""
    monkeypatch.setattr(Freshness, "is_needed", property(lambda _: False))

    async def story() -> None:
        async with two_nodes() as two:
            await full(two)
            message = GetExecutor(colonyname=COLONY, executorname="ada")
            assert (await two.b.refuse(message, key("ada"))).failure.code == "access_denied"

    run_virtual(story())
