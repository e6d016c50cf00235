"""Every kind of key is changed while work runs: nothing is lost, and nothing counts twice.

Three servers on one store, executors and users that seal what they send, in virtual time. Keys of
executors, users, the colony's owner and the server's owner change by message; the servers' own key
changes node by node, each of them started anew twice.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import Final

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, Retry
from colonist_client.sealer import Pin
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.identity import Identity
from colonist_protocol.process import State
from colonist_protocol.tokens import ServerKeys
from colonist_protocol.user import AddUser, User
from tests.support.clock import virtual
from tests.support.cluster import Cluster, cluster
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, spec

NODES: Final = ("a", "b", "c")
OLD, NEW = key("old server"), key("new server")
STEPS: Final = (ServerKeys(OLD, coming=NEW), ServerKeys(NEW, [OLD]))
WORKERS: Final = 6
JOBS: Final = 300
_numbers = itertools.count()


class AnyNode:
    """Asks a node that is there; one that stops answers nothing more."""

    way = "any node"

    def __init__(self, made: Cluster, chance: random.Random) -> None:
        self._made = made
        self._chance = chance

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        members = list(self._made.members.values())
        if not members:
            raise NotSentError("no node is there")
        member = self._chance.choice(members)
        asked = asyncio.create_task(member.bench.dispatch.answer(body))
        done, _ = await asyncio.wait(
            (asked, member.task), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
        )
        if asked in done:
            return asked.result().body
        asked.cancel()
        raise UnreachableError("the node has gone")

    async def close(self) -> None:
        """Nothing to let go of."""


class House:
    """The servers, and clients of them."""

    def __init__(self, made: Cluster) -> None:
        self.made = made
        self.chance = random.Random(7)
        self.pin = Pin(OLD.id)
        self.runs: Counter[str] = Counter()
        self.is_over = False

    def client(self, identity: Identity) -> Client:
        backoff = Backoff(uniform=self.chance.uniform, base_s=0.05, cap_s=0.5)
        way = AnyNode(self.made, self.chance)
        return Client(way, identity, pin=self.pin, retry=Retry(backoff=backoff, attempts=200))

    async def roll(self) -> None:
        """Start every node anew with another set of keys, twice."""
        for keys in STEPS:
            for name in NODES:
                await asyncio.sleep(0.5)
                await self.made.stop(name)
                await self.made.start(name, server_keys=keys)


class Worker:
    """An executor that changes its key while it works, and goes on with what it runs."""

    def __init__(self, house: House, name: str) -> None:
        self.house = house
        self.name = name
        self.client = house.client(key(name))
        self.rotations = 0

    async def work(self) -> None:
        while not self.house.is_over:
            client = self.client
            try:
                process = await client.assign(COLONY, timeout_s=2)
            except ServerError:
                assert client is not self.client, f"{self.name} was refused under its own key"
                continue  # it asked under the key that it had
            if process is not None:
                await self.run(process.processid)

    async def run(self, id: str) -> None:
        self.house.runs[id] += 1
        await asyncio.sleep(self.house.chance.uniform(0.0, 0.3))
        while True:
            client = self.client
            try:
                await client.close(id, [self.name])
            except ServerError:
                if client is self.client:
                    raise
            else:
                return

    async def rotate(self) -> None:
        while not self.house.is_over:
            await asyncio.sleep(self.house.chance.uniform(0.5, 1.5))
            new = key(f"{self.name} {next(_numbers)}")
            await self.client.change_executor_id(COLONY, new.id)
            after = self.house.client(new)
            after.attempts = self.client.attempts
            self.client = after
            self.rotations += 1


async def submit(house: House) -> list[str]:
    """Users submit, and change their keys between."""
    client = house.client(key("uma"))
    ids: list[str] = []
    for number in range(JOBS):
        ids.append((await client.submit(spec(maxexectime=60, maxretries=0))).processid)
        await asyncio.sleep(0.02)
        if number % 40 == 39:
            new = key(f"uma {number}")
            await client.change_user_id(COLONY, new.id)
            client = house.client(new)
    return ids


async def crown(house: House) -> int:
    """The owners of colony and server change theirs."""
    owner, server = COLONY_OWNER, OWNER
    changes = 0
    while not house.is_over:
        await asyncio.sleep(0.7)
        changes += 1
        new, newest = key(f"owner {changes}"), key(f"server owner {changes}")
        await house.client(owner).change_colony_id(COLONY, new.id)
        await house.client(server).change_server_id(newest.id)
        owner, server = new, newest
        assert await house.client(owner).member_history(COLONY, count=1)
        assert await house.client(server).cluster()
    return changes


@virtual
async def test_every_kind_of_key_changes_under_load_and_no_task_is_lost() -> None:
    async with cluster() as made:
        for name in NODES:
            await made.start(name, server_keys=ServerKeys(OLD))
        names = [f"e{number}" for number in range(WORKERS)]
        await made["a"].bench.found(*names)
        user = User(colonyname=COLONY, userid=key("uma").id, name="uma")
        await made["a"].bench.call(AddUser(user=user), COLONY_OWNER)
        house = House(made)
        workers = [Worker(house, name) for name in names]
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.work())
                group.create_task(worker.rotate())
            crowned = group.create_task(crown(house))
            rolled = group.create_task(house.roll())
            ids = await group.create_task(submit(house))
            await rolled
            reader = workers[0]
            for id in ids:
                while True:
                    client = reader.client
                    try:
                        found = await client.wait(id, timeout_s=100)
                    except ServerError:
                        assert client is not reader.client
                    else:
                        break
                assert found.state == State.SUCCESS
            house.is_over = True
        assert len(set(ids)) == JOBS
        assert house.runs == Counter(ids), "each was given out once"
        counts = made["a"].bench.colony
        assert (counts.waiting, len(counts.running), counts.ended[State.SUCCESS]) == (0, 0, JOBS)
        assert house.pin.id == NEW.id
        assert min(worker.rotations for worker in workers) > 2
        assert crowned.result() > 5
