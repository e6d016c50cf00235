"""Store invariant 9: what was packed is consumed once, whatever stops wherever.

A node is stopped at each commit in turn, before it takes effect or after; an answer gets lost, or
the commit takes effect only later; a second node that believes to lead fires too. Each with firings
of one commit and with firings in steps.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import pytest

from colonist_protocol.errors import ColonistError
from colonist_server.repo import firings, keys
from colonist_server.repo.generator_view import GeneratorView
from colonist_server.repo.load import load
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Delete, Event, Revision
from tests.support.clock import virtual
from tests.support.generators import add, given, node, stored, workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import Bench, bench, settle
from tests.support.stopping_store import StoppingStore, remove_opened

TRIGGER = 3
TIMEOUT_S = 30
ARGUMENTS = [f"arg-{number}" for number in range(10)]
SPEC = workflow(node("a"), node("b", "a"))

# More than any life commits, so the last stops of each sweep disturb nothing.
AT_ONCE = range(18)
IN_STEPS = range(50)


class Books:
    """What was packed for sure, and what was tried."""

    def __init__(self) -> None:
        self.sure: list[str] = []
        self.tried: list[str] = []

    async def pack(self, server: Bench, gid: bytes, texts: Sequence[str]) -> None:
        for text in texts:
            self.tried.append(text)
            with suppress(ColonistError):
                await server.rooms.generators.pack(gid, text)
                self.sure.append(text)

    def check(self, store: MemoryStore) -> None:
        """Whatever was acknowledged was consumed once; the rest at most once; nothing is left."""
        fired = given(store)
        consumed = Counter(arg for args in fired for arg in args)
        assert max(consumed.values()) == 1
        assert set(self.sure) <= set(consumed) <= set(self.tried)
        assert all(len(args) <= TRIGGER for args in fired)
        assert [arg for args in fired for arg in args if arg in self.sure] == self.sure
        assert not stored(store, keys.ARGUMENT, keys.FIRING)
        assert len(stored(store, keys.WORKFLOW)) == len(fired)


@pytest.fixture(params=["at once", "in steps"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether a firing is one commit; else its keys are deleted two at a time."""
    if request.param == "in steps":
        monkeypatch.setattr(firings, "MAX_OPS", 2)
    return request.param


async def _prepare(store: MemoryStore) -> bytes:
    """A generator at which nothing waits."""
    async with bench(store) as server:
        await server.found("e1")
        return bytes.fromhex(await add(server, spec=SPEC, trigger=TRIGGER, timeout=TIMEOUT_S))


async def _live(store: StoppingStore, gid: bytes, books: Books, texts: Sequence[str]) -> None:
    async with bench(store) as server:
        await books.pack(server, gid, texts)
        await settle(300)
        await asyncio.sleep(5)


