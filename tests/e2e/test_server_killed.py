"""A real server is killed (-9) again and again while people submit and executors work.

At the end every acknowledged process is closed exactly once, by the one executor that had it, with
the result that this executor delivered.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from msgspec import Raw

from colonist_client.caller import OutcomeUnknownError
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.transport import UnreachableError
from colonist_protocol.colony import Colony
from colonist_protocol.executor import Executor
from colonist_protocol.process import CloseSuccessful, Process, State
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, key, spec
from tests.support.server_process import ServerProcess, server_process

EXECUTORS = [f"e{number}" for number in range(6)]


class Campaign:
    """What everyone saw, to be compared with what the server has at the end."""

    def __init__(self, server: ServerProcess, wanted: int) -> None:
        self.server = server
        self.wanted = wanted
        self.transport = HttpTransport(server.url)
        self.acknowledged: list[str] = []
        self.ran: dict[str, list[str]] = {}
        self.closed: Counter[str] = Counter()
        self.progress = asyncio.Condition()
        self.done = asyncio.Event()

    def client(self, name: str) -> Client:
        return Client(self.transport, key(name))

    async def found(self) -> None:
        await Client(self.transport, OWNER).add_colony(
            Colony(colonyid=COLONY_OWNER.id, name=COLONY)
        )
        owner = Client(self.transport, COLONY_OWNER)
        for name in EXECUTORS:
            await owner.add_executor(
                Executor(
                    executorid=key(name).id, executortype=TYPE, executorname=name, colonyname=COLONY
                )
            )
            await owner.approve_executor(COLONY, name)

    async def submit(self) -> None:
        client = self.client("e0")
        while len(self.acknowledged) < self.wanted:
            try:
                process = await client.submit(spec(maxexectime=-1))
            except (OutcomeUnknownError, UnreachableError):
                await asyncio.sleep(0.01)
            else:
                self.acknowledged.append(process.processid)

    async def work(self, name: str) -> None:
        client = self.client(name)
        while not self.done.is_set():
            try:
                process = await client.assign(COLONY, timeout_s=1)
            except UnreachableError:
                await asyncio.sleep(0.01)
                continue
            if process is not None:
                self.ran.setdefault(process.processid, []).append(name)
                await self._close(client, name, process)

    async def _close(self, client: Client, name: str, process: Process) -> None:
        out = Raw(f'["{name}"]'.encode())
        body = client.pack(CloseSuccessful(processid=process.processid, out=out))
        while True:
            try:
                await client.deliver(body)
            except UnreachableError:
                await asyncio.sleep(0.01)
            except ServerError as error:
                raise AssertionError(f"{name} may not close what it was given: {error}") from error
            else:
                break
        self.closed[process.processid] += 1
        async with self.progress:
            self.progress.notify_all()

    async def reached(self, count: int) -> None:
        async with self.progress:
            await self.progress.wait_for(lambda: len(self.closed) >= count)

    async def finish(self) -> None:
        """Until everything acknowledged is closed; what nobody was told of may be there too."""
        await self.reached(self.wanted)
        client = self.client("e0")
        while (await client.colony_statistics(COLONY)).waitingprocesses or (
            await client.colony_statistics(COLONY)
        ).runningprocesses:
            await asyncio.sleep(0.05)
        self.done.set()

    async def check(self) -> None:
        client = self.client("e0")
        for id in self.acknowledged:
            process = await client.get(id)
            assert process.state == State.SUCCESS, id
            assert set(self.ran[id]) == set(process.output()), id
            assert len(set(self.ran[id])) == 1, f"{id} was given to two executors"
        found = await client.colony_statistics(COLONY)
        assert found.successfulprocesses == len(self.closed)
        assert found.failedprocesses == found.cancelledprocesses == 0


async def _run(folder: Path, *, seed: int, processes: int, kills: int) -> None:
    chance = random.Random(seed)
    async with server_process(folder, OWNER.id) as server:
        campaign = Campaign(server, processes)
        await campaign.found()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(campaign.submit())
            for name in EXECUTORS:
                group.create_task(campaign.work(name))
            for number in range(kills):
                await campaign.reached(processes * (number + 1) // (kills + 2))
                await asyncio.sleep(chance.random() * 0.01)  # another moment in each run
                await server.kill()
                await server.start()
            await campaign.finish()
        await campaign.check()
        await campaign.transport.close()


@pytest.mark.e2e
async def test_server_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, seed: int
) -> None:
    await _run(tmp_path, seed=seed, processes=400, kills=4)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
async def test_server_killed_a_hundred_times_loses_and_doubles_nothing(
    tmp_path: Path, seed: int
) -> None:
    await _run(tmp_path, seed=seed, processes=20_000, kills=100)
