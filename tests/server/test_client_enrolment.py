"""The client library enrols, manages claims and reads policies, against a server."""

from __future__ import annotations

import pytest

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.sealer import Pin
from colonist_protocol.claims import Approval, Card
from colonist_protocol.colony import PlainRequests
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.executor import ExecutorState
from colonist_protocol.identity import Identity
from tests.support.clock import virtual
from tests.support.enrolling import claim_of, code_of
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, SERVER_KEYS, Bench, bench, key
from tests.support.transports import DirectTransport

CODE = code_of("card")
CARD = Card("colony.example", SERVER_KEYS.id, COLONY, CODE)


def client(made: Bench, identity: Identity, *, is_pinned: bool = True) -> Client:
    async def answer(body: bytes) -> bytes:
        return (await made.dispatch.answer(body)).body

    pin = Pin(SERVER_KEYS.id) if is_pinned else None
    return Client(DirectTransport(answer), identity, pin=pin)


@virtual
async def test_from_a_claim_to_an_executor_and_its_end() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        owner, device = client(made, COLONY_OWNER), client(made, key("device"))
        claim = await owner.add_claim(claim_of(CODE, count=2, approval=Approval.PERSON))
        assert [each.claim for each in await owner.claims(COLONY)] == [claim.claim]
        first = await device.enrol(CARD, "board 7")
        assert first.state == ExecutorState.PENDING
        (waiting,) = await owner.enrolled(COLONY, state=ExecutorState.PENDING)
        assert (waiting.executorid, waiting.hw) == (key("device").id, "board 7")
        await owner.approve_executor(COLONY, waiting.executorname)
        assert (await device.enrol(CARD, "board 7")).state == ExecutorState.APPROVED
        await owner.remove_claim(COLONY, claim.claim, executors=True)
        with pytest.raises(ServerError, match="Access denied"):
            await device.executors(COLONY)
        assert await owner.claims(COLONY) == []


@virtual
async def test_the_policy() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        owner = client(made, COLONY_OWNER)
        await owner.set_policy(COLONY, PlainRequests.REFUSE)
        told = await client(made, key("ada")).policy(COLONY)
        assert told.plainrequests == PlainRequests.REFUSE
        with pytest.raises(ServerError, match=r"must be sealed: .*COLONIST_SERVER_ID"):
            await client(made, key("ada"), is_pinned=False).policy(COLONY)


@virtual
async def test_without_a_pin_nobody_enrols() -> None:
    async with bench(MemoryStore()) as made:
        with pytest.raises(InvalidValueError, match="sealed"):
            await client(made, key("device"), is_pinned=False).enrol(CARD, "board 7")
