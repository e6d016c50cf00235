"""What a node leaves behind when it dies: replies nobody saw, workflows half made or half ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from colonist_core.process import What
from colonist_protocol.process import CloseFailed, Process
from colonist_protocol.workflow import RemoveProcessGraph
from colonist_server.loops.heartbeat import LEASE_S
from colonist_server.repo import keys, settling
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.records import WorkflowState, decode_live, decode_workflow
from colonist_server.repo.waiting import Grant
from colonist_server.store.interface import Op
from tests.support.clock import virtual
from tests.support.cluster import Cluster, cluster
from tests.support.rooms import Refused, key
from tests.support.workflow_audit import check_view

DEAD_S = LEASE_S + 0.5


def _whats(made: Cluster, id: str) -> list[What]:
    (item,) = made.store.under(keys.live(bytes.fromhex(id)))
    return [What(event.what) for event in decode_live(item.value).events]


async def _lose_reply(made: Cluster, at: str) -> str:
    """A process is assigned to `e1` by a node that dies before it can tell."""
    id = (await made["b"].bench.submit("e2", maxexectime=500)).processid
    await asyncio.sleep(0.1)
    made[at].line.arm(0, "after")
    asking = asyncio.create_task(made[at].bench.assign("e1"))
    await made[at].line.dead()
    await made.kill(at)
    asking.cancel()
    with suppress(asyncio.CancelledError, Refused):
        await asking
    return id


@pytest.mark.parametrize("is_parked", [False, True])
@virtual
async def test_an_assignment_whose_reply_died_with_its_node_is_given_again(is_parked: bool) -> None:
    async with cluster("b", "c", "a") as made:
        await made["b"].bench.found("e1", "e2")
        id = await _lose_reply(made, "a")
        if not is_parked:
            await asyncio.sleep(DEAD_S)
        process = await made["c"].bench.assign("e1", timeout=30)
        assert (process.processid, process.retries) == (id, 0)
        assert asyncio.get_running_loop().time() < DEAD_S + 1
        assert _whats(made, id) == [What.ASSIGNED, What.REDELIVERED]
        await asyncio.sleep(0.1)
        with pytest.raises(Refused):  # the doubt is over at all nodes
            await made["b"].bench.assign("e1", timeout=-1)


@virtual
async def test_it_is_given_to_its_own_executor_only() -> None:
    async with cluster("b", "c", "a") as made:
        await made["b"].bench.found("e1", "e2")
        await _lose_reply(made, "a")
        await asyncio.sleep(DEAD_S)
        with pytest.raises(Refused):
            await made["c"].bench.assign("e2", timeout=3)


@virtual
async def test_two_nodes_that_doubt_the_same_give_it_again_once() -> None:
    async with cluster("b", "c", "a") as made:
        await made["b"].bench.found("e1", "e2")
        id = await _lose_reply(made, "a")
        await asyncio.sleep(DEAD_S)
        made["b"].line.answer_s = made["c"].line.answer_s = 0.01
        asks = [made[at].bench.assign("e1", timeout=2) for at in "bc"]
        answers = await asyncio.gather(*asks, return_exceptions=True)
        given = [each for each in answers if isinstance(each, Process)]
        assert [each.processid for each in given] == [id]
        assert _whats(made, id).count(What.REDELIVERED) == 1


@pytest.mark.parametrize("is_orderly", [False, True])
@virtual
async def test_what_was_answered_by_a_node_that_stops_in_order_is_not_given_again(
    is_orderly: bool,
) -> None:
    async with cluster("b", "a") as made:
        await made["b"].bench.found("e1", "e2")
        await made["b"].bench.submit("e2", maxexectime=500)
        await asyncio.sleep(0.1)
        await made["a"].bench.assign("e1")
        await (made.stop if is_orderly else made.kill)("a")
        await asyncio.sleep(DEAD_S)
        if is_orderly:
            with pytest.raises(Refused):
                await made["b"].bench.assign("e1", timeout=-1)
        else:
            await made["b"].bench.assign("e1", timeout=-1)


@virtual
async def test_what_was_assigned_long_before_the_crash_is_not_given_again() -> None:
    async with cluster("b", "a") as made:
        await made["b"].bench.found("e1", "e2")
        await made["b"].bench.submit("e2", maxexectime=500)
        await asyncio.sleep(0.1)
        await made["a"].bench.assign("e1")
        await asyncio.sleep(40)
        await made.kill("a")
        await asyncio.sleep(DEAD_S)
        with pytest.raises(Refused):
            await made["b"].bench.assign("e1", timeout=-1)


@virtual
async def test_a_node_that_stood_still_takes_nothing_back_that_was_given_again_meanwhile() -> None:
    async with cluster("b", "a") as made:
        await made["b"].bench.found("e1", "e2")
        pid = bytes.fromhex((await made["b"].bench.submit("e2", maxexectime=500)).processid)
        await asyncio.sleep(0.1)
        first = await made["a"].bench.assign("e1")
        granted = Grant(pid, made["a"].bench.rooms.view.rows[pid].live())
        await asyncio.sleep(0.1)
        at_b = made["b"].bench.rooms
        at_b.hand_over.doubt(at_b.view.rows[pid], key("e1").id)
        assert (await made["b"].bench.assign("e1", timeout=-1)).processid == first.processid
        made["a"].bench.rooms.hand_over.hand_back(granted)  # it finds its connection closed
        await asyncio.sleep(1)
        assert _whats(made, first.processid) == [What.ASSIGNED, What.REDELIVERED]
        await made["b"].bench.close("e1", first.processid)


@pytest.mark.parametrize("away_s", [0.0, 60.0])
@virtual
async def test_a_node_alone_doubts_what_it_assigned_before_it_crashed(away_s: float) -> None:
    async with cluster("b", "a") as made:
        await made["b"].bench.found("e1", "e2")
        id = await _lose_reply(made, "a")
        await made.kill("b")
        await asyncio.sleep(away_s)
        await made.start("a")
        assert (await made["a"].bench.assign("e1", timeout=-1)).processid == id


@virtual
async def test_marks_of_nodes_that_do_not_come_back_are_forgotten() -> None:
    async with cluster("a") as made:
        for number in range(3):
            await made.start(f"b{number}")
            await made.kill(f"b{number}")
        await asyncio.sleep(20)
        assert len(made.store.under(keys.RUNNING)) == 4
        await made.stop("a")
        await made.start("a")
        await made.elected()
        await asyncio.sleep(1)
        (mark,) = made.store.under(keys.RUNNING)
        assert mark.key == keys.running("a")


# -- workflows


def _heads(made: Cluster) -> list[WorkflowState]:
    heads = made.store.under(keys.WORKFLOW)
    return [WorkflowState(decode_workflow(item.value).state) for item in heads]


@pytest.fixture
def slow_staging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workflows are staged, a member at a time."""

    def batches(self: NewWorkflow) -> Iterator[list[Op]]:
        for piece in self._pieces():
            yield list(piece)

    monkeypatch.setattr(NewWorkflow, "fits", lambda *_: False)
    monkeypatch.setattr(NewWorkflow, "batches", batches)


