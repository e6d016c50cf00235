"""Assigns that are presented again, at this node or another: answered at once, and nothing hoarded.

In virtual time.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_protocol import codec, envelope
from colonist_protocol.envelope import Failure
from colonist_protocol.process import AssignProcess, CloseSuccessful, StandingOrder
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.cluster import cluster
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Bench, bench, key

ADA = key("ada")


async def granted(made: Bench, sent: sealing.Sealed, index: int = 0) -> Any:
    answer = await made.dispatch.answer(envelope.with_index(sent.body, index))
    reply = sent.opened(answer.body, index=index).reply
    return reply.code if isinstance(reply, Failure) else codec.scan(reply)


async def standing_order(made: Bench) -> sealing.Sealed:
    """One of Ada's, for one grant at a time, where six processes wait."""
    await made.found("ada")
    for _ in range(6):
        await made.submit("ada")
    await asyncio.sleep(1)
    order = AssignProcess(colonyname=COLONY, timeout=1, standing=StandingOrder(count=100, ahead=1))
    return sealing.of_now(made.dispatch, order, ADA, ttl=3600)


@pytest.mark.parametrize("parked_first", ["ada", "ben"])
@virtual
async def test_the_same_bytes_are_answered_when_the_dead_connection_was(parked_first: str) -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada", "ben")
        sent = sealing.of_now(made.dispatch, AssignProcess(colonyname=COLONY, timeout=60), ADA)
        other = asyncio.create_task(made.assign("ben", timeout=60))
        if parked_first == "ben":
            await asyncio.sleep(1)
        dead = asyncio.create_task(granted(made, sent))
        await asyncio.sleep(1)
        again = asyncio.create_task(granted(made, sent))
        await asyncio.sleep(1)
        for _ in range(2):
            await made.submit("ada", maxexectime=100)
        async with asyncio.timeout(1):
            first, second, of_ben = await asyncio.gather(dead, again, other)
        assert first["processid"] == second["processid"] != of_ben.processid
        assert first["attempt"]["token"] == second["attempt"]["token"]


@virtual
async def test_whose_first_presentation_ran_out_is_told_so_at_once() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        sent = sealing.of_now(made.dispatch, AssignProcess(colonyname=COLONY, timeout=60), ADA)
        dead = asyncio.create_task(granted(made, sent))
        await asyncio.sleep(50)
        again = asyncio.create_task(granted(made, sent))
        await asyncio.sleep(11)
        assert dead.done()
        assert again.done()
        assert (await dead, await again) == ("no_process", "no_process")


@virtual
async def test_at_another_node_too() -> None:
    async with cluster("a", "b") as nodes:
        a, b = nodes["a"].bench, nodes["b"].bench
        await nodes.elected()
        await a.found("ada")
        await asyncio.sleep(1)
        sent = sealing.of_now(a.dispatch, AssignProcess(colonyname=COLONY, timeout=60), ADA)
        dead = asyncio.create_task(granted(a, sent))
        await asyncio.sleep(1)
        again = asyncio.create_task(granted(b, sent))
        await asyncio.sleep(1)
        await a.submit("ada", maxexectime=100)
        async with asyncio.timeout(1):
            first, second = await asyncio.gather(dead, again)
        assert first["processid"] == second["processid"]


@virtual
async def test_a_node_that_is_behind_hoards_nothing_for_a_silent_device() -> None:
    async with cluster("a", "b") as nodes:
        a, b = nodes["a"].bench, nodes["b"].bench
        await nodes.elected()
        sent = await standing_order(a)
        nodes["b"].line.hold()
        await granted(a, sent, 0)
        assert await granted(b, sent, 1) == "unavailable"  # it knows that much, and looks again
        assert len(a.colony.running) == 1
        nodes["b"].line.flow()
        await asyncio.sleep(1)
        assert await granted(b, sent, 1) == "busy"
        assert await granted(a, sent, 1) == "busy"


@virtual
async def test_grants_go_on_at_either_node_as_the_device_speaks() -> None:
    async with cluster("a", "b") as nodes:
        a, b = nodes["a"].bench, nodes["b"].bench
        await nodes.elected()
        sent = await standing_order(a)
        seen: set[str] = set()
        for index in range(6):
            at, other = (a, b) if index % 3 else (b, a)
            both = await asyncio.gather(granted(at, sent, index), granted(at, sent, index))
            reply = both[0]
            assert reply["processid"] == both[1]["processid"]
            assert await granted(other, sent, index + 1) == "busy"
            seen.add(reply["processid"])
            await _close(at, reply)
            await asyncio.sleep(0.1)
        assert len(seen) == 6


async def _close(made: Bench, reply: Any) -> None:
    closing = CloseSuccessful(processid=reply["processid"])
    sent = sealing.of_attempt(made.dispatch, closing, ADA, reply["attempt"]["token"], 1)
    assert (await sealing.present(made.dispatch, sent))[0] == {"outcome": "counted"}
