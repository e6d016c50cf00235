"""Two colonies with everybody that an access rule tells apart, and processes in every state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.claims import claim_key
from colonist_protocol.colony import AddColony, Colony, GetColonyStatistics
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    Executor,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.function import AddFunction, Function
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddLog
from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    GetProcesses,
    Process,
    SubmitFunctionSpec,
)
from colonist_protocol.user import AddUser, User
from colonist_server.repo.keys import EPOCH
from colonist_server.store.interface import Store
from tests.support import enrolling
from tests.support.crons import add_of as cron_of
from tests.support.generators import add_of as generator_of
from tests.support.memory_store import MemoryStore
from tests.support.rooms import (
    COLONY,
    COLONY_OWNER,
    OWNER,
    TYPE,
    Bench,
    Refused,
    bench,
    key,
    settle,
    spec,
)

OTHER = "other"
OTHER_OWNER = key("other owner")
STRANGER = key("stranger")

WHO: dict[str, Identity] = {
    "server owner": OWNER,
    "colony owner": COLONY_OWNER,
    "user": key("uma"),
    "approved": key("ada"),
    "approved too": key("ben"),
    "pending": key("pat"),
    "rejected": key("rex"),
    "unregistered": key("una"),
    "foreign owner": OTHER_OWNER,
    "foreign executor": key("eve"),
    "foreign user": key("ulf"),
    "stranger": STRANGER,
}


class World(Bench):
    """A bench on which people work. Members are ids of processes, by state."""

    waiting: str
    running: str
    succeeded: str
    failed: str
    cancelled: str
    attribute: str
    claim: str
    cron: str
    function: str
    generator: str
    workflow: str
    """Runs: `parent` does, the other waits for it."""
    parent: str
    idle: str
    """A workflow that nobody will run."""

    async def add(self, name: str, *, colony: str = COLONY, owner: Identity = COLONY_OWNER) -> None:
        """Add an executor, PENDING."""
        executor = Executor(
            executorid=key(name).id, executortype=TYPE, executorname=name, colonyname=colony
        )
        await self.call(AddExecutor(executor=executor), owner)

    async def enrol(
        self, name: str, *, colony: str = COLONY, owner: Identity = COLONY_OWNER
    ) -> Identity:
        """Add a user."""
        user = User(colonyname=colony, userid=key(name).id, name=name)
        await self.call(AddUser(user=user), owner)
        return key(name)

    async def populate(self) -> None:
        """Everybody of `WHO`."""
        await self.found("ada", "ben", "una")
        for name in ("pat", "rex"):
            await self.add(name)
        await self.call(RejectExecutor(colonyname=COLONY, executorname="rex"), COLONY_OWNER)
        await self.call(RemoveExecutor(colonyname=COLONY, executorname="una"), COLONY_OWNER)
        await self.enrol("uma")
        await self.settle_other()

    async def settle_other(self) -> None:
        """The other colony, with work and words of its own."""
        await self.call(AddColony(colony=Colony(colonyid=OTHER_OWNER.id, name=OTHER)), OWNER)
        await self.hire_in("eve", OTHER, OTHER_OWNER)
        await self.enrol("ulf", colony=OTHER, owner=OTHER_OWNER)

    async def hire_in(self, name: str, colony: str, owner: Identity) -> None:
        """Add and approve an executor of any colony."""
        await self.add(name, colony=colony, owner=owner)
        await self.call(ApproveExecutor(colonyname=colony, executorname=name), owner)

    async def employ(self) -> None:
        """A process in every state, an attribute, a function, a line in the log."""
        ids = [(await self.submit("uma")).processid for _ in range(4)]
        self.succeeded, self.failed, self.cancelled, self.running = ids
        for id in ids:
            assert (await self.assign("ada")).processid == id
        await self.close("ada", self.succeeded)
        await self.call(CloseFailed(processid=self.failed, errors=["too hot"]), key("ada"))
        await self.call(CancelProcess(processid=self.cancelled), key("uma"))
        self.waiting = (await self.submit("uma")).processid
        attribute = await self.call(attribute_of(self.running), key("ada"))
        self.attribute = attribute["attributeid"]
        self.function = (await self.call(function_of("ada"), key("ada")))["functionid"]
        await self.call(AddLog(processid=self.running, message="at work"), key("ada"))

    async def weave(self) -> None:
        """A workflow that runs, its parent run by ada, one that waits; a cron, a generator."""
        running = await self.submit_workflow("uma", {"a": [], "b": ["a"]}, priority=9)
        self.workflow = running.processgraphid
        self.parent = (await self.assign("ada")).processid
        assert self.parent == running.processids[0]
        idle = await self.submit_workflow("uma", {"a": [], "b": ["a"]}, executortype="nobody")
        self.idle = idle.processgraphid
        self.cron = (await self.call(cron_of(), key("uma")))["cronid"]
        self.generator = (await self.call(generator_of(), key("uma")))["generatorid"]
        self.claim = claim_key(await enrolling.open_claim(self)).id

    async def list(self, state: int, *, count: int = 100, **filters: str) -> list[str]:
        """Ids of processes in a state, in the order of the reply."""
        message = GetProcesses(colonyname=COLONY, count=count, state=state, **filters)
        return [process["processid"] for process in await self.call(message, key("ada"))]

    async def read(self, process: str) -> Process:
        """A process as a member sees it."""
        return await self.get("ada", process)

    async def statistics(self) -> dict[str, int]:
        """What the colony counts."""
        return await self.call(GetColonyStatistics(colonyname=COLONY), key("ada"))

    async def dump(self) -> dict[bytes, bytes]:
        """All that is stored, but for what time it is."""
        page = await self.rooms.members._writes.range(b"")
        return {item.key: item.value for item in page.items if item.key != EPOCH}


def attribute_of(process: str, name: str = "k", value: str = "v") -> AddAttribute:
    return AddAttribute(
        attribute=Attribute(
            targetid=process, attributetype=AttributeType.OUT, key=name, value=value
        )
    )


def function_of(executor: str, name: str = "f") -> AddFunction:
    return AddFunction(function=Function(executorname=executor, colonyname=COLONY, funcname=name))


def submit_of(**changes: Any) -> SubmitFunctionSpec:
    return SubmitFunctionSpec(spec=spec(**changes))


def out_of(process: Process) -> Any:
    return msgspec.json.decode(process.out)


def near(id: str) -> str:
    """An id of the same colony that was never given."""
    return id[:24] + "0" * 16 + id[40:]


async def parked(made: World, name: str, timeout: int = 100) -> asyncio.Task[Process]:
    """An assign that waits."""
    before = made.rooms.hand_over.parked()
    task = asyncio.create_task(made.assign(name, timeout))
    await settle()
    assert made.rooms.hand_over.parked() == before + 1
    return task


async def refusal(task: asyncio.Task[Process]) -> tuple[int, str]:
    """What an assign was refused with."""
    with pytest.raises(Refused) as refused:
        await task
    return refused.value.failure.status, refused.value.failure.code


async def run_one(made: World, outcome: str = "success", **changes: Any) -> str:
    """One process from its submission to its end."""
    id = (await made.submit("uma", **{"priority": 1, **changes})).processid
    assert (await made.assign("ada")).processid == id
    if outcome == "success":
        await made.close("ada", id)
    elif outcome == "failed":
        await made.call(CloseFailed(processid=id, errors=["e"]), key("ada"))
    elif outcome == "cancelled":
        await made.call(CancelProcess(processid=id), key("uma"))
    return id


@asynccontextmanager
async def world(store: Store | None = None, **settings: Any) -> AsyncGenerator[World]:
    """A server's rooms with nobody in them yet."""
    async with MemoryStore() as empty, bench(store or empty, **settings) as made:
        yield World(made.dispatch)


class Crash(Exception):
    """The server's process ends without a chance to finish anything."""


@asynccontextmanager
async def crashing(store: Store, **settings: Any) -> AsyncGenerator[World]:
    """A server that dies at the end of the block."""
    try:
        async with world(store, **settings) as made:
            yield made
            raise Crash  # noqa: TRY301 - from where the block ends
    except* Crash:
        pass
