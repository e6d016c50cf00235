"""What is known of results stays known: moved, removed, at other nodes, and in workflows."""

from __future__ import annotations

import asyncio

import pytest

from colonist_core.process import What
from colonist_protocol.executor import RemoveExecutor
from colonist_protocol.log import AddLog
from colonist_protocol.process import (
    AssignProcess,
    GetProcess,
    RemoveAllProcesses,
    RemoveProcess,
    State,
)
from colonist_protocol.workflow import AddChild, CancelProcessGraph, RemoveAllProcessGraphs
from colonist_server.repo import keys
from colonist_server.repo.soundness import fault
from tests.server.history import historic
from tests.server.people import World, out_of, world
from tests.server.test_many_nodes import two_nodes
from tests.support import attempts, sealing
from tests.support.attempts import CONFLICT, OVER, Held, ask, held, take
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import COLONY, COLONY_OWNER, key, settle, spec
from tests.support.stores import CountingStore

LATE = {"maxexectime": 10, "maxretries": 9}


async def staff(made: World) -> None:
    await made.found("ada", "ben")
    await made.enrol("uma")


async def three(made: World) -> tuple[Held, Held, Held]:
    """A failure that is recorded while the process runs, the result, one that comes too late."""
    await made.submit("uma", **LATE)
    early = await take(made, "ada")
    await asyncio.sleep(11)
    winner = await take(made, "ben")
    await winner.log()
    assert await early.fail() == "recorded"
    assert await winner.succeed() == "counted"
    return early, winner, early


async def marks(made: World) -> list[bytes]:
    return [key for key in await made.dump() if key.startswith((keys.RESULT, keys.MARK))]


@virtual
async def test_what_was_recorded_moves_to_the_archive_and_is_answered_from_there() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        await staff(made)
        early, winner, _ = await three(made)
        late = await _forgotten(made, winner)
        assert await late.succeed() == "recorded"
        assert len(await marks(made)) == 2
        await asyncio.sleep(500)
        await settle()
        assert await marks(made) == []
        for key_, value in archive.rows.items():
            assert not fault(key_, value), key_
        assert len([each for each in archive.rows if each.startswith(keys.RESULT)]) == 2
        assert await early.fail() == "recorded"
        assert await early.succeed() == CONFLICT
        assert await winner.succeed() == "counted"
        assert await winner.fail() == CONFLICT
        assert await late.succeed() == "recorded"
        fresh = await _forgotten(made, winner, number=8)
        assert await fresh.succeed() == "recorded"
        assert await fresh.fail() == CONFLICT
        assert len(await marks(made)) == 1
        await asyncio.sleep(700)
        assert await marks(made) == []
        assert await fresh.succeed() == "recorded"


async def _forgotten(made: World, like: Held, number: int = 7) -> Held:
    current = made.rooms.server_keys.current
    token = current.attempt_token(like.process, like.identity.id, number, "ab" * 8)
    return like._replace(token=token)


@virtual
async def test_of_a_removed_process_it_is_known_whose_result_counted() -> None:
    async with world() as made:
        await staff(made)
        early, winner, _ = await three(made)
        await made.call(RemoveProcess(processid=winner.process), key("uma"))
        assert await marks(made) == []
        assert await winner.succeed() == "counted"
        assert [await winner.succeed("another"), await winner.fail()] == [CONFLICT] * 2
        assert await marks(made) == []
        assert await early.fail() == "recorded"


@virtual
async def test_of_a_member_of_a_removed_workflow_too() -> None:
    async with world() as made:
        await staff(made)
        await made.submit_workflow("uma", {"a": []}, **LATE)
        winner = await take(made, "ada")
        assert await winner.succeed() == "counted"
        await made.call(RemoveAllProcessGraphs(colonyname=COLONY, state=-1), COLONY_OWNER)
        assert [await winner.succeed(), await winner.fail()] == ["counted", CONFLICT]


@pytest.mark.parametrize("is_workflow", [False, True])
@virtual
async def test_of_what_retention_removed_too(is_workflow: bool) -> None:
    async with historic(None, retention_age_s=600.0) as made:
        await staff(made)
        if is_workflow:
            await made.submit_workflow("uma", {"a": []}, **LATE)
        else:
            await made.submit("uma", **LATE)
        winner = await take(made, "ada")
        assert await winner.succeed() == "counted"
        await asyncio.sleep(900)
        store = made.rooms.writes.store
        assert await store.get(keys.closed(bytes.fromhex(winner.process))) is None
        assert [await winner.succeed(), await winner.fail()] == ["counted", CONFLICT]


