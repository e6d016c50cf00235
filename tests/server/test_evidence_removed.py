"""A removed process leaves the end of its chain: an export shows that it was removed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from colonist_protocol.audit import REMOVED
from colonist_protocol.message import Message
from colonist_protocol.process import RemoveAllProcesses, RemoveProcess
from colonist_protocol.workflow import RemoveAllProcessGraphs, RemoveProcessGraph
from colonist_server.backup.check import check as check_store
from colonist_server.repo import audit, keys, removed
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.records import WorkflowState, decode_workflow
from colonist_server.store.interface import Delete, Guard, Op, Put, Revision, UnavailableError
from tests.server.history import History, historic
from tests.server.people import World
from tests.support.audit import Export, exported
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import COLONY, COLONY_OWNER, Refused, key, settle

UMA = key("uma")
SOON_S = 11.0


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_LISTED", 3)


async def made_history(made: World, *, is_archived: bool) -> tuple[History, Export]:
    history = History(made)
    await history.make()
    await made.submit("uma", priority=-9)
    await asyncio.sleep(400 if is_archived else SOON_S)
    await settle()
    return history, await exported(made)


def check_removed(before: Export, after: Export, gone: set[str], who: str) -> None:
    assert set(after.chains) == set(before.chains)
    for chain, entries in before.chains.items():
        if chain in gone:
            [(line, _)] = after.chains[chain]
            assert (line.what, line.n, line.who) == (REMOVED, len(entries), who)
        elif not chain.endswith("0" * 56):
            assert after.chains[chain] == entries


ALL: list[tuple[Message, bool]] = [
    (RemoveAllProcesses(colonyname=COLONY, state=-1), False),
    (RemoveAllProcessGraphs(colonyname=COLONY, state=-1), True),
]


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_what_is_removed_by_hand_names_who_did_it(is_archived: bool) -> None:
    archive = MemoryArchive() if is_archived else None
    async with historic(archive) as made:
        history, before = await made_history(made, is_archived=is_archived)
        one, graph = history.lone[1], history.graphs[1]
        await made.call(RemoveProcess(processid=one), UMA)
        await made.call(RemoveProcessGraph(processgraphid=graph), UMA)
        gone = {one, *(chain for chain in before.chains if chain[:56] == graph[:56])}
        assert len(gone) == 5
        await asyncio.sleep(SOON_S)
        after = await exported(made)
        after.check()
        check_removed(before, after, gone, UMA.id)
        store: Any = made.rooms.writes.store
        assert (await check_store(store)).problems == []


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize(("message", "of_graphs"), ALL, ids=["lone", "graphs"])
@virtual
async def test_all_that_are_removed_at_once_leave_their_ends(
    message: Message, of_graphs: bool, is_archived: bool
) -> None:
    archive = MemoryArchive() if is_archived else None
    async with historic(archive) as made:
        history, before = await made_history(made, is_archived=is_archived)
        await made.call(message, COLONY_OWNER)
        graphs = {graph[:56] for graph in history.graphs}
        own = made.colony.tag.hex().ljust(64, "0")
        lone = {chain for chain in before.chains if chain[:56] not in graphs} - {own}
        members = {chain for chain in before.chains if chain[:56] in graphs}
        gone = members if of_graphs else lone
        await asyncio.sleep(SOON_S)
        after = await exported(made)
        after.check()
        check_removed(before, after, gone, COLONY_OWNER.id)


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_what_retention_removes_is_removed_by_the_server(is_archived: bool) -> None:
    archive = MemoryArchive() if is_archived else None
    async with historic(archive, retention_age_s=600.0) as made:
        _, before = await made_history(made, is_archived=is_archived)
        await asyncio.sleep(700)
        after = await exported(made)
        after.check()
        gone = {
            chain
            for chain, entries in before.chains.items()
            if entries[-1].line.what in ("succeeded", "failed", "cancelled", "parent_failed")
        }
        check_removed(before, after, gone, "")


@virtual
async def test_what_was_never_opened_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fits(*_: object) -> bool:
        return False

    monkeypatch.setattr(NewWorkflow, "fits", fits)
    async with historic(None) as made:
        await made.found("ada")
        await made.enrol("uma")
        store: Any = made.rooms.writes.store
        commit = store.commit

        async def stop(guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
            put = ops[0]
            assert isinstance(put, Put | Delete)
            head = put.value if isinstance(put, Put) and put.key.startswith(keys.WORKFLOW) else b""
            if head and decode_workflow(head).state == WorkflowState.OPEN:
                raise UnavailableError("just now")
            return await commit(guards, ops)

        monkeypatch.setattr(store, "commit", stop)
        with pytest.raises(Refused):
            await made.submit_workflow("uma", {"a": [], "b": ["a"]})
        assert [each for each in await made.dump() if each.startswith(keys.BIRTH)]
        await asyncio.sleep(200)
        stored = await made.dump()
        assert not [each for each in stored if each.startswith((keys.BIRTH, keys.REMOVED))]
        export = await exported(made)
        export.check()
        assert len(export.chains) == 1


@virtual
async def test_what_is_out_of_sight_and_not_yet_deleted_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave = removed.leave
    looked = 0

    async with historic(MemoryArchive()) as made:
        history, before = await made_history(made, is_archived=True)

        async def look(*given: Any) -> None:
            nonlocal looked
            looked += 1
            assert (await exported(made)).chains == before.chains
            await leave(*given)
            (await exported(made)).check(is_covered=False)

        monkeypatch.setattr(removed, "leave", look)
        await made.call(RemoveProcessGraph(processgraphid=history.graphs[0]), UMA)
        assert looked == 1


@pytest.mark.parametrize("start", range(3))
@virtual
async def test_an_export_in_the_middle_of_a_removal_misses_nothing(start: int, seed: int) -> None:
    chance = random.Random(start * 1_000 + seed)
    archive = MemoryArchive()
    async with historic(archive) as made:
        history, before = await made_history(made, is_archived=True)

        async def remove() -> None:
            for graph in history.graphs:
                await made.call(RemoveProcessGraph(processgraphid=graph), UMA)
            for id in history.lone:
                await made.call(RemoveProcess(processid=id), UMA)

        task = asyncio.create_task(remove())
        while not task.done():
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            export = await exported(made, size=chance.choice([1, 4_000, 0]))
            assert set(export.chains) >= set(before.chains)
            export.check(is_covered=False)
        await task
