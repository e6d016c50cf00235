"""What was moved to the archive is read, counted and removed as if it had never been moved."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from colonist_core.archiving import Policy
from colonist_protocol.colony import RemoveColony
from colonist_protocol.log import AddExecutorLog, AddLog, GetLogs
from colonist_protocol.process import (
    CancelProcess,
    GetProcess,
    RemoveAllProcesses,
    RemoveProcess,
    State,
)
from colonist_protocol.workflow import (
    GetProcessGraph,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
)
from colonist_server.archive.interface import Row
from colonist_server.repo import archiving, keys
from colonist_server.repo.archiving import Archiving
from colonist_server.store.interface import Delete, Guard, Op, Put, Revision, StoreError
from tests.server.history import ADA, UMA, History, historic
from tests.server.people import World, attribute_of
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, settle

MOVED = (keys.CLOSED, keys.ENDED, keys.OUTPUT, keys.EVENTS, keys.ATTRIBUTE, keys.WORKFLOW)
DAY = 86_400.0


class Stopped(BaseException):
    """The process ended here."""


async def left(made: World) -> list[bytes]:
    return [each for each in await made.dump() if each.startswith(MOVED)]


async def moved_all(made: World, archive: MemoryArchive) -> None:
    """Let everything come of age."""
    await asyncio.sleep(400)
    await settle()
    assert await left(made) == []
    assert archive.rows


@virtual
async def test_every_reply_is_the_same_after_the_move() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        history = History(made)
        await history.make()
        before = await history.read()
        await moved_all(made, archive)
        assert await history.read() == before
        await history.count()


@pytest.mark.parametrize("start", range(4))
@virtual
async def test_every_reply_is_the_same_at_random_moments_of_a_move(start: int, seed: int) -> None:
    chance = random.Random(start * 1_000 + seed)
    archive = MemoryArchive()
    async with historic(archive, archive_age_s=1e6) as made:
        history = History(made)
        await history.make()
        before = await history.read()
        mover = Archiving(made.rooms.removal._writes, archive)
        ids = [*history.lone, *history.graphs]
        chance.shuffle(ids)
        while ids:
            id, *ids = ids
            raw = bytes.fromhex(id)
            if id in history.graphs:
                work = mover.move_workflow(made.colony, raw[: keys.WID_BYTES])
            else:
                work = mover.move(made.colony, [raw])
            task = asyncio.create_task(work)
            while not task.done():  # readers meet it half done
                assert await history.read() == before
            await task
            assert await history.read() == before
            await history.count()
        assert not [each for each in await left(made) if each.startswith(keys.CLOSED)]


class StoppingStore(MemoryStore):
    """Ends the process before or after a commit that deletes what has ended."""

    def __init__(self, turn: int, *, is_after: bool) -> None:
        super().__init__()
        self.turn = turn
        self.is_after = is_after
        self.seen = 0

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        is_account = any(isinstance(op, Put) and op.key.startswith(keys.PAST) for op in ops)
        self.seen += is_account
        if is_account and self.seen == self.turn:
            if self.is_after:
                await super().commit(guards, ops)
            raise Stopped
        return await super().commit(guards, ops)


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("turn", range(1, 10))
@virtual
async def test_a_stop_at_any_commit_loses_and_doubles_nothing(turn: int, is_after: bool) -> None:
    archive = MemoryArchive()
    async with StoppingStore(turn, is_after=is_after) as store:
        before: dict[str, Any] = {}
        history: History | None = None
        try:
            async with historic(archive, store, archive_age_s=1e6) as made:
                history = History(made)
                await history.make()
                before = await history.read()
                mover = Archiving(made.rooms.removal._writes, archive)
                await mover.move(made.colony, [bytes.fromhex(id) for id in history.lone[:4]])
                for id in history.graphs:
                    await mover.move_workflow(made.colony, bytes.fromhex(id)[: keys.WID_BYTES])
        except (Stopped, BaseExceptionGroup):
            pass
        assert history is not None
        store.turn = 0
        async with historic(archive, store) as made:
            history.made = made
            assert await history.read() == before
            await history.count()
            await moved_all(made, archive)
            assert await history.read() == before
            await history.count()
            assert made.colony.past.moving == ()


@virtual
async def test_what_is_removed_is_gone_from_the_archive_and_from_the_counts() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        history = History(made)
        await history.make()
        await moved_all(made, archive)
        for id in (history.lone[1], history.lone[3], history.lone[6]):
            await made.call(RemoveProcess(processid=id), UMA)
            assert (await made.answer(GetProcess(processid=id), UMA)).status == 404
            await history.count()
        await made.call(RemoveProcessGraph(processgraphid=history.graphs[1]), UMA)
        assert (
            await made.answer(GetProcessGraph(processgraphid=history.graphs[1]), UMA)
        ).status == 404
        await history.count()
        gone = [history.lone[1], history.lone[3], history.lone[6], history.graphs[1]]
        for id in gone:
            part = bytes.fromhex(id)[: keys.WID_BYTES]
            stays = [each for each in archive.rows if part in each]
            assert all(each.startswith(keys.LOG) for each in stays)
            assert part not in b"".join(
                archive.rows[each] for each in archive.rows if each[:2] == b"ai"
            )
        await made.call(RemoveAllProcesses(colonyname=COLONY, state=-1), COLONY_OWNER)
        await made.call(RemoveAllProcessGraphs(colonyname=COLONY, state=-1), COLONY_OWNER)
        await history.count()
        assert not [each for each in archive.rows if not each.startswith(keys.LOG)]
        assert sum(made.colony.ended) == sum(made.colony.ended_workflows) == 0


@virtual
async def test_a_removal_that_a_stop_interrupts_is_finished() -> None:
    archive = MemoryArchive()
    async with MemoryStore() as store:
        async with historic(archive, store) as made:
            history = History(made)
            await history.make()
            await moved_all(made, archive)
            removed = history.lone[0]
            real = archive.delete

            async def away(keys: Sequence[bytes]) -> None:
                archive.is_away = True
                await real(keys)

            archive.delete = away  # type: ignore[method-assign]  # of this test's own object
            answer = await made.answer(RemoveProcess(processid=removed), UMA)
            assert answer.status == 503
            archive.delete = real  # type: ignore[method-assign]  # as it was
            archive.is_away = False
            assert (await made.answer(GetProcess(processid=removed), UMA)).status == 404
            await history.count()
        async with historic(archive, store) as made:
            history.made = made
            assert (await made.answer(GetProcess(processid=removed), UMA)).status == 404
            await history.count()
            await asyncio.sleep(400)
            await settle()
            assert made.colony.past.removing == ()
            assert keys.closed(bytes.fromhex(removed)) not in archive.rows
            await history.count()


@virtual
async def test_a_removal_waits_for_what_is_being_moved() -> None:
    archive = MemoryArchive()
    async with historic(archive, archive_age_s=1e6) as made:
        history = History(made)
        await history.make()
        for id in history.lone:
            mover = Archiving(made.rooms.removal._writes, archive)
            task = asyncio.create_task(mover.move(made.colony, [bytes.fromhex(id)]))
            await settle(random.Random(id).randrange(8))
            await made.call(RemoveProcess(processid=id), UMA)
            await asyncio.gather(task, return_exceptions=True)
            assert (await made.answer(GetProcess(processid=id), UMA)).status == 404
            await history.count()
        tag = made.colony.tag
        assert not [each for each in archive.rows if each.startswith((keys.CLOSED + tag, b"p/"))]


class HeldStore(MemoryStore):
    """Commits that take a closed process away, but are not the archiver's, wait at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        is_account = any(op.key.startswith(keys.PAST) for op in ops if isinstance(op, Put))
        if not is_account and any(
            op.key.startswith(keys.CLOSED) for op in ops if isinstance(op, Delete)
        ):
            await self.gate.wait()
        return await super().commit(guards, ops)


