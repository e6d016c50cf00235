"""A store that came back as a copy: after `begin_another` nothing sealed before has an effect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from colonist_protocol.process import GetProcesses, State, SubmitFunctionSpec
from colonist_server.backup.era import begin_another
from colonist_server.backup.form import BackupError
from colonist_server.repo import keys
from colonist_server.repo.records import SCHEMA, EpochRecord, decode_epoch, encode
from colonist_server.store.interface import Guard, Item, Op, Put, Revision
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Bench, bench, key, settle, spec

ADA = key("ada")
DAY_S = 86_400
SCHEMA_NOW = Put(keys.SCHEMA, str(SCHEMA).encode())
SECOND = Put(keys.EPOCH, encode(EpochRecord(8, b"late", 3)))


async def copy(items: Sequence[Item], store: MemoryStore) -> None:
    """As `etcdctl snapshot restore` does it, or `cp`: all, and nothing else."""
    for item in items:
        assert await store.commit([Guard(item.key, 0)], [Put(item.key, item.value)])


async def put(store: MemoryStore, *ops: Put) -> None:
    assert await store.commit([Guard(op.key, 0) for op in ops], ops)


async def waiting(made: Bench) -> object:
    """The processes that somebody may be granted."""
    return await made.call(GetProcesses(colonyname=COLONY, state=State.WAITING, count=9), ADA)


async def epoch(store: MemoryStore) -> EpochRecord:
    item = await store.get(keys.EPOCH)
    assert item is not None
    return decode_epoch(item.value)


@pytest.mark.parametrize("is_shared", [False, True])
@virtual
async def test_captured_submit_has_no_effect_on_a_copied_store(*, is_shared: bool) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        store.is_shared = other.is_shared = is_shared
        async with bench(store) as made:
            await made.found("ada")
            items = store.under(b"")
            captured = sealing.of_now(
                made.dispatch, SubmitFunctionSpec(spec=spec()), ADA, ttl=DAY_S
            )
            assert (await sealing.present(made.dispatch, captured))[1].ok
        await copy([item for item in items if not item.key.startswith(keys.NODE)], other)
        was = await epoch(other)
        assert await begin_another(other) == was.n
        assert (await epoch(other)).since_n == was.since_n
        async with bench(other) as made:
            assert made.rooms.epochs.era not in ("", was.era.hex())
            await asyncio.sleep(3_600)
            assert made.rooms.epochs.n >= was.n
            answer = await made.dispatch.answer(captured.body)
            assert answer.status == 412
            assert await waiting(made) == []


@virtual
async def test_servers_at_work_take_the_new_era_up_at_once() -> None:
    async with MemoryStore() as store, bench(store) as made:
        await made.found("ada")
        before, was = made.rooms.epochs.n, made.rooms.epochs.era
        sent = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), ADA, ttl=DAY_S)
        await begin_another(store)
        await settle()
        assert made.rooms.epochs.era not in ("", was)
        assert (await made.dispatch.answer(sent.body)).status == 412
        anew = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), ADA)
        assert (await sealing.present(made.dispatch, anew))[1].ok
        assert made.rooms.epochs.n == before


@virtual
async def test_store_of_nobody_or_half_restored_is_refused() -> None:
    async with MemoryStore() as store:
        with pytest.raises(BackupError, match="no server of this version"):
            await begin_another(store)
        await put(store, SCHEMA_NOW, Put(keys.RESTORING, b""))
        with pytest.raises(BackupError, match="not finished"):
            await begin_another(store)


@virtual
async def test_store_without_a_minute_gets_its_first_from_the_server() -> None:
    async with MemoryStore() as store:
        await put(store, SCHEMA_NOW)
        assert await begin_another(store) == 0
        assert await store.get(keys.EPOCH) is None


@virtual
async def test_minute_that_goes_on_meanwhile_is_kept() -> None:
    class Late(MemoryStore):
        is_late = False

        async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
            if self.is_late:
                self.is_late = False
                item = await self.get(keys.EPOCH)
                assert item is not None
                await super().commit([Guard(item.key, item.modified)], [SECOND])
            return await super().commit(guards, ops)

    async with Late() as store:
        await put(store, SCHEMA_NOW, Put(keys.EPOCH, encode(EpochRecord(7, b"once"))))
        store.is_late = True
        assert await begin_another(store) == 8
        record = await epoch(store)
        assert (record.n, record.since_n) == (8, 3)
        assert record.era not in (b"once", b"late")


@virtual
async def test_minute_that_cannot_be_read_is_told_with_the_remedy() -> None:
    async with MemoryStore() as store:
        await put(store, SCHEMA_NOW, Put(keys.EPOCH, b"\xc1"))
        with pytest.raises(BackupError, match=r"not readable.* colonist store drop raw:6d65"):
            await begin_another(store)
