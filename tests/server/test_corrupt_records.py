"""Records that cannot be read: the server starts and goes on with everything else."""

from __future__ import annotations

import pytest

from colonist_protocol.process import State
from colonist_server.backup.check import check
from colonist_server.repo import keys
from colonist_server.repo.records import decode_colony
from colonist_server.repo.soundness import fault, key_of, key_text
from colonist_server.store.interface import Guard, Item, Put
from tests.server.people import World, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Refused, settle

RUBBISH = b"\xc1 no msgpack"
KINDS = [
    keys.LIVE, keys.CLOSED, keys.BIRTH, keys.ENDED, keys.EXECUTOR, keys.USER, keys.FUNCTION,
    keys.WORKFLOW, keys.SHAPE, keys.GENERATOR, keys.CRON, keys.ATTRIBUTE, keys.LOG, keys.CHANGES,
    keys.HEARD, keys.OWNER,
]  # fmt: skip


async def corrupt(store: MemoryStore, prefix: bytes) -> bytes:
    """Spoil the first record of a kind that does not belong to whom the tests need."""
    found = [i for i in store.under(prefix) if not i.key.endswith((b"/ada", b"/uma"))]
    name, before = (found[0].key, found[0].modified) if found else (prefix, 0)
    assert await store.commit([Guard(name, before)], [Put(name, RUBBISH)])
    return name


async def others_work(made: World) -> None:
    """Work that has nothing to do with what is spoilt."""
    id = (await made.submit("uma", priority=10)).processid
    assert (await made.assign("ada")).processid == id
    await made.close("ada", id)
    assert (await made.read(id)).state == State.SUCCESS


async def populated(store: MemoryStore) -> None:
    async with world(store) as made:
        await made.populate()
        await made.employ()
        await made.weave()
        await made.rooms.functions.fold()


@pytest.mark.parametrize("prefix", KINDS, ids=lambda prefix: prefix.decode())
@virtual
async def test_server_starts_with_it_and_others_work_goes_on(prefix: bytes) -> None:
    async with MemoryStore() as store:
        await populated(store)
        name = await corrupt(store, prefix)
        report = await check(store)
        assert key_text(name) in [each.key for each in report.problems]
        async with world(store) as made:
            await settle(400)
            await others_work(made)


@pytest.mark.parametrize("prefix", KINDS, ids=lambda prefix: prefix.decode())
@virtual
async def test_server_that_sees_it_come_goes_on(prefix: bytes) -> None:
    async with MemoryStore() as store:
        await populated(store)
        async with world(store) as made:
            await corrupt(store, prefix)
            await settle(400)
            await others_work(made)


@virtual
async def test_process_of_a_corrupt_record_is_neither_served_nor_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MemoryStore() as store, world(store) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        name = keys.live(bytes.fromhex(id))
        item = await store.get(name)
        assert item is not None
        revision = await store.commit([Guard(name, item.modified)], [Put(name, RUBBISH)])
        assert revision is not None
        await settle()
        assert name in made.rooms.view.corrupt
        assert key_text(name) in made.rooms.view.corrupt_note()
        assert caplog.text.count(f"colonist store drop {key_text(name)}") == 1
        for call in (made.read(id), made.assign("ada", timeout=1)):
            with pytest.raises(Refused) as refused:
                await call
            assert refused.value.failure.code in ("corrupt_record", "no_process")
        with pytest.raises(Refused, match="corrupt_record"):
            await made.read(id)
        assert await store.commit([Guard(name, revision)], [Put(name, item.value)])
        await settle()
        assert not made.rooms.view.corrupt
        assert (await made.assign("ada")).processid == id


def _is_needed(item: Item) -> bool:
    if item.key.startswith(keys.COLONY):
        return decode_colony(item.value).name == COLONY
    return item.key.endswith((b"/ada", b"/uma"))


@pytest.mark.parametrize("prefix", [keys.USER, keys.EXECUTOR, keys.COLONY])
@virtual
async def test_member_of_a_corrupt_record_is_not_told_to_be_a_stranger(prefix: bytes) -> None:
    async with MemoryStore() as store:
        await populated(store)
        [name] = [i.key for i in store.under(prefix) if _is_needed(i)]
        item = await store.get(name)
        assert item is not None
        assert await store.commit([Guard(name, item.modified)], [Put(name, RUBBISH)])
        async with world(store) as made:
            call = made.assign("ada") if prefix == keys.EXECUTOR else made.submit("uma")
            with pytest.raises(Refused, match="corrupt_record"):
                await call


@virtual
async def test_owner_that_cannot_be_read_is_nobody() -> None:
    async with MemoryStore() as store, world(store) as made:
        await made.populate()
        await corrupt(store, keys.OWNER)
        await settle()
        with pytest.raises(Refused, match="corrupt_record"):
            await made.settle_other()


@virtual
async def test_a_sound_store_has_no_problems_and_every_key_can_be_typed() -> None:
    async with MemoryStore() as store:
        await populated(store)
        assert (await check(store)).problems == []
        for item in store.under(b""):
            assert fault(item.key, item.value) == ""
            assert key_of(key_text(item.key)) == item.key
