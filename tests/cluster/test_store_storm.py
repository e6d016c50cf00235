"""Stores on a cluster whose members are killed and stand still: each answer is true.

What was answered with a revision is in the history at that revision, what was refused is nowhere,
what nobody could tell is there at most once; and every watch saw the same history, without a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest

from colonist_server.store.etcd.address import parse
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import Event, Guard, Op, Put, UnavailableError
from tests.cluster.house import Member, url
from tests.cluster.trouble import Harm, harming, troubles
from tests.support import etcd

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
KEYS = [b"%d" % number for number in range(12)]
END = b"end"
WRITERS = 8
DEADLINE_S = 60.0


class Storm:
    """Writers on some stores, and what each commit was answered, by its one value."""

    def __init__(self, stores: list[EtcdStore], seed: int) -> None:
        self.stores = stores
        self.done: dict[bytes, int] = {}
        self.lost: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self._seed = seed
        self._numbers = itertools.count()
        self.is_over = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, store in enumerate(self.stores * WRITERS):
                group.create_task(self._write(store, random.Random(f"{self._seed}/{number}")))

    async def _write(self, store: EtcdStore, dice: random.Random) -> None:
        while not self.is_over:
            keys = dice.sample(KEYS, dice.randint(1, 3))
            value = b"%d" % next(self._numbers)
            try:
                items = await store.get_many(keys)
                guards = [
                    Guard(key, item.modified if item else 0)
                    for key, item in zip(keys, items, strict=True)
                ]
                if dice.random() < 0.3:
                    await asyncio.sleep(0)  # others may come between
                ops: list[Op] = [Put(key, value) for key in keys]
                answer = await store.commit(guards, ops)
            except UnavailableError:
                self.unknown.add(value)
            else:
                if answer is None:
                    self.lost.add(value)
                else:
                    self.done[value] = answer


async def history(store: EtcdStore, start: int) -> list[Event]:
    """Every event until the last one."""
    seen: list[Event] = []
    async with contextlib.aclosing(store.watch(start)) as watch:
        async for event in watch:
            seen.append(event)
            if any(change.key == END for change in event.changes):  # none: a fence alone
                break
    return seen


async def storm(seed: int, lasting_s: float) -> None:
    async with etcd.cluster(3) as cluster, contextlib.AsyncExitStack() as stack:
        address = parse(url(cluster))
        *writers, idle = [
            await stack.enter_async_context(await EtcdStore.open(address)) for _ in range(3)
        ]
        start = await idle.newest()
        seen = [asyncio.create_task(history(store, start)) for store in (*writers, idle)]
        made, harm = Storm(writers, seed), Harm()
        running = asyncio.create_task(made.run())
        members = [Member(member) for member in cluster.members]
        plan = troubles(f"{seed}", 3, at_once=1, rest_s=0.2, lasts_s=2.0)
        async with harming(harm, (members, plan)):
            await asyncio.sleep(lasting_s)
        made.is_over = True
        await running
        assert await writers[0].commit([Guard(END, 0)], [Put(END, b"the end")])
        try:
            async with asyncio.timeout(DEADLINE_S):
                check(made, [await task for task in seen])
        except BaseException as error:
            error.add_note("\n".join([f"SEED={seed}", *harm.diary]))
            raise


def check(made: Storm, histories: list[list[Event]]) -> None:
    first = histories[0]
    assert all(other == first for other in histories[1:])
    happened: dict[bytes, set[int]] = {}
    for event in first:
        for change in event.changes:
            assert change.value is not None
            happened.setdefault(change.value, set()).add(event.revision)
    assert all(len(revisions) == 1 for revisions in happened.values()), "done twice"
    assert made.lost.isdisjoint(happened), "told as lost, and done"
    for value, revision in made.done.items():
        assert happened.get(value) == {revision}, f"{value!r}: answered {revision}"
    assert len(made.done) > 100
    assert made.lost


async def test_each_answer_is_true_and_all_see_the_same(seed: int) -> None:
    await storm(seed, 12.0)


@pytest.mark.campaign
@pytest.mark.timeout(3_000)
async def test_each_answer_is_true_for_long(seed: int) -> None:
    await storm(seed, 600.0)