async def _until_stopped(
    store: StoppingStore, gid: bytes, books: Books, texts: Sequence[str]
) -> None:
    """A node works until its end, or until it is killed in the middle."""
    life = asyncio.create_task(_live(store, gid, books, texts))
    stop = asyncio.create_task(store.stopped.wait())
    await asyncio.wait([life, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    life.cancel()
    with suppress(asyncio.CancelledError):
        await life


async def _finish(store: StoppingStore, gid: bytes, books: Books, texts: Sequence[str]) -> None:
    """The next node finds what was left, packs the rest, and waits until all is consumed."""
    store.stopped.clear()
    store.arm(-1, "")
    async with bench(store) as server:
        await books.pack(server, gid, texts)
        await asyncio.sleep(TIMEOUT_S + 5)
        await settle(300)
    books.check(store)


@pytest.mark.parametrize("how", ["before", "after", "lost", "late"])
@virtual
async def test_each_argument_is_consumed_once_whatever_happens_to_one_commit(
    how: str, path: str
) -> None:
    met = [await _one_mishap(at, how) for at in (AT_ONCE if path == "at once" else IN_STEPS)]
    assert met[0]
    assert not met[-1]


async def _one_mishap(at: int, how: str) -> bool:
    async with StoppingStore() as store:
        books = Books()
        gid = await _prepare(store)
        store.arm(at, how)
        await _until_stopped(store, gid, books, ARGUMENTS[:7])
        await _finish(store, gid, books, ARGUMENTS[7:])
        return store.was_met


@pytest.mark.parametrize("how", ["before", "after"])
@virtual
async def test_a_node_that_is_stopped_while_it_finishes_what_another_left(
    how: str, path: str
) -> None:
    for at in range(2, 14):
        for again in range(8 if path == "in steps" else 3):
            async with StoppingStore() as store:
                books = Books()
                gid = await _prepare(store)
                store.arm(at, how)
                await _until_stopped(store, gid, books, ARGUMENTS[:4])
                store.arm(again, how)
                await _until_stopped(store, gid, books, ARGUMENTS[4:7])
                await _finish(store, gid, books, ARGUMENTS[7:])


@virtual
async def test_a_workflow_that_was_made_and_removed_is_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(firings, "MAX_OPS", 2)
    removed = 0
    for at in range(2, 16):
        async with StoppingStore() as store:
            gid = await _prepare(store)
            store.arm(at, "after")
            await _until_stopped(store, gid, Books(), ARGUMENTS[:TRIGGER])
            store.arm(-1, "")
            gone = await remove_opened(store)
            removed += len(gone)
            async with bench(store):
                await asyncio.sleep(TIMEOUT_S + 5)
                await settle(300)
            assert not [key for key in stored(store, keys.WORKFLOW) if key[2:] in gone]
            assert not stored(store, keys.ARGUMENT, keys.FIRING)
    assert removed > 1


class LaggingStore(StoppingStore):
    """What others write is heard of later."""

    def __init__(self, lag_s: float) -> None:
        super().__init__()
        self._lag_s = lag_s

    async def watch(self, after: Revision) -> AsyncGenerator[Event, None]:
        async with aclosing(super().watch(after)) as events:
            async for event in events:
                await asyncio.sleep(self._lag_s)
                yield event


def _beliefs(server: Bench) -> Any:
    """All that a node holds of generators."""
    return _held(server.rooms.generators.view)


async def _believed(store: MemoryStore) -> Any:
    """What a node that starts now believes."""
    view = View()
    generators = GeneratorView(view)
    await load(Writes(store, view))
    return _held(generators)


def _held(view: GeneratorView) -> Any:
    return view.names, {
        gid: (each.record, each.firings, each.waiting, each.taken, each.under_way)
        for gid, each in view.all.items()
    }


@pytest.mark.parametrize("lag_s", [0, 0.05])
@virtual
async def test_two_nodes_that_both_believe_to_lead_consume_each_argument_once(
    lag_s: float, path: str
) -> None:
    del path
    async with LaggingStore(lag_s) as store:
        books = Books()
        gid = await _prepare(store)
        async with bench(store, node="n1") as one, bench(store, node="n2") as two:
            for start in range(0, 60, 2):
                await asyncio.gather(
                    books.pack(one, gid, [f"one-{start}", f"one-{start + 1}"]),
                    books.pack(two, gid, [f"two-{start}", f"two-{start + 1}"]),
                )
            await asyncio.sleep(TIMEOUT_S - 5)
            left = await _believed(store)
            assert _beliefs(one) == _beliefs(two) == left
            await asyncio.sleep(TIMEOUT_S + 5)
            await settle(300)
            assert _beliefs(one) == _beliefs(two) == await _believed(store)
        fired = given(store)
        consumed = Counter(arg for args in fired for arg in args)
        assert consumed == Counter(books.sure)
        assert len(books.sure) == 120
        assert all(len(args) == TRIGGER for args in fired)
        assert not stored(store, keys.ARGUMENT, keys.FIRING)


@virtual
async def test_a_firing_whose_workflow_has_come_and_gone_is_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(firings, "MAX_OPS", 2)
    async with StoppingStore() as store:
        books = Books()
        gid = await _prepare(store)
        first_delete = TRIGGER + 4  # packs, then the list of keys, head, members, opening
        store.arm(first_delete, "after")
        await _until_stopped(store, gid, books, ARGUMENTS[:TRIGGER])
        assert len(stored(store, keys.ARGUMENT)) == TRIGGER - 2
        made = (keys.WORKFLOW, keys.SHAPE, keys.BIRTH, keys.LIVE)
        assert stored(store, *made)
        store._apply([Delete(key) for key in stored(store, *made)])
        store.stopped.clear()
        async with bench(store):
            await asyncio.sleep(TIMEOUT_S + 5)
        assert not stored(store, *made, keys.ARGUMENT, keys.FIRING)