@virtual
async def test_of_one_removed_from_the_archive_too() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        await staff(made)
        early, winner, _ = await three(made)
        await asyncio.sleep(500)
        await settle()
        await made.call(RemoveAllProcesses(colonyname=COLONY, state=-1), COLONY_OWNER)
        assert [each for each in archive.rows if each.startswith(keys.RESULT)] == []
        assert await winner.succeed() == "counted"
        assert await winner.fail() == CONFLICT
        assert await early.fail() == "recorded"


@virtual
async def test_what_is_stored_of_attempts_is_sound() -> None:
    async with world() as made:
        await staff(made)
        await made.submit("uma", **LATE)
        early = await take(made, "ada")
        await asyncio.sleep(11)
        other = await take(made, "ben")
        await other.log()
        await other.put("x")
        await other.note("y")
        await early.fail()
        stored = await made.dump()
        for prefix in (keys.RESULT, keys.MARK):
            assert any(each.startswith(prefix) for each in stored)
        assert [each for each, value in stored.items() if fault(each, value)] == []


@virtual
async def test_the_usual_close_reads_nothing() -> None:
    async with CountingStore() as store, world(store) as made:
        await staff(made)
        await made.submit("uma", **LATE)
        mine = await take(made, "ada")
        await mine.log()
        store.asked.clear()
        assert await mine.succeed() == "counted"
        assert store.asked == ["commit"]


# -- workflows


@virtual
async def test_a_late_success_frees_the_children() -> None:
    async with world() as made:
        await staff(made)
        await made.submit_workflow("uma", {"a": [], "b": ["a"]}, **LATE)
        late = await take(made, "ada")
        await asyncio.sleep(11)
        assert await late.succeed("from a") == "counted"
        child = await take(made, "ben")
        shown = await made.read(child.process)
        assert shown.parents == [late.process]
        assert bytes(shown.inputs) == b'["from a"]'
        assert await child.succeed() == "counted"
        graph = await made.graph("uma", shown.processgraphid)
        assert graph.state == State.SUCCESS


@virtual
async def test_a_result_for_a_workflow_that_is_being_cancelled_is_evidence() -> None:
    async with world() as made:
        await staff(made)
        graph = await made.submit_workflow("uma", {"a": [], "b": ["a"]}, **LATE)
        mine = await take(made, "ada")
        cancel = CancelProcessGraph(processgraphid=graph.processgraphid)
        [workflow] = made.colony.workflows.values()
        ending = asyncio.create_task(made.call(cancel, key("uma")))
        while not workflow.graph.is_cancelled:
            await asyncio.sleep(0)
        assert bytes.fromhex(mine.process) in made.rooms.view.rows
        assert await asyncio.gather(mine.log(), mine.succeed()) == [OVER, "recorded"]
        await ending
        assert await mine.succeed() == "recorded"
        assert await mine.log() == OVER
        assert await mine.release() == {}
        assert (await made.read(mine.process)).state == State.CANCELLED


@virtual
async def test_a_result_for_a_member_that_is_about_to_be_cancelled_is_evidence() -> None:
    """Between the cancel and the end of its members."""
    async with world() as made:
        await staff(made)
        await made.submit_workflow("uma", {"a": [], "b": ["a"]}, **LATE)
        mine = await take(made, "ada")
        [workflow] = made.colony.workflows.values()
        workflow.graph.is_cancelled = True
        assert await mine.log() == OVER
        assert await mine.succeed() == "recorded"
        row = made.rooms.view.rows[bytes.fromhex(mine.process)]
        assert (row.live().state, row.live().events[-1].what) == (State.RUNNING, What.RECORDED)


@virtual
async def test_a_late_success_of_what_waits_for_another_now_is_evidence() -> None:
    async with world() as made:
        await staff(made)
        await made.submit_workflow("uma", {"a": [], "b": []}, **LATE)
        late, other = await take(made, "ben"), await take(made, "ada")
        await asyncio.sleep(5)
        await other.renew(1)
        await asyncio.sleep(6)
        [workflow] = made.colony.workflows.values()
        child = AddChild(
            processgraphid=workflow.id,
            parentprocessid=other.process,
            childprocessid=late.process,
            spec=spec(nodename="between"),
        )
        assert "processid" in await ask(made, child, "ada")
        assert await late.succeed("out of date") == "recorded"
        shown = await made.read(late.process)
        assert (shown.state, shown.waitforparents) == (State.WAITING, True)


