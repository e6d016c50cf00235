"""No checkpoint names the end of a removed process that an earlier one named: it is forgotten with
the first. And none is left out, whatever the revisions of the store say."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from colonist_protocol.process import RemoveAllProcesses, RemoveProcess
from colonist_server.backup.era import begin_another
from colonist_server.loops import checkpoints as loop_of_checkpoints
from colonist_server.repo import checkpoints, ends, keys
from colonist_server.repo.checkpoints import Checkpoints, unpack
from colonist_server.repo.records import decode_checkpoint, decode_removed
from colonist_server.store.interface import Guard, Item, Put
from tests.server.history import historic
from tests.server.people import World, crashing, world
from tests.support.audit import exported
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, key

AGE_S = 7_200.0
SOON_S = 12.0


async def remove_one(made: World) -> None:
    id = (await made.submit("uma")).processid
    await asyncio.sleep(SOON_S)
    await made.call(RemoveProcess(processid=id), key("uma"))


def items_of(store: MemoryStore) -> dict[bytes, Item]:
    inside: Any = store
    return dict(inside._items)


def times_named(store: MemoryStore) -> list[int]:
    """How many checkpoints name each end that is stored."""
    items = items_of(store)
    named = Counter(
        (chain, n)
        for name, item in items.items()
        if name.startswith(keys.CHECKPOINT)
        for chain, n, _ in unpack(
            name[len(keys.CHECKPOINT) :][: keys.TAG_BYTES], decode_checkpoint(item.value).heads
        )
    )
    return [
        named[name[len(keys.REMOVED) :], decode_removed(item.value).n]
        for name, item in items.items()
        if name.startswith(keys.REMOVED)
    ]


def killed_before_part(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The part of a checkpoint, counted from now, that is never written."""
    kind: Any = Checkpoints
    write = kind._write_part
    left = number

    async def part(self: Checkpoints, *arguments: Any) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            await asyncio.Event().wait()
        is_done: bool = await write(self, *arguments)
        return is_done

    monkeypatch.setattr(kind, "_write_part", part)


@pytest.mark.parametrize("held", [1, 5_000])
@virtual
async def test_another_era_states_no_end_again(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "HELD", held)
    async with MemoryStore() as store:
        with monkeypatch.context() as patch:
            async with crashing(store, retention_age_s=AGE_S, stale_s=0.0) as made:
                await made.found("ada")
                await made.enrol("uma")
                await remove_one(made)
                await asyncio.sleep(AGE_S + 900)  # the next ones are of long after it
                await remove_one(made)
                await asyncio.sleep(SOON_S)
                killed_before_part(patch, 0)
                await remove_one(made)
                await asyncio.sleep(SOON_S)
        assert sorted(times_named(store)) == [0, 1, 1]
        await begin_another(store)
        async with historic(None, store, retention_age_s=AGE_S) as made:
            await asyncio.sleep(SOON_S)
            assert times_named(store) == [1, 1, 1]
            for _ in range(20):
                await asyncio.sleep(900)
                await made.submit("uma")
                await asyncio.sleep(SOON_S)
                (await exported(made)).check()
            assert times_named(store) == []


@virtual
async def test_a_server_that_was_killed_between_parts_states_no_end_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_HEADS", 3)
    async with MemoryStore() as store:
        with monkeypatch.context() as patch:
            async with crashing(store) as made:
                await made.found("ada")
                await made.enrol("uma")
                for _ in range(9):
                    await made.submit("uma")
                await asyncio.sleep(SOON_S)
                killed_before_part(patch, 2)
                await made.call(RemoveAllProcesses(colonyname=COLONY, state=0), COLONY_OWNER)
                await asyncio.sleep(SOON_S)
        assert sorted(times_named(store)) == [0] * 3 + [1] * 6
        async with world(store) as made:
            await asyncio.sleep(SOON_S)
            assert times_named(store) == [1] * 9
            (await exported(made)).check()


async def restored(store: MemoryStore, other: MemoryStore) -> None:
    """Another era, in which old revisions say nothing: what changed comes first."""
    items = items_of(store)
    for name in sorted(items, key=lambda name: not name.startswith(keys.LIVE)):
        if not name.startswith((b"n/", b"m/running", keys.EPOCH)):
            await other.commit([Guard(name, 0)], [Put(name, items[name].value)])


@pytest.mark.parametrize("parts", range(4))
@virtual
async def test_to_state_all_again_is_begun_anew_where_it_stopped(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_HEADS", 3)
    monkeypatch.setattr(loop_of_checkpoints, "MOST", 5)
    async with MemoryStore() as store, MemoryStore() as other:
        with monkeypatch.context() as patch:
            async with crashing(store) as made:
                await made.found("ada")
                await made.enrol("uma")
                await asyncio.sleep(SOON_S)
                killed_before_part(patch, 0)
                for _ in range(9):
                    await made.submit("uma")
                await asyncio.sleep(SOON_S)
        await restored(store, other)
        with monkeypatch.context() as patch:
            killed_before_part(patch, parts)
            async with crashing(other):
                await asyncio.sleep(SOON_S)
        async with world(other) as made:
            await asyncio.sleep(SOON_S)
            (await exported(made)).check()
