"""A colony with a history of every kind, and every reply in which anything of it is shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from colonist_protocol.attribute import GetAttribute
from colonist_protocol.colony import GetColonyStatistics
from colonist_protocol.log import AddExecutorLog, AddLog, GetLogs, SearchLogs
from colonist_protocol.message import Message
from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    GetProcessHistory,
    ReleaseProcess,
    SetOutput,
    State,
)
from colonist_protocol.server import GetStatistics
from colonist_protocol.workflow import GetProcessGraph, GetProcessGraphs
from colonist_server.archive.interface import Archive
from colonist_server.store.interface import Store
from tests.server.people import World, attribute_of, world
from tests.support.rooms import COLONY, OWNER, key, settle

ADA, UMA = key("ada"), key("uma")


@asynccontextmanager
async def historic(
    archive: Archive | None, store: Store | None = None, **settings: Any
) -> AsyncGenerator[World]:
    idle = {"stale_s": 0.0, "presence_every_s": 1e9, "tallies_every_s": 1e9}
    async with world(store, archive=archive, **{**idle, **settings}) as made:
        yield made


class History:
    """A colony with ended processes and workflows of every kind, and how to read all of it."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.lone: list[str] = []
        self.graphs: list[str] = []
        self.attributes: list[str] = []

    async def make(self) -> None:
        await self.made.found("ada")
        await self.made.enrol("uma")
        for number in range(7):
            await self._process(number)
        for number in range(3):
            await self._workflow(number)
        await self.made.call(
            AddExecutorLog(colonyname=COLONY, executorname="ada", message="own line"), ADA
        )

    async def _process(self, number: int) -> None:
        made = self.made
        env = {f"E{each}": "1" for each in range(100 if number == 3 else number % 3)}
        id = (await made.submit("uma", env=env, label=f"l{number % 2}")).processid
        self.lone.append(id)
        if number == 6:
            await made.call(CancelProcess(processid=id), UMA)
            return
        await made.assign("ada")
        if number == 1:  # more events than a record holds
            for _ in range(10):
                await made.call(ReleaseProcess(processid=id), ADA)
                await made.assign("ada")
        if number % 2:
            for each in range(30 if number == 3 else 1):  # more than one commit could take away
                reply = await made.call(attribute_of(id, f"k{each}"), ADA)
                self.attributes.append(reply["attributeid"])
            await made.call(AddLog(processid=id, message=f"line {number}"), ADA)
        if number == 2:
            await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[7]")), ADA)
            await made.call(CloseSuccessful(processid=id), ADA)
        elif number == 4:
            await made.call(CloseFailed(processid=id, errors=["e"]), ADA)
        else:
            await made.close("ada", id, b'["out"]')

    async def _workflow(self, number: int) -> None:
        nodes = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
        graph = await self.made.submit_workflow("uma", nodes)
        self.graphs.append(graph.processgraphid)
        for turn in range(4):
            process = await self.made.assign("ada")
            if number == 1 and turn == 1:
                await self.made.call(CloseFailed(processid=process.processid, errors=["e"]), ADA)
            else:
                await self.made.close("ada", process.processid, b"[%d]" % turn)
            if number == 1 and turn == 2:
                break
        await settle()

    async def read(self) -> dict[str, Any]:
        """Every reply in which anything of it may be shown."""
        wanted: list[Message] = [GetColonyStatistics(colonyname=COLONY)]
        wanted += [GetProcess(processid=id) for id in self.lone]
        wanted += [GetProcessGraph(processgraphid=id) for id in self.graphs]
        wanted += [GetAttribute(attributeid=id) for id in self.attributes]
        wanted += [
            GetLogs(colonyname=COLONY, processid=id, count=9, latest=latest)
            for id in self.lone
            for latest in (True, False)
        ]
        wanted += [
            GetLogs(colonyname=COLONY, executorname="ada", count=9),
            SearchLogs(colonyname=COLONY, text="line", days=20, count=9),
        ]
        for state in (State.SUCCESS, State.FAILED, State.CANCELLED):
            for count in (1, 3, 100):
                wanted.append(GetProcesses(colonyname=COLONY, state=state, count=count))
                wanted.append(GetProcessGraphs(colonyname=COLONY, state=state, count=count))
            wanted.append(GetProcesses(colonyname=COLONY, state=state, count=9, label="l1"))
            wanted.append(GetProcessHistory(colonyname=COLONY, state=state, seconds=10**8))
        for id in self.graphs:
            wanted.append(GetProcesses(colonyname=COLONY, state=-1, count=9, processgraphid=id))
        replies = {}
        for message in wanted:
            answer = await self.made.answer(message, UMA)
            replies[repr(message)] = (answer.status, answer.body)
        replies["all"] = (await self.made.call(GetStatistics(), OWNER), b"")
        return replies

    async def count(self) -> None:
        """Statistics are what a list has."""
        stats = await self.made.call(GetColonyStatistics(colonyname=COLONY), UMA)
        for state, name in (
            (State.SUCCESS, "successful"),
            (State.FAILED, "failed"),
            (State.CANCELLED, "cancelled"),
        ):
            wanted = GetProcesses(colonyname=COLONY, state=state, count=100)
            assert stats[f"{name}processes"] == len(await self.made.call(wanted, UMA) or [])
            graphs = GetProcessGraphs(colonyname=COLONY, state=state, count=100)
            assert stats[f"{name}workflows"] == len(await self.made.call(graphs, UMA) or [])
