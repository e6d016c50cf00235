"""Pages over store and archive together have every key once, in order, wherever it stands."""

from __future__ import annotations

import random

import pytest

from colonist_server.archive.interface import Row
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Guard, Put
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.memory_store import MemoryStore


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7])
@virtual
async def test_pages_are_those_of_one_map(limit: int, reverse: bool, seed: int) -> None:
    chance = random.Random(seed * 100 + limit)
    for _ in range(30):
        keys = [b"y/%03d" % number for number in range(chance.randint(0, 20))]
        weight = chance.random()
        near = [key for key in keys if chance.random() < weight]
        far = [key for key in keys if key not in near or chance.random() < 0.2]
        archive = MemoryArchive()
        await archive.put([Row(key, b"v") for key in far])
        async with MemoryStore() as store:
            for key in near:
                await store.commit([Guard(key, 0)], [Put(key, b"v")])
            past = Writes(store, View(), archive).past
            seen: list[bytes] = []
            more = True
            while more:
                after = seen[-1] if seen else b""
                page = await past.range(b"y/", after=after, limit=limit, reverse=reverse)
                assert not limit or len(page.items) <= limit
                assert page.items or not page.more
                for item in page.items:
                    assert (item.modified > 0) == (item.key in near), "the store comes first"
                seen += [item.key for item in page.items]
                more = page.more
            assert seen == sorted(keys, reverse=reverse)
            found = await past.read_many([*keys, b"absent"])
            assert [item and item.key for item in found] == [*keys, None]
