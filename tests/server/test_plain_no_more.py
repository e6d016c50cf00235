"""From the moment at which a colony refuses plain requests, those that wait are refused too."""

from __future__ import annotations

import asyncio

from colonist_protocol.colony import SetPolicy
from colonist_protocol.process import AssignProcess
from colonist_server.repo.topics import Ending
from tests.server.following import follow, held_read, stream
from tests.server.people import parked, refusal, submit_of, world
from tests.server.test_sealed_subscriptions import KEYS, order, peopled, present
from tests.support.attempts import ask
from tests.support.clock import run_virtual, virtual
from tests.support.rooms import COLONY, COLONY_OWNER, Refused, key, settle
from tests.support.shared_store import Connection, SharedStore

REFUSE = SetPolicy(colonyname=COLONY, plainrequests="refuse")
ASSIGN = AssignProcess(colonyname=COLONY, timeout=100)
PLAIN_REFUSED = (403, "plain_refused")


async def code_of(held: asyncio.Task[object]) -> str:
    try:
        await held
    except Refused as refused:
        return refused.failure.code
    return ""


@virtual
async def test_an_assign_that_waits_is_refused_and_a_sealed_one_goes_on() -> None:
    loop = asyncio.get_running_loop()
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        await made.hire("ben")
        plain = await parked(made, "ada")
        sealed = asyncio.create_task(ask(made, ASSIGN, "ben"))
        await settle()
        before = loop.time()
        await made.call(REFUSE, COLONY_OWNER)
        assert await refusal(plain) == PLAIN_REFUSED
        assert loop.time() < before + 1
        assert made.rooms.hand_over.parked() == 1
        await ask(made, submit_of(), "uma")
        reply = await sealed
        assert isinstance(reply, dict)
        assert reply["assignedexecutorid"] == key("ben").id


@virtual
async def test_streams_end_and_held_reads_are_refused_but_for_sealed_ones() -> None:
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        id = (await made.submit("uma")).processid
        ears = [await stream(made), await follow(made, id), await stream(made, who="ada")]
        sealed = order(made)
        ear, _ = await present(made, sealed)
        plain = asyncio.create_task(made.call(held_read(id), key("uma")))
        held = asyncio.create_task(ask(made, held_read(id), "uma"))
        await settle()
        assert made.rooms.subscriptions.parked == 2
        await made.call(REFUSE, COLONY_OWNER)
        assert await code_of(plain) == "plain_refused"
        await settle()
        assert [each.endings for each in ears] == [[Ending.PLAIN_REFUSED]] * 3
        assert (ear.endings, made.rooms.subscriptions.count) == ([], 1)
        assert made.rooms.subscriptions.parked == 1
        assert isinstance(await ask(made, ASSIGN, "ada"), dict)
        assert isinstance(await held, dict)
        assert len(ear.frames) == 1


def test_at_another_node_too() -> None:
    async def story() -> None:
        shared = SharedStore()
        ways = [Connection(shared, answer_s=0.002, lag_s=0.003) for _ in range(2)]
        async with (
            world(ways[0], server_keys=KEYS, node="a") as a,
            world(ways[1], server_keys=KEYS, node="b") as b,
        ):
            await asyncio.sleep(0.1)
            await peopled(a)
            id = (await a.submit("uma", executortype="nobody")).processid
            await asyncio.sleep(0.1)
            waiting = asyncio.create_task(b.assign("ada", 100))
            held = asyncio.create_task(b.call(held_read(id), key("uma")))
            ear = await stream(b)
            await asyncio.sleep(0.1)
            assert b.rooms.hand_over.parked() == 1
            await a.call(REFUSE, COLONY_OWNER)
            await asyncio.sleep(0.1)
            assert waiting.done()
            assert await refusal(waiting) == PLAIN_REFUSED
            assert await code_of(held) == "plain_refused"
            assert ear.endings == [Ending.PLAIN_REFUSED]

    run_virtual(story())
