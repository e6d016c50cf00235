"""Nothing is missing from checkpoints, and no number stands twice, whoever dies and whenever."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from colonist_protocol.process import CancelProcess, RemoveProcess
from colonist_server.loops import checkpoints as loop_of_checkpoints
from colonist_server.loops.checkpoints import CheckpointLoop
from colonist_server.repo import checkpoints, keys
from colonist_server.repo.heads import Heads
from colonist_server.repo.load import load
from colonist_server.repo.records import ChangeRecord, decode_change, encode
from colonist_server.store.interface import Delete, Guard, Op, Put
from tests.server.people import Crash, crashing, world
from tests.support.audit import Export, exported
from tests.support.clock import run_virtual, virtual
from tests.support.cluster import Cluster, cluster
from tests.support.memory_archive import MemoryArchive
from tests.support.memory_store import MemoryStore
from tests.support.rooms import Bench, Refused, key, settle

UMA = key("uma")
WAYS = ("before", "after", "lost", "late")
SOON_S = 12.0


@pytest.fixture(autouse=True)
def _few_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MAX_HEADS", 3)
    monkeypatch.setattr(loop_of_checkpoints, "MOST", 5)


async def work(made: Bench, chance: random.Random, steps: int) -> None:
    """Some of all that may happen to processes."""
    for _ in range(steps):
        with suppress(Refused):
            match chance.randrange(5):
                case 0 | 1:
                    await made.submit("ada", priority=chance.randrange(3))
                case 2:
                    process = await made.assign("ada", 1)
                    await made.close("ada", process.processid)
                case 3:
                    await made.assign("ada", 1)
                case _:
                    ids = [row.id for row in made.colony.queue] + [
                        row.id for row in made.colony.running.values()
                    ]
                    if ids:
                        kind = chance.choice([CancelProcess, RemoveProcess])
                        await made.call(kind(processid=chance.choice(ids)), key("ada"))
        await asyncio.sleep(chance.choice([0, 0, 1.7]))


async def check(made: Bench, stored: dict[bytes, Any]) -> Export:
    """All that is stored is told, and in checkpoints."""
    export = await exported(made, size=random.Random(0).choice([1, 3_000]))
    export.check()
    wanted = {
        each[2:].hex() for each in stored if each.startswith(keys.BIRTH + made.colony.tag)
    } | {each[3:].hex() for each in stored if each.startswith(keys.REMOVED + made.colony.tag)}
    assert set(export.chains) - {made.colony.tag.hex().ljust(64, "0")} == wanted
    return export


async def _replaced(made: Cluster, at: int, way: str) -> bool:
    chance = random.Random(at)
    first = await made.start("a")
    await made.start("b")
    assert await made.elected() is first
    await first.bench.found("ada")
    await asyncio.sleep(1)
    first.line.arm(at, way, keys.NEWEST_CHECKPOINT)
    other = made["b"].bench
    task = asyncio.create_task(work(other, chance, 30))
    with suppress(TimeoutError):
        async with asyncio.timeout(40):
            await first.line.died.wait()
    if first.line.died.is_set():
        await made.kill("a")
        await asyncio.sleep(chance.choice([0.5, 8]))
        await made.start("a")
    await task
    await asyncio.sleep(SOON_S + 5)
    await check(made[chance.choice("ab")].bench, made.store._items)
    return first.line.was_met


@pytest.mark.parametrize("way", WAYS)
def test_a_leader_may_die_at_each_checkpoint(way: str) -> None:
    async def story(at: int) -> bool:
        async with cluster() as made:
            return await _replaced(made, at, way)

    met = [run_virtual(story(at)) for at in range(0, 14, 2)]
    assert met[0]


class Always:
    """Takes itself for the leader."""

    is_leader = True

    async def wait(self) -> None:
        pass


@virtual
async def test_two_that_lead_for_a_while_do_not_fork() -> None:
    async with cluster("a", "b") as made:
        leader = await made.elected()
        await leader.bench.found("ada")
        other = made["b" if leader.name == "a" else "a"].bench
        rooms = other.rooms
        await asyncio.sleep(1)
        always: Any = Always()
        second = CheckpointLoop(
            rooms.writes,
            rooms.checkpoints,
            Heads(rooms.view, rooms.trail),
            epochs=rooms.epochs,
            leadership=always,
        )
        task = asyncio.create_task(second.run())
        chance = random.Random(7)
        await asyncio.gather(work(other, chance, 25), work(leader.bench, random.Random(8), 25))
        await asyncio.sleep(SOON_S)
        task.cancel()
        (await check(other, made.store._items)).verify()


@virtual
async def test_what_a_leader_signs_late_makes_the_next_one_look_again() -> None:
    async with cluster("a", "b") as made:
        leader = await made.elected()
        late = made["b" if leader.name == "a" else "a"].bench
        await leader.bench.found("ada")
        await asyncio.sleep(SOON_S)
        leader.line.hold()
        rooms, tag = late.rooms, late.colony.tag
        own = {tag + bytes(28): (rooms.trail.head(tag).count - 1, rooms.trail.head(tag).head)}
        through = rooms.checkpoints.newest(tag).through
        era = rooms.epochs.era
        assert await rooms.checkpoints.write(late.colony, own, through=through, era=era)
        for _ in range(5):
            await leader.bench.submit("ada")
        await asyncio.sleep(1)
        leader.line.flow()
        await asyncio.sleep(SOON_S)
        await check(leader.bench, made.store._items)


@pytest.mark.parametrize("start", range(6))
@virtual
async def test_a_server_may_crash_at_any_moment(start: int, seed: int) -> None:
    chance = random.Random(start * 1_000 + seed)
    async with MemoryStore() as store:
        for turn in range(4):
            async with crashing(store) as made:
                if not turn:
                    await made.found("ada")
                task = asyncio.create_task(work(made, chance, 100))
                await asyncio.sleep(chance.random() * 8)
                task.cancel()
                with suppress(asyncio.CancelledError, Crash):
                    await task
        async with world(store) as made:
            await asyncio.sleep(SOON_S)
            await check(made, store._items)


@virtual
async def test_a_view_that_was_loaded_anew_misses_nothing() -> None:
    async with MemoryStore() as store, world(store) as made:
        await made.found("ada")
        await work(made, random.Random(1), 10)
        for _ in range(3):
            made.rooms.view.loaded(await load(made.rooms.writes))
            await work(made, random.Random(2), 6)
        await asyncio.sleep(SOON_S)
        await check(made, store._items)


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_a_colony_from_before_there_was_evidence_begins_it(is_archived: bool) -> None:
    archive = MemoryArchive() if is_archived else None
    async with MemoryStore() as store:
        async with world(store, archive=archive) as made:
            await made.found("ada")
            await work(made, random.Random(3), 30)
            await asyncio.sleep(500)
        tag = made.colony.tag
        old: list[Op] = []
        for name, item in list(store._items.items()):
            if name.startswith((keys.TRAIL, keys.CHECKPOINT, keys.NEWEST_CHECKPOINT)):
                old.append(Delete(name))
            elif name.startswith(keys.CHANGES):
                record = decode_change(item.value)
                before = ChangeRecord(*(getattr(record, each) for each in CHANGE_BEFORE))
                old.append(Put(name, encode(before)))
        if archive is not None:
            await archive.delete(
                [each for each in archive.rows if each.startswith(keys.CHECKPOINT)]
            )
        store._apply(old)
        async with world(store, archive=archive) as made:
            await settle()
            await made.hire("ben")
            await asyncio.sleep(SOON_S)
            rows = dict(archive.rows) if archive is not None else {}
            export = await check(made, {**store._items, **rows})
            chain = export.chains[tag.hex().ljust(64, "0")]
            assert [line.what for line, _ in chain] == ["executor_added", "executor_approved"]


CHANGE_BEFORE = ("what", "name", "time_ns", "by", "digest", "signature", "payload")


@virtual
async def test_a_restored_store_states_all_its_heads_again() -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.found("ada")
            await work(made, random.Random(4), 10)
            await asyncio.sleep(SOON_S)
            await work(made, random.Random(5), 5)
        items = {name: item.value for name, item in store._items.items()}
        async with MemoryStore() as other:
            order = sorted(items, key=lambda name: not name.startswith((keys.LIVE, keys.CLOSED)))
            for name in order:  # what changed comes first, so that old revisions say nothing of it
                value = items[name]
                if not name.startswith((b"n/", b"m/running", keys.EPOCH)):
                    await other.commit([Guard(name, 0)], [Put(name, value)])
            async with world(other) as made:
                await asyncio.sleep(SOON_S)
                await check(made, other._items)