NODES = {f"n{number}": [] for number in range(30)}


@pytest.mark.usefixtures("slow_staging")
@virtual
async def test_a_workflow_that_another_node_makes_is_left_alone() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        await asyncio.sleep(0.1)
        assert (await made.elected()).name == "a"
        made["b"].line.slow_s = 5.0  # 3 minutes for all
        await made["b"].bench.submit_workflow("e1", NODES)
        await asyncio.sleep(1)
        assert _heads(made) == [WorkflowState.OPEN]
        assert len(made.store.under(keys.LIVE)) == 30
        (head,) = made.store.under(keys.WORKFLOW)
        assert not decode_workflow(head.value).stager


@pytest.mark.usefixtures("slow_staging")
@pytest.mark.parametrize("again", [False, True])
@virtual
async def test_a_workflow_whose_node_died_is_swept_away(again: bool) -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        await asyncio.sleep(0.1)
        made["b"].line.arm(10, "after")
        making = asyncio.create_task(made["b"].bench.submit_workflow("e1", NODES))
        await made["b"].line.dead()
        await made.kill("b")
        making.cancel()
        assert _heads(made) == [WorkflowState.STAGING]
        if again:  # under the same name it is another start
            await made.start("b")
        await asyncio.sleep(1.0 if again else DEAD_S + 1)
        assert not _heads(made)
        for prefix in (keys.LIVE, keys.BIRTH, keys.SHAPE, keys.REQUEST):
            assert not made.store.under(prefix)


