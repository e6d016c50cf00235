"""Tallies of functions: counted once, over restarts, and longer than the processes they count."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from colonist_protocol.function import GetFunctions
from colonist_protocol.process import RemoveProcess, State
from colonist_server.store.interface import Guard, Op, Revision
from tests.server.people import World, crashing, function_of, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, key, settle

ADA, UMA = key("ada"), key("uma")


async def _tallies(made: World) -> dict[str, tuple[int, float, float]]:
    found = await made.call(GetFunctions(colonyname=COLONY), UMA)
    return {
        each["funcname"]: (each["counter"], each["avgwaittime"], each["avgexectime"])
        for each in found
    }


async def _work(made: World, wait_s: float, exec_s: float, funcname: str = "f") -> None:
    id = (await made.submit("uma", funcname=funcname)).processid
    await asyncio.sleep(wait_s)
    await made.assign("ada")
    await asyncio.sleep(exec_s)
    await made.close("ada", id)


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("every_s", [0.5, 7.0, 1e6])
@virtual
async def test_tallies_are_the_same_over_a_restart(crash: bool, every_s: float) -> None:
    async with MemoryStore() as store:
        async with (crashing if crash else world)(store, tallies_every_s=every_s) as made:
            await made.populate()
            await _work(made, 50, 50)  # before the function was announced: not counted
            await made.call(function_of("ada"), ADA)
            await _work(made, 1, 2)
            await made.call(function_of("ada"), ADA)  # announced again: goes on counting
            await _work(made, 3, 6)
            await _work(made, 99, 99, "unknown")
            before = await _tallies(made)
            assert before == {"f": (2, pytest.approx(2), pytest.approx(4))}
        async with world(store) as made:
            assert await _tallies(made) == before
            await _work(made, 2, 1)
            assert await _tallies(made) == {"f": (3, pytest.approx(2), pytest.approx(3))}


@virtual
async def test_tallies_outlive_the_processes_that_they_count() -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            await made.call(function_of("ada"), ADA)
            await _work(made, 1, 2)
            id = (await made.list(State.SUCCESS))[0]
            await made.call(RemoveProcess(processid=id), UMA)
            before = await _tallies(made)
        async with world(store) as made:
            assert await _tallies(made) == before == {"f": (1, pytest.approx(1), pytest.approx(2))}


class SlowFolds(MemoryStore):
    """Commits to functions wait at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        if guards[0].key.startswith(b"f/"):
            await self.gate.wait()
        return await super().commit(guards, ops)


@virtual
async def test_runs_that_end_while_tallies_are_stored_are_counted_once() -> None:
    async with SlowFolds() as store:
        async with crashing(store, tallies_every_s=1e6) as made:
            await made.populate()
            for name in ("f", "g"):
                await made.call(function_of("ada", name), ADA)
                await _work(made, 1, 1, name)
            store.gate.clear()
            fold = asyncio.create_task(made.rooms.functions.fold())
            await settle()
            for name in ("f", "g"):
                await _work(made, 1, 1, name)
            store.gate.set()
            await fold
            before = await _tallies(made)
            assert [counter for counter, _, _ in before.values()] == [2, 2]
        async with world(store) as made:
            assert await _tallies(made) == before


@virtual
async def test_announcing_again_keeps_what_was_stored() -> None:
    async with MemoryStore() as store:
        async with crashing(store) as made:
            await made.populate()
            await made.call(function_of("ada"), ADA)
            await _work(made, 1, 2)
            await made.rooms.functions.fold()
            await made.call(function_of("ada"), ADA)
            before = await _tallies(made)
        async with world(store) as made:
            assert await _tallies(made) == before
            assert before["f"][0] == 1