@virtual
async def test_no_copy_outlives_a_removal_that_was_decided_before_the_move() -> None:
    archive = MemoryArchive()
    async with HeldStore() as store, historic(archive, store, archive_age_s=1e6) as made:
        history = History(made)
        await history.make()
        id = history.lone[0]
        removal = asyncio.create_task(made.call(RemoveProcess(processid=id), UMA))
        await settle()
        put = archive.put

        async def then_remove(rows: Sequence[Row]) -> None:
            await put(rows)
            store.gate.set()
            await settle()

        archive.put = then_remove  # type: ignore[method-assign]  # of this test's own object
        mover = Archiving(made.rooms.removal._writes, archive)
        await asyncio.gather(mover.move(made.colony, [bytes.fromhex(id)]), return_exceptions=True)
        await removal
        assert (await made.answer(GetProcess(processid=id), UMA)).status == 404
        assert keys.closed(bytes.fromhex(id)) not in archive.rows
        await history.count()


@virtual
async def test_retention_forgets_what_is_in_the_archive() -> None:
    archive = MemoryArchive()
    async with historic(archive, retention_age_s=DAY) as made:
        history = History(made)
        await history.make()
        await moved_all(made, archive)
        await asyncio.sleep(DAY * 1.2)
        await settle()
        evidence = (keys.CHECKPOINT, keys.REMOVED)
        assert not [each for each in archive.rows if not each.startswith(evidence)]
        await asyncio.sleep(DAY * 3)  # that it was removed is told for as long again
        await settle()
        assert not [each for each in archive.rows if not each.startswith(keys.CHECKPOINT)]
        assert len(archive.rows) <= 3  # of what is there still: members, and the newest
        assert sum(made.colony.ended) == sum(made.colony.ended_workflows) == 0


