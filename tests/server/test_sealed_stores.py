"""The law of sealed requests on the stores that servers run on, over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from colonist_protocol.envelope import Failure
from colonist_server.store.etcd.address import parse
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import Store
from colonist_server.store.sqlite import SqliteStore
from tests.server.test_sealed_law import Sent, lasting, peopled, present, sealed, served
from tests.support.etcd import cluster

Opener = Callable[[], AbstractAsyncContextManager[Store]]

IN_TURN = (
    "removeprocessmsg",
    "submitfuncspecmsg",
    "submitworkflowspecmsg",
    "addusermsg",
    "addcronmsg",
    "packgeneratormsg",
    "addfunctionmsg",
    "addchildmsg",
    "assignprocessmsg",
    "pauseassignmentsmsg",
)
"""One after the other on one store, each while it still may be done."""


@pytest.fixture(params=["sqlite", "etcd"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Opener]:
    @asynccontextmanager
    async def sqlite() -> AsyncGenerator[Store]:
        async with await SqliteStore.open(tmp_path / "store.db") as store:
            yield store

    if request.param == "sqlite":
        yield sqlite
        return
    async with cluster(1) as etcd:

        @asynccontextmanager
        async def opened() -> AsyncGenerator[Store]:
            url = f"etcd://{','.join(etcd.endpoints)}/sealed"
            async with await EtcdStore.open(parse(url)) as store:
                yield store

        yield opened


async def test_each_takes_effect_once_on_a_store_that_lasts(opener: Opener) -> None:
    answered: list[tuple[Sent, Any]] = []
    async with opener() as store, served(store) as made:
        await peopled(made)
        for kind in IN_TURN:
            sent = sealed(made, kind)
            first, second = await asyncio.gather(present(made, sent), present(made, sent))
            assert not isinstance(first, Failure), (kind, first)
            assert first == second, kind
            answered.append((sent, first))
        stored = await lasting(made)
    async with opener() as store, served(store) as made:
        for sent, first in answered:
            again = await present(made, sent)
            assert not isinstance(again, Failure), (sent.kind, again)
            for name in ("processid", "processgraphid", "cronid", "userid", "colonyid"):
                assert again.get(name) == first.get(name), sent.kind
        assert (await lasting(made)).keys() == stored.keys()
