"""A server's rooms without its ways in, for tests: a colony, its executors, calls by message."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from colonist_protocol import codec, envelope
from colonist_protocol.colony import AddColony, Colony
from colonist_protocol.envelope import Failure
from colonist_protocol.executor import AddExecutor, ApproveExecutor, Executor
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CloseSuccessful,
    GetProcess,
    Process,
    SubmitFunctionSpec,
)
from colonist_protocol.tokens import ServerKeys
from colonist_protocol.workflow import (
    GetProcessGraph,
    ProcessGraph,
    SubmitWorkflowSpec,
    WorkflowSpec,
)
from colonist_server.archive.interface import Archive
from colonist_server.config import ServerConfig
from colonist_server.repo.clock import Timer
from colonist_server.repo.nouns import Colony as ColonyView
from colonist_server.rpc.dispatch import Answer, Dispatch
from colonist_server.rpc.rooms import Rooms
from colonist_server.store.interface import Store
from colonist_server.work import at_work

EPOCH_NS = 1_800_000_000_000_000_000
COLONY = "dev"
TYPE = "cli"


def key(name: str) -> Identity:
    """The same key for the same name."""
    return Identity.from_entropy(hashlib.sha3_256(name.encode()).digest())


OWNER = key("server owner")
COLONY_OWNER = key("colony owner")
SERVER_KEYS = ServerKeys(key("server"))
"""The same at all nodes of a store."""


class LoopClock:
    """The loop's time, virtual where the loop is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last_ns = 0

    def now_ns(self) -> int:
        self._last_ns = max(EPOCH_NS + int(self._loop.time() * 1e9), self._last_ns + 1)
        return self._last_ns

    def monotonic(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_at(when, callback)


Nodes = Mapping[str, list[str]]


class Refused(Exception):
    """The server answered with a failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.status} {failure.code}: {failure.message}")
        self.failure = failure


class Bench:
    """Calls on the rooms of one server, in a colony named `COLONY`."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch

    @property
    def rooms(self) -> Rooms:
        return self.dispatch.rooms

    @property
    def colony(self) -> ColonyView:
        return self.rooms.view.colonies[COLONY]

    async def found(self, *executors: str) -> None:
        """Found the colony, with approved executors of type `TYPE`."""
        await self.call(AddColony(colony=Colony(colonyid=COLONY_OWNER.id, name=COLONY)), OWNER)
        for name in executors:
            await self.hire(name)

    async def hire(self, name: str, type: str = TYPE) -> Identity:
        """Add and approve an executor."""
        wanted = Executor(
            executorid=key(name).id, executortype=type, executorname=name, colonyname=COLONY
        )
        await self.call(AddExecutor(executor=wanted), COLONY_OWNER)
        await self.call(ApproveExecutor(colonyname=COLONY, executorname=name), COLONY_OWNER)
        return key(name)

    async def answer(self, message: Message, identity: Identity) -> Answer:
        return await self.dispatch.answer(envelope.pack_request(message, identity))

    async def call(self, message: Message, identity: Identity) -> Any:
        """The reply's JSON as plain values. Raises `Refused`."""
        return codec.scan(_payload(await self.answer(message, identity)))

    async def refuse(self, message: Message, identity: Identity) -> Refused:
        """The refusal that a message meets."""
        try:
            reply = await self.call(message, identity)
        except Refused as refused:
            return refused
        raise AssertionError(f"{message} was answered with {reply}")

    async def process(self, message: Message, identity: Identity) -> Process:
        """The reply as a process. Raises `Refused`."""
        return codec.decode(_payload(await self.answer(message, identity)), Process, "reply")

    async def submit(self, name: str, **changes: Any) -> Process:
        return await self.process(SubmitFunctionSpec(spec=spec(**changes)), key(name))

    async def submit_workflow(self, name: str, nodes: Nodes, **changes: Any) -> ProcessGraph:
        """Submit a workflow of nodes by name, each with the names of its parents."""
        specs = [
            spec(nodename=node, dependencies=parents, **changes) for node, parents in nodes.items()
        ]
        return await self.submit_specs(name, specs)

    async def submit_specs(self, name: str, specs: list[FunctionSpec]) -> ProcessGraph:
        """Submit a workflow of these."""
        wanted = WorkflowSpec(colonyname=COLONY, functionspecs=specs)
        reply = await self.answer(SubmitWorkflowSpec(spec=wanted), key(name))
        return codec.decode(_payload(reply), ProcessGraph, "reply")

    async def graph(self, name: str, id: str) -> ProcessGraph:
        reply = await self.answer(GetProcessGraph(processgraphid=id), key(name))
        return codec.decode(_payload(reply), ProcessGraph, "reply")

    async def assign(self, name: str, timeout: int = 10) -> Process:
        message = AssignProcess(colonyname=COLONY, timeout=timeout)
        return await self.process(message, key(name))

    async def close(self, name: str, process_id: str, out: bytes = b'["done"]') -> None:
        message = CloseSuccessful(processid=process_id, out=msgspec.Raw(out))
        await self.call(message, key(name))

    async def get(self, name: str, process_id: str) -> Process:
        return await self.process(GetProcess(processid=process_id), key(name))


def spec(**changes: Any) -> FunctionSpec:
    """A spec for `COLONY` and `TYPE`; members of the conditions may be given too."""
    names = set(Conditions.__struct_fields__)
    conditions = {name: changes.pop(name) for name in list(changes) if name in names}
    where = Conditions(**{"colonyname": COLONY, "executortype": TYPE, **conditions})
    return FunctionSpec(**{"funcname": "f", "conditions": where, **changes})


@asynccontextmanager
async def bench(
    store: Store,
    *,
    archive: Archive | None = None,
    server_keys: ServerKeys = SERVER_KEYS,
    **settings: Any,
) -> AsyncGenerator[Bench]:
    """A server's rooms at work on a store, on the loop's clock."""
    config = ServerConfig(owner=OWNER.id, **settings)
    async with at_work(
        config, store, LoopClock(), OWNER.id, server_keys=server_keys, archive=archive
    ) as dispatch:
        yield Bench(dispatch)


async def settle(rounds: int = 50) -> None:
    """Let everything that is ready run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def until(after_s: float) -> None:
    """Until so many seconds after the test began, and whatever is due then is done."""
    await asyncio.sleep(after_s - asyncio.get_running_loop().time())
    await settle()


async def refused(server: Bench, message: Message) -> tuple[int, str, str]:
    """Status, code and words of the refusal that the executor `e1` meets."""
    failure = (await server.refuse(message, key("e1"))).failure
    return failure.status, failure.code, failure.message


def _payload(answer: Answer) -> bytes:
    payload = envelope.parse_reply(answer.body)
    if isinstance(payload, Failure):
        raise Refused(payload)
    return payload
