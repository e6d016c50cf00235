"""Objects made by sealed requests: made once, also when they were removed or moved away since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_protocol import envelope
from colonist_protocol.colony import RemoveColony
from colonist_protocol.envelope import Failure
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    RemoveAllProcesses,
    RemoveProcess,
    State,
    SubmitFunctionSpec,
)
from colonist_protocol.seal import read_request_seal
from colonist_protocol.subscription import SubscribeProcesses
from colonist_protocol.tokens import ServerKeys
from colonist_protocol.workflow import (
    CancelProcessGraph,
    RemoveProcessGraph,
    SubmitWorkflowSpec,
    WorkflowSpec,
)
from colonist_server.repo import keys
from colonist_server.repo.archiving import Archiving
from colonist_server.repo.once import LIFE_MINUTES, STORED_MINUTES
from colonist_server.store.interface import Store
from tests.server.people import World, crashing, world
from tests.server.test_sealed_law import minutes
from tests.support import sealing
from tests.support.clock import run_virtual, virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, spec
from tests.support.shared_store import Connection, SharedStore
from tests.support.stopping_store import WAYS, StoppingStore

KEYS = ServerKeys(key("server"))
ADA = key("ada")
MANY = 90
"""Members of a workflow that takes several commits."""


@asynccontextmanager
async def served(store: Store | None = None, **more: Any) -> AsyncGenerator[World]:
    async with world(store, server_keys=KEYS, **more) as made:
        yield made


async def ask(made: World, sent: sealing.Sealed) -> Any:
    return (await sealing.present(made.dispatch, sent))[0]


def submit(made: World, who: Identity = ADA, ttl: int = 600) -> sealing.Sealed:
    return sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), who, ttl)


def submit_many(made: World, count: int = MANY) -> sealing.Sealed:
    specs = [spec(nodename=f"n{number}") for number in range(count)]
    wanted = WorkflowSpec(colonyname=COLONY, functionspecs=specs)
    return sealing.of_now(made.dispatch, SubmitWorkflowSpec(spec=wanted), ADA)


def births(stored: dict[bytes, bytes]) -> int:
    return sum(k.startswith(keys.BIRTH) for k in stored)


# -- removed


@pytest.mark.parametrize("how", ["by id", "all"])
@pytest.mark.parametrize("is_closed", [False, True])
@virtual
async def test_what_was_removed_is_not_made_again(how: str, is_closed: bool) -> None:
    async with served() as made:
        await made.found("ada")
        sent = submit(made)
        id = (await ask(made, sent))["processid"]
        if is_closed:
            await made.call(CancelProcess(processid=id), ADA)
        if how == "by id":
            await made.call(RemoveProcess(processid=id), ADA)
        else:
            await made.call(RemoveAllProcesses(colonyname=COLONY, state=-1), COLONY_OWNER)
        for _ in range(2):
            again = await ask(made, sent)
            assert isinstance(again, Failure)
            assert again.code == "not_found"
            await minutes(made, STORED_MINUTES + 1)
        assert not births(await made.dump())
        await minutes(made, LIFE_MINUTES + 20)
        assert (await ask(made, sent)).code == "too_old"
        assert not [k for k in await made.dump() if k.startswith(keys.SEALED)]


@pytest.mark.parametrize("is_ended", [False, True])
@virtual
async def test_a_workflow_that_was_removed_is_not_made_again(is_ended: bool) -> None:
    async with served() as made:
        await made.found("ada")
        for count in (2, MANY):
            sent = submit_many(made, count)
            id = (await ask(made, sent))["processgraphid"]
            if is_ended:
                await made.call(CancelProcessGraph(processgraphid=id), ADA)
            await made.call(RemoveProcessGraph(processgraphid=id), ADA)
            again = await ask(made, sent)
            assert isinstance(again, Failure)
            assert again.code == "not_found"
            assert not births(await made.dump())


# -- moved to the archive


@virtual
async def test_what_was_archived_at_once_is_not_made_again() -> None:
    async with MemoryStore() as store, served(store, archive=MemoryArchive()) as made:
        await made.found("ada")
        sent, large = submit(made), submit_many(made, 2)
        id = (await ask(made, sent))["processid"]
        graph = (await ask(made, large))["processgraphid"]
        await made.call(CancelProcess(processid=id), ADA)
        await made.call(CancelProcessGraph(processgraphid=graph), ADA)
        await asyncio.sleep(1)
        archive = made.rooms.writes.past.archive
        assert archive is not None
        archiving = Archiving(made.rooms.writes, archive)
        await archiving.move(made.colony, [bytes.fromhex(id)])
        await archiving.move_workflow(made.colony, bytes.fromhex(graph)[: keys.WID_BYTES])
        assert not births(await made.dump())
        for _ in range(3):
            assert (await ask(made, sent))["processid"] == id
            assert (await ask(made, large))["processgraphid"] == graph
            assert not births(await made.dump())
            await minutes(made, STORED_MINUTES)
        await made.call(RemoveProcess(processid=id), ADA)
        await made.call(RemoveProcessGraph(processgraphid=graph), ADA)
        assert (await ask(made, sent)).code == "not_found"
        assert (await ask(made, large)).code == "not_found"
        assert not births(await made.dump())


@given(
    steps=st.lists(st.sampled_from(["ask", "minute", "close", "archive", "remove"]), max_size=14)
)
@settings(max_examples=60, deadline=None)
def test_however_it_fares_it_is_made_once(steps: list[str]) -> None:
    async def story() -> None:
        async with MemoryStore() as store, served(store, archive=MemoryArchive()) as made:
            await made.found("ada")
            archive = made.rooms.writes.past.archive
            assert archive is not None
            archiving = Archiving(made.rooms.writes, archive)
            sent = submit(made, ttl=3600)
            id = (await ask(made, sent))["processid"]
            pid = bytes.fromhex(id)
            state = "open"
            for step in steps:
                if step == "minute":
                    await minutes(made, 2)
                elif step == "close" and state == "open":
                    await made.call(CancelProcess(processid=id), ADA)
                    state = "closed"
                elif step == "archive" and state == "closed":
                    await archiving.move(made.colony, [pid])
                    state = "archived"
                elif step == "remove" and state != "removed":
                    await made.call(RemoveProcess(processid=id), ADA)
                    state = "removed"
                elif step == "ask":
                    again = await ask(made, sent)
                    shown = again.code if isinstance(again, Failure) else again["processid"]
                    assert shown == ("not_found" if state == "removed" else id)
                is_stored = state in ("open", "closed")
                assert births(await made.dump()) == is_stored

    run_virtual(story())


# -- large workflows


@pytest.mark.parametrize("way", WAYS)
def test_a_staged_workflow_is_made_once_wherever_the_server_dies(way: str) -> None:
    async def story() -> None:
        at, met = 0, True
        while met:
            async with StoppingStore() as store:
                met = await _stage_and_die(store, at, way)
            at += 1
        assert at > 4

    run_virtual(story())


async def _stage_and_die(store: StoppingStore, at: int, way: str) -> bool:
    async with crashing(store, server_keys=KEYS) as made:
        await made.found("ada")
        sent = submit_many(made)
        store.arm(at, way)
        asking = asyncio.create_task(ask(made, sent))
        stopping = asyncio.create_task(store.stopped.wait())
        await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        asking.cancel()
    store.stopped.clear()
    store.arm(-1, way)
    async with served(store) as made:
        first = await ask(made, sent)  # while what is left of the first try is swept away
        while isinstance(first, Failure):
            assert first.code in ("busy", "contended"), first
            await asyncio.sleep(1)
            first = await ask(made, sent)
        await asyncio.sleep(5)
        assert len(made.rooms.view.workflows) == 1
        assert births(await made.dump()) == MANY
        assert (await ask(made, sent))["processids"] == first["processids"]
    return store.was_met


def test_a_staged_workflow_is_made_once_by_two_nodes_at_once() -> None:
    async def story() -> None:
        shared = SharedStore()
        ways = [Connection(shared, answer_s=0.002, lag_s=0.003) for _ in range(2)]
        async with served(ways[0], node="a") as a, served(ways[1], node="b") as b:
            await asyncio.sleep(0.1)
            await a.found("ada")
            sent = submit_many(a)
            answers: list[Any] = await asyncio.gather(*(ask(each, sent) for each in (a, b, b, a)))
            while any(isinstance(each, Failure) for each in answers):
                assert all(
                    each.code in ("busy", "contended")
                    for each in answers
                    if isinstance(each, Failure)
                )
                answers = [await ask(each, sent) for each in (a, b)]
            assert len({tuple(each["processids"]) for each in answers}) == 1
            await asyncio.sleep(5)
            assert len(a.rooms.view.workflows) == len(b.rooms.view.workflows) == 1
            assert births(await a.dump()) == MANY

    run_virtual(story())


# -- others, and colonies of the same name


@virtual
async def test_who_signs_anothers_bytes_takes_nothing_from_them() -> None:
    async with served() as made:
        await made.found("ada", "eve")
        await made.submit("ada")
        for message in (
            SubmitFunctionSpec(spec=spec()),
            AssignProcess(colonyname=COLONY, timeout=1),
        ):
            sent = sealing.of_now(made.dispatch, message, ADA)
            theirs = _signed_by(sent, key("eve"), message)
            stolen, own = await ask(made, theirs), await ask(made, sent)
            assert stolen["processid"] != own["processid"]
            if message.msgtype() == "submitfuncspecmsg":
                assert own["initiatorname"] == "ada"
            else:
                assert own["assignedexecutorid"] == ADA.id


def _signed_by(sent: sealing.Sealed, thief: Identity, message: Message) -> sealing.Sealed:
    """The same payload and the same seal, under another signature."""
    was = envelope.parse_request(sent.body)
    seal, _ = read_request_seal(was.seal, was.payloadtype)
    other = sealing.seal(message, thief, seal)
    now = envelope.parse_request(other.body)
    assert (now.payload, now.seal, other.re) == (was.payload, was.seal, sent.re)
    return other


@virtual
async def test_what_was_sealed_for_a_removed_colony_is_not_for_the_next_of_its_name() -> None:
    async with served() as made:
        await made.found("ada")
        sent = submit(made)
        await ask(made, sent)
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.found("ada")
        refused = await ask(made, sent)
        assert isinstance(refused, Failure)
        assert refused.code == "too_old"
        assert not made.colony.waiting
        await ask(made, submit(made))
        assert made.colony.waiting == 1


@virtual
async def test_a_success_that_changed_nothing_changes_nothing_later() -> None:
    async with served() as made:
        await made.found("ada")
        wanted = RemoveAllProcesses(colonyname=COLONY, state=State.WAITING)
        sent = sealing.of_now(made.dispatch, wanted, COLONY_OWNER)
        assert await ask(made, sent) == {}
        await made.submit("ada")
        assert await ask(made, sent) == {}
        assert made.colony.waiting == 1


# -- what no signature covers


@virtual
async def test_a_refusal_of_what_nobody_signed_is_not_sealed() -> None:
    async with served() as made:
        await made.found("ada")
        sent = sealing.of_now(made.dispatch, CancelProcess(processid="ab" * 32), ADA, ttl=60)
        for kind in (
            "getserverinfomsg",
            "versionmsg",
            "getcolonymsg",
            "nomsg",
            "subscribeprocessmsg",
        ):
            body = sent.body.replace(b'"cancelprocessmsg"', f'"{kind}"'.encode())
            answer = await made.dispatch.answer(body)
            assert b'"seal"' not in answer.body
            assert answer.status in (400, 403)
        wanted = SubscribeProcesses(colonyname=COLONY)
        order = sealing.of_now(made.dispatch, wanted, ADA, ttl=60)
        assert b'"seal"' not in (await made.dispatch.answer(order.body)).body


@virtual
async def test_an_assign_that_was_answered_with_nothing_is_granted_nothing_later() -> None:
    async with served() as made:
        await made.found("ada")
        message = AssignProcess(colonyname=COLONY, timeout=1)
        sent = sealing.of_now(made.dispatch, message, ADA)
        assert (await ask(made, sent)).code == "no_process"
        await made.submit("ada")
        assert (await ask(made, sent)).code == "no_process"
        assert made.colony.waiting == 1
        assert (await ask(made, sealing.of_now(made.dispatch, message, ADA)))["processid"]
