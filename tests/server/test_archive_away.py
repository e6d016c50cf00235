"""A server whose archive cannot be reached at the start works, and compares it when it comes."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.colony import RemoveColony
from colonist_protocol.process import GetProcess, GetProcesses, State
from colonist_server.archive.interface import ArchiveUnavailableError
from colonist_server.repo import keys
from colonist_server.store.interface import Guard, Put, StoreError
from tests.server.history import UMA, History, historic
from tests.server.people import World
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, OWNER, settle

STARTED = "starting without the archive"


class Counted(MemoryArchive):
    """Knows when contact was tried, and what else was asked of it."""

    def __init__(self, identity: str = "memory", *, is_local: bool = False) -> None:
        super().__init__(identity, is_local=is_local)
        self.met: list[float] = []

    async def meet(self, *, may_make: bool) -> str:
        self.met.append(asyncio.get_running_loop().time())
        self.asked -= 1
        return await super().meet(may_make=may_make)


async def _archived(
    store: MemoryStore, archive: MemoryArchive
) -> tuple[History, dict[str, object]]:
    """A history, all of which is in the archive."""
    async with historic(archive, store) as made:
        history = History(made)
        await history.make()
        before = await history.read()
        await asyncio.sleep(400)
        assert made.colony.past.processes[State.SUCCESS]
        assert await history.read() == before
    return history, before


async def _work(made: World) -> str:
    process = await made.submit("uma")
    assert (await made.assign("ada")).processid == process.processid
    await made.close("ada", process.processid)
    assert (await made.get("uma", process.processid)).state == State.SUCCESS
    return process.processid


async def _refusals(made: World, history: History) -> str:
    """What is said where history is needed; the same wherever."""
    wanted = (
        GetProcess(processid=history.lone[0]),
        GetProcesses(colonyname=COLONY, state=State.SUCCESS, count=5),
    )
    failures = [(await made.refuse(message, UMA)).failure for message in wanted]
    assert {(each.status, each.code) for each in failures} == {(503, "unavailable")}
    said, *others = {each.message for each in failures}
    assert not others
    return said


@virtual
async def test_a_server_starts_without_its_archive_and_takes_it_up_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive = Counted()
    async with MemoryStore() as store:
        history, before = await _archived(store, archive)
        archive.is_away = True
        asked, rows = archive.asked, dict(archive.rows)
        async with historic(archive, store) as made:
            history.made = made
            began = asyncio.get_running_loop().time()
            id = await _work(made)
            assert "history cannot be read now: the archive is away" in await _refusals(
                made, history
            )
            assert not made.rooms.fault()
            assert made.rooms.note() == (
                "archive: not reached since the start, trying again: the archive is away"
            )
            await asyncio.sleep(700)
            assert (archive.asked, archive.rows) == (asked, rows)
            assert (made.colony.past.moving, sum(made.colony.closed)) == ((), 1)
            said = [each.message for each in caplog.records]
            assert sum(each.startswith(STARTED) for each in said) == 1
            assert not any("is not archived" in each for each in said)
            tries = [round(each - began) for each in archive.met if each > began][:8]
            assert tries == [1, 3, 7, 15, 31, 61, 91, 121]
            archive.is_away = False
            await asyncio.sleep(31)
            assert made.rooms.note() == made.rooms.fault() == ""
            assert (await made.get("uma", id)).processid == id
            await asyncio.sleep(10)
            await settle()
            assert sum(made.colony.closed) == 0
            await history.count()
            met = len(archive.met)
            await asyncio.sleep(100)
            assert len(archive.met) == met
            after = await history.read()
            single = [
                each for each in before if each.startswith(("GetProcess(", "GetProcessGraph("))
            ]
            assert len(single) == len(history.lone) + len(history.graphs)
            assert [after[each] for each in single] == [before[each] for each in single]


@virtual
async def test_the_first_archive_is_claimed_at_the_first_contact() -> None:
    archive = Counted()
    archive.is_away = True
    async with MemoryStore() as store, historic(archive, store) as made:
        await made.found("ada")
        await made.enrol("uma")
        await _work(made)
        assert await store.get(keys.ARCHIVE) is None
        archive.is_away = False
        await asyncio.sleep(2)
        claimed = await store.get(keys.ARCHIVE)
        assert claimed is not None
        assert claimed.value == b"memory"
        await asyncio.sleep(400)
        assert sum(made.colony.closed) == 0
        assert archive.rows


@virtual
async def test_another_archive_found_later_is_not_touched_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    right, archive = Counted(), Counted("other")
    archive.is_away = True
    async with MemoryStore() as store:
        history, _ = await _archived(store, right)
        async with historic(archive, store) as made:
            history.made = made
            await _work(made)
            archive.is_away = False
            await asyncio.sleep(700)
            told = (
                "m/archive says that this store's history is in the archive memory, but --archive "
                "leads to other: give the address of the first"
            )
            assert made.rooms.fault() == told
            assert made.rooms.note() == ""
            assert told in await _refusals(made, history)
            assert [each.message for each in caplog.records].count(
                f"the archive is not used: {told}"
            ) == 1
            await _work(made)
            archive.is_away = True  # that it is away now makes it no better
            await asyncio.sleep(60)
            assert made.rooms.fault() == told
            assert told in await _refusals(made, history)
            assert (archive.asked, archive.rows) == (0, {})
            archive.identity, archive.rows, archive.is_away = "memory", right.rows, False
            await asyncio.sleep(60)
            assert made.rooms.fault() == ""
            await history.count()


@virtual
async def test_a_database_that_is_not_restored_yet_is_waited_for_and_left_alone() -> None:
    """What has no identity where a store has one is not made into an archive."""
    right, archive = Counted(), Counted("")
    archive.is_away = True
    made_there: list[bool] = []
    meet = archive.meet

    async def noted(*, may_make: bool) -> str:
        made_there.append(may_make)
        return await meet(may_make=may_make)

    archive.meet = noted  # type: ignore[method-assign]  # of this test's own object
    async with MemoryStore() as store:
        history, _ = await _archived(store, right)
        async with historic(archive, store) as made:
            history.made = made
            archive.is_away = False
            await asyncio.sleep(60)
            assert "leads to a database without one" in made.rooms.fault()
            archive.identity, archive.rows = "memory", right.rows
            await asyncio.sleep(60)
            assert made.rooms.fault() == ""
            await history.count()
    assert set(made_there) == {False}


@virtual
async def test_a_node_local_archive_is_refused_to_several_nodes_even_while_it_is_away() -> None:
    archive = Counted(is_local=True)
    archive.is_away = True
    async with MemoryStore() as store:
        store.is_shared = True
        await store.commit([Guard(keys.node("other"), 0)], [Put(keys.node("other"), b"x")])
        with pytest.raises(StoreError, match=r"other nodes: other.*PostgreSQL: --archive"):
            async with historic(archive, store):
                pass


@virtual
async def test_a_file_that_never_was_an_archive_is_refused_at_the_start() -> None:
    archive = Counted(is_local=True)
    async with MemoryStore() as store:
        archive.is_away = True
        with pytest.raises(ArchiveUnavailableError):
            async with historic(archive, store):
                pass
        archive.is_away = False
        async with historic(archive, store):
            pass
        archive.is_away = True
        async with historic(archive, store) as made:
            assert "trying again" in made.rooms.note()


@virtual
async def test_a_colony_whose_removal_was_interrupted_is_swept_when_the_archive_comes() -> None:
    archive = Counted()
    async with MemoryStore() as store:
        await _archived(store, archive)
        async with historic(archive, store) as made:
            archive.is_away = True
            await made.call(RemoveColony(colonyname=COLONY), OWNER)
            assert archive.rows
        async with historic(archive, store):
            await settle()
            assert (await store.range(keys.REMAINS)).items
            archive.is_away = False
            await asyncio.sleep(40)
            await settle()
            assert archive.rows == {}
            assert not (await store.range(keys.REMAINS)).items