@virtual
async def test_a_removed_colony_leaves_nothing_in_the_archive() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        history = History(made)
        await history.make()
        await moved_all(made, archive)
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        assert archive.rows == {}
        assert not [each for each in await made.dump() if each.startswith(keys.PAST)]


@virtual
async def test_too_much_leaves_before_it_is_old() -> None:
    archive = MemoryArchive()
    async with historic(archive, archive_count=10, archive_age_s=DAY) as made:
        await made.found("ada")
        await made.enrol("uma")
        for _ in range(60):
            id = (await made.submit("uma")).processid
            await made.call(CancelProcess(processid=id), UMA)
        await asyncio.sleep(15)
        await settle()
        assert sum(made.colony.closed) == 10
        assert sum(made.colony.ended) == 60


@virtual
async def test_while_the_archive_is_away_live_work_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        history = History(made)
        await history.make()
        await moved_all(made, archive)
        archive.is_away = True
        asked = archive.asked
        process = await made.submit("uma")
        assert (await made.assign("ada")).processid == process.processid
        await made.call(AddLog(processid=process.processid, message="x"), ADA)
        await made.call(attribute_of(process.processid), ADA)
        assert (await made.get("uma", process.processid)).state == State.RUNNING
        await made.close("ada", process.processid)
        assert (await made.get("uma", process.processid)).state == State.SUCCESS
        graph = await made.submit_workflow("uma", {"a": [], "b": ["a"]})
        for id in graph.processids:
            assert (await made.assign("ada")).processid == id
            await made.close("ada", id)
        assert archive.asked == asked
        refused = await made.refuse(GetProcess(processid=history.lone[0]), UMA)
        assert refused.failure.status == 503
        assert "history cannot be read now: the archive is away" in refused.failure.message
        await asyncio.sleep(700)
        assert [each.message for each in caplog.records].count(
            "history is not archived, trying again: history cannot be read now: the archive is away"
        ) == 1
        assert (await made.get("uma", process.processid)).state == State.SUCCESS
        archive.is_away = False
        await moved_all(made, archive)
        await history.count()


@virtual
async def test_a_store_knows_its_archive() -> None:
    async with MemoryStore() as store:
        async with historic(MemoryArchive("one"), store):
            pass
        with pytest.raises(StoreError, match="archive one, but --archive leads to two"):
            async with historic(MemoryArchive("two"), store):
                pass
        with pytest.raises(StoreError, match=r"m/archive says .* archive one: give its address"):
            async with historic(None, store):
                pass
        async with historic(MemoryArchive("one"), store):
            pass


@virtual
async def test_an_archive_of_one_machine_is_refused_to_several_nodes() -> None:
    async with MemoryStore() as store:
        store.is_shared = True
        await store.commit([Guard(keys.node("other"), 0)], [Put(keys.node("other"), b"x")])
        with pytest.raises(StoreError, match=r"other nodes: other.*PostgreSQL: --archive"):
            async with historic(MemoryArchive(), store):
                pass


@virtual
async def test_log_lines_of_executors_move_by_age() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        await made.found("ada", "ben")
        for turn in range(70):
            for name in ("ada", "ben"):
                line = AddExecutorLog(colonyname=COLONY, executorname=name, message=f"line {turn}")
                await made.call(line, key(name))
        wanted = GetLogs(colonyname=COLONY, executorname="ben", count=100)
        before = await made.call(wanted, ADA)
        await asyncio.sleep(1_000)
        await settle()
        assert not [each for each in await made.dump() if each.startswith(keys.LOG)]
        await made.call(
            AddExecutorLog(colonyname=COLONY, executorname="ben", message="young"), key("ben")
        )
        assert (await made.call(wanted, ADA))[:-1] == before


def test_a_batch_fits_a_commit() -> None:
    assert archiving.BATCH * 3 < 127


@pytest.mark.parametrize(
    ("kept", "mean", "surplus"), [(10, 0, 0), (101, 0, 1), (100, 11, 10), (100, 10, 0)]
)
def test_too_much_is_a_number_or_a_size(kept: int, mean: int, surplus: int) -> None:
    assert Policy(count=100, bytes=1_000 if mean else 10**9).surplus(kept, mean) == surplus