@pytest.mark.usefixtures("slow_staging")
@virtual
async def test_the_next_leader_sweeps_what_the_last_one_was_making() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        made["a"].line.arm(10, "before")
        making = asyncio.create_task(made["a"].bench.submit_workflow("e1", NODES))
        await made["a"].line.dead()
        await made.kill("a")
        making.cancel()
        await asyncio.sleep(DEAD_S + 2)
        assert not _heads(made)


@pytest.mark.usefixtures("slow_staging")
@virtual
async def test_a_workflow_of_which_nothing_comes_is_swept_and_its_maker_fails() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        await asyncio.sleep(0.1)
        made["b"].line.slow_s = 1.0
        making = asyncio.create_task(made["b"].bench.submit_workflow("e1", NODES))
        await asyncio.sleep(10)
        made["b"].line.slow_s = 2 * settling.IDLE_S
        await asyncio.sleep(settling.IDLE_S * 0.9)
        assert _heads(made) == [WorkflowState.STAGING]
        await asyncio.sleep(settling.IDLE_S * 0.5)
        assert not _heads(made)
        made["b"].line.slow_s = 0.0
        with pytest.raises(Refused, match="swept away"):
            await making
        await asyncio.sleep(5)
        assert not _heads(made)
        assert not made.store.under(keys.LIVE)


@virtual
async def test_what_a_dead_node_left_of_a_failed_workflow_the_leader_finishes() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        await made["a"].bench.submit_workflow("e1", {"r": [], "x": ["r"], "y": ["x"]})
        root = await made["b"].bench.assign("e1")
        made["b"].line.arm(1, "before")  # the close is done, nothing of what follows
        await made["b"].bench.call(CloseFailed(processid=root.processid), key("e1"))
        await made["b"].line.dead()
        await made.kill("b")
        assert _heads(made) == [WorkflowState.OPEN]
        await asyncio.sleep(settling.PENDING_S + 1)
        assert _heads(made) == [WorkflowState.FAILED]
        assert not made.store.under(keys.LIVE)


@virtual
async def test_what_a_node_ends_it_settles_at_once_without_leading() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        await made["a"].bench.submit_workflow("e1", {"r": [], "x": ["r"]})
        root = await made["b"].bench.assign("e1")
        await made.kill("a")
        await made["b"].bench.call(CloseFailed(processid=root.processid), key("e1"))
        await asyncio.sleep(0.1)
        assert not made["b"].leads
        assert _heads(made) == [WorkflowState.FAILED]


@virtual
async def test_members_that_end_at_two_nodes_at_once_end_their_workflow_at_once() -> None:
    async with cluster("l", "a", "b") as made:
        await made["l"].bench.found("e1", "e2")
        await made["l"].bench.submit_workflow("e1", {"x": [], "y": []})
        first = await made["a"].bench.assign("e1")
        second = await made["b"].bench.assign("e2")
        await asyncio.sleep(0.1)
        await asyncio.gather(
            made["a"].bench.close("e1", first.processid),
            made["b"].bench.close("e2", second.processid),
        )
        await asyncio.sleep(0.2)
        assert _heads(made) == [WorkflowState.SUCCESS]
        for name in "lab":
            await check_view(made[name].bench.rooms.view, made.store)


@pytest.mark.parametrize("at", [0, 1])
@virtual
async def test_what_a_dead_node_was_removing_the_leader_removes(at: int) -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        graph = await made["a"].bench.submit_workflow("e1", {"r": [], "x": ["r"]})
        await asyncio.sleep(0.1)
        made["b"].line.arm(at, "after")
        message = RemoveProcessGraph(processgraphid=graph.processgraphid)
        removing = asyncio.create_task(made["b"].bench.call(message, key("e1")))
        await made["b"].line.dead()
        await made.kill("b")
        removing.cancel()
        assert _heads(made) == [WorkflowState.REMOVING]
        await asyncio.sleep(settling.PENDING_S + 1)
        assert not _heads(made)
        assert not made.store.under(keys.BIRTH)
