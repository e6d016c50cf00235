"""People who submit and executors who work while servers come and go, and what each of them saw.

Every request goes to any node, again and again until there is an answer. What was answered is
remembered, and must be true at the end. An attempt's lease is `maxexectime`; whoever was told of
one may count on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.colony import Colony
from colonist_protocol.executor import Executor
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import CloseSuccessful, Process
from colonist_protocol.server import Statistics
from colonist_protocol.times import from_text
from colonist_protocol.workflow import WorkflowSpec
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, key, spec

REPLY_S = 4.0  # after so long an asker tries another node
POLL_S = 1
REST_S = 0.05
SUBMITTERS = 6
DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
WORKFLOWS = 0.05  # share of submits
CLOCK_NS = 50_000_000  # how exactly two moments are compared


@dataclass(frozen=True, slots=True)
class Grant:
    """An executor was told that a process is its own, until a moment."""

    executor: str
    told_ns: int
    until_ns: int
    token: str


class Campaign:
    """A run of so many processes with a lease, over servers at some URLs."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        seed: int,
        processes: int,
        executors: int,
        lease_s: int,
        pace_s: float = 0.0,
    ) -> None:
        self.wanted = processes
        self.names = [f"e{number}" for number in range(executors)]
        self.faults: list[str] = []
        self.submitted: list[str] = []
        self.unsure = 0  # submits whose outcome nobody was told
        self.grants: dict[str, list[Grant]] = {}
        self.closed: dict[str, str] = {}
        self.closing: set[str] = set()  # a close was sent, whatever became of it
        self.answers: Counter[str] = Counter()
        self._seed = seed
        self._lease_s = lease_s
        self._pace_s = pace_s
        self._transports = [HttpTransport(url, max_connections=0) for url in urls]
        self._done = asyncio.Event()
        self._pending = 0

    def client(self, name: str, node: int) -> Client:
        return Client(self._transports[node], key(name), reply_s=REPLY_S)

    async def aclose(self) -> None:
        for transport in self._transports:
            await transport.close()

    async def found(self) -> None:
        """A colony and its executors, while all is well."""
        await Client(self._transports[0], OWNER).add_colony(
            Colony(colonyid=COLONY_OWNER.id, name=COLONY)
        )
        owner = Client(self._transports[0], COLONY_OWNER)
        for name in self.names:
            await owner.add_executor(
                Executor(
                    executorid=key(name).id, executortype=TYPE, executorname=name, colonyname=COLONY
                )
            )
            await owner.approve_executor(COLONY, name)

    async def run(self, deadline_s: float) -> None:
        """Until as many as wanted were submitted, and those that submitters know of are closed."""
        try:
            await self._run_all(deadline_s)
        except TimeoutError:
            left = len(set(self.submitted) - self.closed.keys())
            raise AssertionError(
                f"{len(self.submitted)} were submitted in {deadline_s} s, {left} of them not closed"
            ) from None

    async def _run_all(self, deadline_s: float) -> None:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for name in self.names:
                group.create_task(self._work(name))
            submitters = [group.create_task(self._submit(n)) for n in range(SUBMITTERS)]
            await asyncio.gather(*submitters)
            while not self._done.is_set():
                if self.faults or all(id in self.closed for id in self.submitted):
                    self._done.set()
                await asyncio.sleep(REST_S)

    async def drain(self, deadline_s: float) -> None:
        """Until nothing waits or runs: what nobody was told of, too."""
        self._done.clear()
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for name in self.names:
                group.create_task(self._work(name))
            client = self.client(self.names[0], 0)
            while not self._done.is_set():
                with contextlib.suppress(UnreachableError):
                    found = await client.colony_statistics(COLONY)
                    if self.faults or not is_busy(found):
                        self._done.set()
                await asyncio.sleep(REST_S)

    def enough(self) -> None:
        """Submit no more."""
        self.wanted = 0

    async def _submit(self, number: int) -> None:
        dice = random.Random(f"{self._seed}/submitter {number}")
        while len(self.submitted) + self._pending < self.wanted and not self.faults:
            client = self.client(dice.choice(self.names), dice.randrange(len(self._transports)))
            is_workflow = dice.random() < WORKFLOWS
            size = len(DIAMOND) if is_workflow else 1
            self._pending += size
            try:
                ids = await (self._one_workflow(client) if is_workflow else self._one(client))
            except NotSentError:
                await asyncio.sleep(REST_S)
            except UnreachableError:
                self.unsure += size
            except ServerError as error:
                self._note("submit", error)
                self.unsure += size
                await asyncio.sleep(REST_S)
            else:
                self.submitted += ids
                await asyncio.sleep(self._pace_s)
            finally:
                self._pending -= size

    async def _one(self, client: Client) -> list[str]:
        return [(await client.submit(self._spec())).processid]

    async def _one_workflow(self, client: Client) -> list[str]:
        specs = [
            self._spec(nodename=name, dependencies=parents) for name, parents in DIAMOND.items()
        ]
        made = await client.submit_workflow(WorkflowSpec(colonyname=COLONY, functionspecs=specs))
        return made.processids

    def _spec(self, **changes: Any) -> FunctionSpec:
        return spec(maxexectime=self._lease_s, maxretries=-1, maxwaittime=-1, **changes)

    async def _work(self, name: str) -> None:
        dice = random.Random(f"{self._seed}/{name}")
        while not self._done.is_set():
            client = self.client(name, dice.randrange(len(self._transports)))
            try:
                process = await client.assign(COLONY, timeout_s=POLL_S)
            except UnreachableError:
                await asyncio.sleep(REST_S)
            except ServerError as error:
                self._note("assign", error)
                await asyncio.sleep(REST_S)
            else:
                if process is not None:
                    await self._run(name, process, dice)

    async def _run(self, name: str, process: Process, dice: random.Random) -> None:
        id, until_ns = process.processid, from_text(process.execdeadline)
        earlier = self.grants.setdefault(id, [])
        token = f"{name}/{len(earlier)}"
        grant = Grant(name, time.time_ns(), until_ns, token)
        self._compare(id, earlier, grant)
        if not set(process.parents) <= self.closing:
            self.faults.append(f"{id} was given to {name} before its parents had ended")
        earlier.append(grant)
        if dice.random() < 0.2:
            await asyncio.sleep(dice.random() * 0.02)  # some work takes a while
        await self._close(grant, id, dice)

    def _compare(self, id: str, earlier: list[Grant], grant: Grant) -> None:
        """Nobody is given what is another's, or what was closed."""
        if id in self.closed:
            self.faults.append(f"{id} was given to {grant.executor} after it was closed")
        for other in earlier:
            if other.executor != grant.executor and grant.told_ns < other.until_ns - CLOCK_NS:
                self.faults.append(
                    f"{id} was given to {grant.executor} while {other.executor} had it"
                )

    async def _close(self, grant: Grant, id: str, dice: random.Random) -> None:
        out = Raw(f'["{grant.token}"]'.encode())
        body = self.client(grant.executor, 0).pack(CloseSuccessful(processid=id, out=out))
        self.closing.add(id)
        while True:
            client = self.client(grant.executor, dice.randrange(len(self._transports)))
            try:
                await client.deliver(body)
            except UnreachableError:
                await asyncio.sleep(REST_S)
            except ServerError as error:
                if not error.is_definite:
                    self.answers[f"close {error.status} {error.code}"] += 1
                    await asyncio.sleep(REST_S)
                    continue
                if time.time_ns() < grant.until_ns - CLOCK_NS:
                    self._note(f"close of {id} by {grant.executor}, whose lease runs", error)
                return
            else:
                break
        if self.closed.setdefault(id, grant.token) != grant.token:
            self.faults.append(f"{id} was closed as {self.closed[id]} and as {grant.token}")

    def _note(self, what: str, error: ServerError) -> None:
        """Answers that may be given in trouble are counted, others are faults."""
        self.answers[f"{what.partition(' ')[0]} {error.status} {error.code}"] += 1
        if error.is_definite:
            self.faults.append(f"{what}: {error.status} {error.code}: {error}")


def is_busy(found: Statistics) -> bool:
    """Whether anything waits or runs."""
    processes = found.waitingprocesses + found.runningprocesses
    return bool(processes + found.waitingworkflows + found.runningworkflows)
