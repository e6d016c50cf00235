"""Backup and restore: what a server had, another one has, whatever store it is on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from colonist_protocol.function import GetFunctions
from colonist_protocol.generator import GetGenerator, PackGenerator
from colonist_protocol.process import State
from colonist_server.archive.interface import Row
from colonist_server.archive.sql import SqlArchive
from colonist_server.backup.form import BackupError
from colonist_server.backup.origin import FileOrigin, StoreOrigin
from colonist_server.backup.reader import BackupReader
from colonist_server.backup.restore import Restored, restore
from colonist_server.backup.save import Destination, Saved, save
from colonist_server.repo import keys
from colonist_server.repo.records import EpochRecord, decode_epoch, encode
from colonist_server.store.interface import Guard, Op, Put, Revision, Store, UnavailableError
from tests.server.people import World, function_of, world
from tests.support.clock import virtual
from tests.support.generators import add as add_generator
from tests.support.generators import given, idle
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, key, settle

ADA, UMA = key("ada"), key("uma")
NODES = (b"n/", b"nl", b"nh/", b"m/running")


@pytest.fixture(autouse=True)
def _without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time does not wait for threads."""

    async def at_once(work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        return work(*args, **named)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


async def back_up(store: Store, path: Path) -> Saved:
    return await save(store, None, Destination(path, "0.1.0", 1))


async def bring_back(path: Path, store: Store) -> Restored:
    return await restore(FileOrigin(BackupReader(path)), store)


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def lasting(store: MemoryStore) -> dict[bytes, bytes]:
    """What a backup has to keep; tallies are looked at by themselves. Of the minute, the count."""
    return {
        item.key: item.value
        if item.key != keys.EPOCH
        else decode_epoch(item.value).n.to_bytes(4, "big")
        for item in store.under(b"")
        if not item.key.startswith((*NODES, keys.FUNCTION))
    }


async def shown(made: World) -> dict[str, Any]:
    """All that members can read."""
    functions = await made.call(GetFunctions(colonyname=COLONY), UMA)
    lists = {state: await made.list(state) for state in State}
    processes = {id: await made.read(id) for ids in lists.values() for id in ids}
    return {
        "statistics": await made.statistics(),
        "functions": functions,
        "lists": lists,
        "processes": processes,
        "generator": await made.call(GetGenerator(generatorid=made.generator), UMA),
        "graphs": [await made.graph("ada", id) for id in (made.workflow, made.idle)],
    }


async def busy(store: MemoryStore) -> dict[str, Any]:
    """A server with everything in it; what its members read at the end."""
    async with world(store, tallies_every_s=1e6) as made:
        await made.populate()
        await made.employ()
        for number in range(7):
            id = (await made.submit("uma", priority=1)).processid
            await asyncio.sleep(number / 8)
            await made.assign("ada")
            await asyncio.sleep(0.5)
            await made.close("ada", id)
            if number == 3:
                await made.rooms.functions.fold()
        await made.weave()
        await settle()
        return await shown(made)


def _borrow(made: World, other: World) -> None:
    made.__dict__.update({k: v for k, v in other.__dict__.items() if isinstance(v, str)})


@virtual
async def test_restored_server_shows_what_the_other_did(tmp_path: Path) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        async with world(store, tallies_every_s=1e6) as made:
            await made.populate()
            await made.employ()
            for number in range(7):
                id = (await made.submit("uma", priority=1)).processid
                await asyncio.sleep(number / 8)
                await made.assign("ada")
                await asyncio.sleep(0.5)
                await made.close("ada", id)
                if number == 3:
                    await made.rooms.functions.fold()
            await made.weave()
            await settle()
            before = await shown(made)
            saved = await back_up(store, tmp_path / "b")  # while the server goes on
            kept = lasting(store)
            restored = await bring_back(tmp_path / "b", other)
        assert saved.items == restored.items == len(kept) + len(other.under(keys.FUNCTION))
        assert lasting(other) == kept
        assert other.revision != store.revision
        async with world(other) as again:
            _borrow(again, made)
            assert await shown(again) == before
            [function] = before["functions"]
            assert function["counter"] == 7
            # and goes on from there
            id = (await again.submit("uma", priority=1)).processid
            await again.assign("ada")
            await again.close("ada", id)
            [function] = await again.call(GetFunctions(colonyname=COLONY), UMA)
            assert function["counter"] == 8


@virtual
async def test_tallies_that_no_server_has_stored_are_counted_over_a_second_restart(
    tmp_path: Path,
) -> None:
    """The revision up to which a tally counts must be one of the new store."""
    async with MemoryStore() as store, MemoryStore() as other:
        for number in range(500):  # so that revisions of the old store mean the wrong thing
            assert await store.commit([Guard(b"q%d" % number, 0)], [Put(b"q%d" % number, b"")])
        async with world(store, tallies_every_s=1e6) as made:
            await made.populate()
            await made.call(function_of("ada"), ADA)
            for _ in range(5):
                await made.submit("uma")
                await made.close("ada", (await made.assign("ada")).processid)
            await back_up(store, tmp_path / "b")
        await bring_back(tmp_path / "b", other)
        for more in range(3):
            async with world(other, tallies_every_s=1e6) as again:
                [function] = await again.call(GetFunctions(colonyname=COLONY), UMA)
                assert function["counter"] == 5 + more
                await again.submit("uma")
                await again.close("ada", (await again.assign("ada")).processid)


@virtual
async def test_arguments_keep_the_order_in_which_they_arrived(tmp_path: Path) -> None:
    """Their keys are of when they were packed, which on several nodes may be another order."""
    order = [f"{n}" for n in range(300)]
    async with MemoryStore() as store, MemoryStore() as other:
        async with world(store) as made:
            await made.populate()
            id = await add_generator(made, UMA, trigger=len(order))
            rng = random.Random(1)
            for text in order[:-1]:
                suffix = keys.argument_suffix(rng.randrange(2**60), rng.randbytes(8))
                name = keys.argument(bytes.fromhex(id), suffix)
                revision = await store.commit(
                    [Guard(name, 0)], [Put(name, b'"%s"' % text.encode())]
                )
                assert revision is not None
            await settle()
            await back_up(store, tmp_path / "b")
        await bring_back(tmp_path / "b", other)
        async with world(other) as again:
            await again.call(PackGenerator(generatorid=id, arg=order[-1]), ADA)
            await idle()
            assert given(other) == [order]


@virtual
async def test_work_is_given_out_in_the_same_order(tmp_path: Path) -> None:
    rng = random.Random(2)
    async with MemoryStore() as store, MemoryStore() as other:
        async with world(store) as made:
            await made.populate()
            for _ in range(40):
                await made.submit("uma", priority=rng.randrange(3))
            await back_up(store, tmp_path / "b")
            before = [(await made.assign("ada")).processid for _ in range(40)]
        await bring_back(tmp_path / "b", other)
        async with world(other) as again:
            assert [(await again.assign("ada")).processid for _ in range(40)] == before


@virtual
async def test_backup_beside_a_busy_server_is_one_moment(tmp_path: Path) -> None:
    async with MemoryStore() as store, MemoryStore() as other, world(store) as made:
        await made.populate()
        for _ in range(600):  # two pages and more
            await made.submit("uma")

        async def work() -> None:
            while True:
                await made.close("ada", (await made.assign("ada")).processid)

        async with asyncio.TaskGroup() as group:
            working = group.create_task(work())
            await asyncio.sleep(0)
            await back_up(store, tmp_path / "b")
            working.cancel()
        await bring_back(tmp_path / "b", other)
        async with world(other) as again:
            counts = await again.statistics()
            assert (
                counts["waitingprocesses"]
                + counts["successfulprocesses"]
                + counts["runningprocesses"]
                == 600
            )


# -- what is refused


@virtual
async def test_store_in_use_is_not_restored_into(tmp_path: Path) -> None:
    async with MemoryStore() as store:
        await busy(store)
        await back_up(store, tmp_path / "b")
        before = store.under(b"")
        with pytest.raises(BackupError, match="not empty"):
            await bring_back(tmp_path / "b", store)
        assert store.under(b"") == before


@virtual
async def test_store_on_which_a_server_was_only_started_is_empty(tmp_path: Path) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        await busy(store)
        await back_up(store, tmp_path / "b")
        async with world(other):
            pass
        await bring_back(tmp_path / "b", other)
        assert lasting(other) == lasting(store)


@virtual
async def test_shared_store_with_a_server_at_work_is_not_restored_into(tmp_path: Path) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        await busy(store)
        await back_up(store, tmp_path / "b")
        other.is_shared = True
        name = keys.node("north")
        assert await other.commit([Guard(name, 0)], [Put(name, b"", await other.lease(100))])
        with pytest.raises(BackupError, match=r"at work on the store.*north"):
            await bring_back(tmp_path / "b", other)
        assert [item.key for item in other.under(b"")] == [name]


@virtual
async def test_damaged_file_changes_nothing(tmp_path: Path) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        await busy(store)
        path = tmp_path / "b"
        await back_up(store, path)
        data = bytearray(path.read_bytes())
        data[-40] ^= 1  # all of its items can be read
        path.write_bytes(data)
        with pytest.raises(BackupError, match="at byte"):
            await bring_back(path, other)
        assert other.under(b"") == []


@virtual
async def test_store_without_anything_is_not_saved(tmp_path: Path) -> None:
    async with MemoryStore() as store:
        with pytest.raises(BackupError, match="no Colonist state"):
            await back_up(store, tmp_path / "b")
    assert files(tmp_path) == []


@virtual
async def test_store_of_another_schema_is_not_saved(tmp_path: Path) -> None:
    async with MemoryStore() as store:
        await store.commit([Guard(keys.SCHEMA, 0)], [Put(keys.SCHEMA, b"99")])
        with pytest.raises(BackupError, match=r"schema '99'.*use the version"):
            await back_up(store, tmp_path / "b")
    assert files(tmp_path) == []


# -- restores that do not come to their end


class DyingStore(MemoryStore):
    """Refuses every commit after some; `eats`: the commits it loses though it answers them."""

    def __init__(self, left: int, eats: bytes = b"") -> None:
        super().__init__()
        self.left = left
        self.eats = eats

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        self.left -= 1
        if self.left < 0:
            raise UnavailableError("died")
        if self.eats:
            ops = [op for op in ops if not op[0].startswith(self.eats)]
            guards = [guard for guard in guards if not guard.key.startswith(self.eats)]
        if not ops:
            return self.revision
        return await super().commit(guards, ops)


@virtual
async def test_restore_that_was_cut_off_keeps_servers_away_and_is_begun_anew(
    tmp_path: Path,
) -> None:
    async with MemoryStore() as store, MemoryStore() as probe:
        await busy(store)
        await back_up(store, tmp_path / "b")
        await bring_back(tmp_path / "b", probe)
        commits = probe.revision
    for left in range(commits):
        async with DyingStore(left) as other:
            with pytest.raises(UnavailableError):
                await bring_back(tmp_path / "b", other)
            if left:
                with pytest.raises(Exception, match="repeat `colonist restore`"):
                    async with world(other):
                        pass
                with pytest.raises(BackupError, match="not finished"):
                    await back_up(other, tmp_path / "c")
            other.left = 10**6
            await bring_back(tmp_path / "b", other)
            assert lasting(other) == lasting(store)
            async with world(other):
                pass


@pytest.mark.parametrize("eaten", [b"p/", b"y/", b"z/", b"f/", b"ga/", b"wg/"])
@virtual
async def test_what_was_lost_on_the_way_is_noticed(tmp_path: Path, eaten: bytes) -> None:
    async with MemoryStore() as store, DyingStore(10**6, eaten) as other:
        async with world(store) as made:
            await made.populate()
            await made.employ()
            await made.weave()
            await made.call(PackGenerator(generatorid=made.generator, arg="x"), ADA)
            await back_up(store, tmp_path / "b")
        with pytest.raises(BackupError, match="restore again"):
            await bring_back(tmp_path / "b", other)
        assert await other.get(keys.RESTORING) is not None
        other.eats = b""
        await bring_back(tmp_path / "b", other)
        assert lasting(other) == lasting(store)


@virtual
async def test_of_two_restores_at_once_one_succeeds(tmp_path: Path) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        await busy(store)
        await back_up(store, tmp_path / "b")
        results = await asyncio.gather(
            *(bring_back(tmp_path / "b", other) for _ in range(2)), return_exceptions=True
        )
        assert len([each for each in results if isinstance(each, Restored)]) <= 1
        assert any(isinstance(each, BackupError) for each in results)
        if not any(isinstance(each, Restored) for each in results):
            await bring_back(tmp_path / "b", other)
        assert lasting(other) == lasting(store)


@virtual
async def test_migration_needs_no_file() -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        await busy(store)
        await restore(StoreOrigin(store), other)
        assert lasting(other) == lasting(store)
        async with world(other):
            pass


async def test_archive_goes_with_its_store(tmp_path: Path) -> None:
    rows = [Row(b"z/%04d" % n, b"v" * n) for n in range(1_500)]
    async with (
        await SqlArchive.open(f"sqlite:{tmp_path / 'old.db'}") as old,
        await SqlArchive.open(f"sqlite:{tmp_path / 'new.db'}") as new,
        MemoryStore() as store,
        MemoryStore() as other,
    ):
        await old.put(rows)
        marks = [Put(keys.SCHEMA, b"1"), Put(keys.ARCHIVE, old.identity.encode())]
        assert await store.commit([Guard(keys.SCHEMA, 0)], marks)
        with pytest.raises(BackupError, match="--archive"):
            await back_up(store, tmp_path / "b")
        with pytest.raises(BackupError, match="this is another"):
            await save(store, new, Destination(tmp_path / "b", "0.1.0", 1))
        saved = await save(store, old, Destination(tmp_path / "b", "0.1.0", 1))
        assert saved.rows == len(rows)
        with pytest.raises(BackupError, match="--archive"):
            await bring_back(tmp_path / "b", other)
        with pytest.raises(BackupError, match="archive is not empty"):
            await restore(FileOrigin(BackupReader(tmp_path / "b")), other, old)
        assert other.under(b"") == []
        await restore(FileOrigin(BackupReader(tmp_path / "b")), other, new)
        assert (await new.range(b"")).rows == rows
        assert new.identity == old.identity
        assert lasting(other) == lasting(store)


@virtual
async def test_restored_server_counts_on_in_an_era_of_its_own(tmp_path: Path) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        async with world(store) as made:
            era = made.rooms.epochs.era
        ahead = EpochRecord(2_000_000_000, bytes.fromhex(era))
        was = await store.get(keys.EPOCH)
        assert was is not None
        guard = Guard(keys.EPOCH, was.modified)
        assert await store.commit([guard], [Put(keys.EPOCH, encode(ahead))])
        record = keys.sealed(ahead.n + 5, b"d" * 32, 0)
        assert await store.commit([Guard(record, 0)], [Put(record, b"made")])
        await back_up(store, tmp_path / "b")
        await bring_back(tmp_path / "b", other)
        assert (await other.get(record)) is not None
        async with world(other) as made:
            epochs = made.rooms.epochs
            assert epochs.n == ahead.n + 1
            assert epochs.era not in ("", era)
            assert epochs.token
