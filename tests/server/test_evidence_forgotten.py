"""Evidence goes to the archive, and is forgotten by age; what is told stays whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_protocol.audit import FIRST_K, GetAudit
from colonist_server.repo import checkpoints, forgetting, keys
from tests.server.history import History, historic
from tests.server.people import World
from tests.support.audit import Export, exported
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import COLONY, COLONY_OWNER, key, settle

ADA = key("ada")
AGE_S = 3_600.0
EVIDENCE = (keys.CHECKPOINT, keys.REMOVED)


def stored(made: World) -> list[bytes]:
    store: Any = made.rooms.writes.store
    return [each for each in store._items if each.startswith(EVIDENCE)]


def forgotten_of(export: Export, made: World) -> list[int]:
    chain = export.chains[made.colony.tag.hex().ljust(64, "0")]
    return [line.attempt for line, _ in chain if line.what == "history_forgotten"]


async def some_hours(made: World, hours: int) -> None:
    for _ in range(hours * 2):
        id = (await made.submit("uma", priority=1)).processid
        assert (await made.assign("ada")).processid == id
        await made.close("ada", id)
        await asyncio.sleep(1_800)


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_what_retention_forgets_it_forgets_whole(is_archived: bool) -> None:
    archive = MemoryArchive() if is_archived else None
    async with historic(archive, retention_age_s=AGE_S) as made:
        history = History(made)
        await history.make()
        waiting = (await made.submit("uma", executortype="nobody")).processid
        await some_hours(made, 8)
        export = await exported(made, size=2_000)
        export.check()
        ks = [checkpoint.k for _, checkpoint in export.checkpoints]
        assert ks[0] > FIRST_K
        assert ks[0] - 1 in forgotten_of(export, made)
        assert waiting in export.chains
        assert not set(history.lone) & set(export.chains)
        gone = [chain for chain, entries in export.chains.items() if len(entries) == 1]
        assert len([each for each in gone if each != waiting]) <= 5
        rows = archive.rows if archive is not None else {}
        left = [each for each in (*stored(made), *rows) if each.startswith(EVIDENCE)]
        assert len(left) < 30 < ks[-1]
        export.verify()


@virtual
async def test_a_store_with_a_count_for_retention_does_not_grow() -> None:
    async with historic(None, retention_count=4) as made:
        await made.found("ada")
        await made.enrol("uma")
        sizes: list[int] = []
        for _ in range(4):
            await some_hours(made, 6)
            sizes.append(len(stored(made)))
            (await exported(made)).check()
        assert sizes[-1] <= sizes[1] + 2


@virtual
async def test_the_archive_takes_old_evidence() -> None:
    archive = MemoryArchive()
    async with historic(archive, retention_age_s=4 * AGE_S) as made:
        history = History(made)
        await history.make()
        await some_hours(made, 6)
        before = await exported(made)
        before.check()
        prefix = keys.checkpoints(made.colony.tag)
        assert len([each for each in archive.rows if each.startswith(prefix)]) > 10
        assert [each for each in archive.rows if each.startswith(keys.REMOVED)]
        assert len(stored(made)) <= 2


@virtual
async def test_an_export_over_a_moment_of_forgetting_is_begun_anew() -> None:
    async with historic(None, retention_age_s=AGE_S) as made:
        history = History(made)
        await history.make()
        page = await made.call(GetAudit(colonyname=COLONY, size=1), COLONY_OWNER)
        await some_hours(made, 8)
        again = GetAudit(colonyname=COLONY, cursor=page["cursor"], size=1)
        refused = await made.refuse(again, COLONY_OWNER)
        assert refused.failure.code == "invalid_value"
        assert "forgotten" in refused.failure.message


@pytest.mark.parametrize("at", range(0, 24, 3))
@virtual
async def test_forgetting_is_finished_wherever_it_stops(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_HEADS", 3)
    monkeypatch.setattr(forgetting, "_AT_ONCE", 2)
    delete = forgetting.Forgetting.delete
    left = at

    async def stop(self: forgetting.Forgetting, items: Any) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise RuntimeError("it stopped here")
        await delete(self, items)

    monkeypatch.setattr(forgetting.Forgetting, "delete", stop)
    async with historic(None, retention_age_s=AGE_S) as made:
        history = History(made)
        await history.make()
        made.rooms.view.on_closed.clear()
        while left >= 0:
            await some_hours(made, 1)
            await settle()
        (await exported(made)).check()
        await some_hours(made, 3)
        export = await exported(made)
        export.check()
        assert export.checkpoints[0][1].k - 1 in forgotten_of(export, made)
        export.verify()


@virtual
async def test_a_colony_in_which_something_happens_all_the_time_forgets_too() -> None:
    async with historic(None, retention_age_s=20.0) as made:
        await made.found("ada")
        await made.enrol("uma")
        for _ in range(1_000):
            await asyncio.sleep(0.1)
            await made.submit("uma")
        export = await exported(made)
        export.check(is_covered=False)
        assert export.checkpoints[0][1].k > FIRST_K