@virtual
async def test_two_presentations_of_a_late_result_leave_one_record() -> None:
    async with world() as made:
        await staff(made)
        await made.submit("uma", **LATE)
        early = await take(made, "ada")
        await asyncio.sleep(11)
        await take(made, "ben")
        sent = early.sealed(early.failure())
        answers = await asyncio.gather(*(attempts.told(made, sent) for _ in range(4)))
        assert answers == [{"outcome": "recorded"}] * 4
        live = made.rooms.view.rows[bytes.fromhex(early.process)].live()
        assert [each.what for each in live.events].count(What.RECORDED) == 1
        gone = await _forgotten(made, early)
        gone = gone._replace(process=early.process)
        sent = gone.sealed(gone.failure())
        answers = await asyncio.gather(*(attempts.told(made, sent) for _ in range(4)))
        assert answers == [{"outcome": "recorded"}] * 4


# -- several nodes


@virtual
async def test_each_node_answers_alike_however_far_it_is_behind() -> None:
    async with two_nodes() as two:
        await staff(two.a)
        await asyncio.sleep(1)
        await two.a.submit("uma", **LATE)
        early = await take(two.a, "ada")
        assert early.made is two.a
        there = early._replace(made=two.b)
        two.way_b.hold()
        await asyncio.sleep(11)
        other = await take(two.a, "ben")
        asyncio.get_running_loop().call_later(0.05, two.way_b.flow)
        assert await there.fail() == "recorded"
        assert await early.fail() == "recorded"
        two.way_b.hold()
        assert await other.put("out") == {}
        assert await other.succeed() == "counted"
        asyncio.get_running_loop().call_later(0.05, two.way_b.flow)
        assert await other._replace(made=two.b).succeed() == "counted"
        assert await there.succeed() == CONFLICT
        assert out_of(await two.b.read(other.process)) == ["done"]


@virtual
async def test_a_node_that_is_behind_gives_no_one_a_lease_that_is_over() -> None:
    async with two_nodes() as two:
        await staff(two.a)
        await two.a.submit("uma", **LATE)
        mine = await take(two.a, "ada")
        await mine.log()
        await asyncio.sleep(1)
        two.way_b.hold()
        assert await mine.release() == {}
        await take(two.a, "ben")
        there = mine._replace(made=two.b)
        asyncio.get_running_loop().call_later(0.05, two.way_b.flow)
        assert await there.renew() == OVER
        two.way_b.hold()
        asyncio.get_running_loop().call_later(0.05, two.way_b.flow)
        assert await there.release() == {}
        assert (await two.a.read(mine.process)).assignedexecutorid == key("ben").id


@virtual
async def test_a_node_that_is_behind_takes_back_what_it_has_not_heard_of() -> None:
    async with two_nodes() as two:
        await staff(two.a)
        await asyncio.sleep(1)
        two.way_b.hold()
        await two.a.submit("uma", **LATE)
        mine = await take(two.a, "ada")
        asyncio.get_running_loop().call_later(0.05, two.way_b.flow)
        assert await mine._replace(made=two.b).release() == {}
        assert (await two.a.read(mine.process)).state == State.WAITING


@virtual
async def test_a_removed_executor_is_served_by_no_node() -> None:
    async with two_nodes() as two:
        await staff(two.a)
        await two.a.submit("uma", overlap="never", **LATE)
        mine = await take(two.a, "ada")
        await asyncio.sleep(1)
        two.way_b.hold()
        await two.a.call(RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        for say in (mine.succeed, mine.log, mine.renew):
            two.way_b.hold()
            asyncio.get_running_loop().call_later(0.05, two.way_b.flow)
            there = getattr(mine._replace(made=two.b), say.__name__)
            assert await there() == "access_denied"
        assert (await two.a.get("ben", mine.process)).state == State.RUNNING


# -- sealed grants are not given away behind their executor's back


@virtual
async def test_where_no_two_may_run_a_grant_that_nobody_received_waits_for_its_time() -> None:
    async with world() as made:
        await staff(made)
        id = (await made.submit("uma", overlap="never", **LATE)).processid
        sent = sealing.of_now(
            made.dispatch, AssignProcess(colonyname=COLONY, timeout=5), key("ada")
        )
        answer = await made.dispatch.answer(sent.body)
        assert answer.lost is not None
        answer.lost()
        await settle()
        assert (await made.read(id)).state == State.RUNNING
        again = held(made, "ada", await attempts.told(made, sent))
        assert await again.succeed() == "counted"


@virtual
async def test_a_watcher_is_told_of_each_state_once() -> None:
    async with world() as made:
        await staff(made)
        await made.submit("uma", **LATE)
        mine = await take(made, "ada")
        read = GetProcess(processid=mine.process, waitwhile=State.RUNNING, timeout=3600)
        waits = asyncio.create_task(ask(made, read, "uma"))
        await asyncio.sleep(1)
        for say in (mine.log, mine.renew, mine.log):
            await say()
        await mine.say(AddLog(processid=mine.process, message="x"))
        await settle()
        assert not waits.done()
        await mine.succeed()
        assert (await waits)["state"] == State.SUCCESS
