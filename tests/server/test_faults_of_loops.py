"""A fault of this program, or a record that it cannot bear, ends no loop and so not the server."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.process import CloseFailed
from colonist_server.loops import generators as loop_of_generators
from colonist_server.loops import retention
from colonist_server.repo import settling
from colonist_server.repo.firings import Firings
from colonist_server.repo.generator import Generator
from colonist_server.repo.generators import Generators
from colonist_server.repo.nouns import Colony, Workflow
from colonist_server.repo.retirement import Oldest, Retirement
from colonist_server.repo.settling import Settling
from tests.support.clock import virtual
from tests.support.generators import add, given, pack
from tests.support.memory_store import MemoryStore
from tests.support.rooms import bench, key


class Faults:
    """Faults that are planted; `count` calls met one."""

    def __init__(self) -> None:
        self.is_on = True
        self.count = 0

    def meet(self) -> None:
        if self.is_on:
            self.count += 1
            raise KeyError("planted")


@virtual
async def test_P1_a_generator_with_a_fault_rests_and_the_others_fire(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults, bad = Faults(), ""
    serve = Firings.serve

    async def failing(self: Firings, generator: Generator, due: bytes | None = None) -> None:
        if generator.id == bad:
            faults.meet()
        await serve(self, generator, due)

    monkeypatch.setattr(Firings, "serve", failing)
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            bad = await add(server, name="bad", trigger=1)
            good = await add(server, name="good", trigger=1)
            await pack(server, bad, "1")
            await pack(server, good, "2")
            await asyncio.sleep(loop_of_generators.FAULT_RETRY_S * 2.5)
            assert given(store) == [["2"]]
            assert faults.count == 3
            assert caplog.text.count("Traceback") == 3
        async with bench(store) as server:
            await asyncio.sleep(1)
            assert faults.count == 4
            faults.is_on = False
            await asyncio.sleep(loop_of_generators.FAULT_RETRY_S)
            assert given(store) == [["2"], ["1"]]


@virtual
async def test_P1_remains_that_cannot_be_swept_do_not_end_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(self: Generators) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(Generators, "sweep_remains", failing)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=1)
        await pack(server, id, "1")
        await asyncio.sleep(1)
        assert given(store) == [["1"]]
        assert "remains of removed generators stay" in caplog.text


@virtual
async def test_P1_a_workflow_that_cannot_be_settled_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults, bad = Faults(), ""
    settle = Settling._settle  # pyright: ignore[reportPrivateUsage]

    async def failing(self: Settling, workflow: Workflow) -> None:
        if workflow.id == bad:
            faults.meet()
        await settle(self, workflow)

    monkeypatch.setattr(Settling, "_settle", failing)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        graphs = [await server.submit_workflow("e1", {"a": [], "b": ["a"]}) for _ in range(2)]
        bad = graphs[0].processgraphid
        for _ in graphs:
            process = await server.assign("e1")
            await server.call(CloseFailed(processid=process.processid, errors=["e"]), key("e1"))
        await asyncio.sleep(settling.FAULT_RETRY_S * 2.5)
        assert [workflow.id for workflow in server.rooms.view.workflows.values()] == [bad]
        assert 3 <= faults.count <= 6
        assert f"workflow={bad} not settled" in caplog.text
        faults.is_on = False
        await asyncio.sleep(settling.FAULT_RETRY_S)
        assert not server.rooms.view.workflows


@virtual
async def test_P1_history_that_cannot_be_removed_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults()
    oldest = Retirement.oldest

    def failing(self: Retirement, colony: Colony) -> Oldest:
        faults.meet()
        return oldest(self, colony)

    monkeypatch.setattr(Retirement, "oldest", failing)
    async with MemoryStore() as store, bench(store, retention_count=1) as server:
        await server.found("e1")
        for _ in range(5):
            process = await server.submit("e1")
            await server.assign("e1")
            await server.close("e1", process.processid)
        await asyncio.sleep(retention.RETRY_S * 2.5)
        assert sum(server.colony.closed) == 5
        assert 2 <= faults.count <= 4
        assert caplog.text.count("Traceback") == faults.count
        faults.is_on = False
        await asyncio.sleep(retention.RETRY_S * 2)
        assert sum(server.colony.closed) == 1
