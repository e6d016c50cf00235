"""A server dies, or its store's answer is lost, at the commit of what an attempt says.

The executor hears nothing, and sends the same bytes to another node: it is answered as if nothing
had happened, and what it said has its effect once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from colonist_core.process import What
from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.log import AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, ReleaseProcess, Renew, SetOutput, State
from colonist_server.repo import keys
from colonist_server.repo.records import decode_closed, decode_live
from tests.server.people import World
from tests.support import attempts, sealing
from tests.support.attempts import Held, take
from tests.support.clock import virtual
from tests.support.cluster import LATE_S, Cluster, cluster
from tests.support.rooms import COLONY, key
from tests.support.sealing import Sealed

WAYS = ("before", "after", "late", "lost")


def output_of(mine: Held) -> Message:
    return SetOutput(processid=mine.process, out=msgspec.Raw(b'["x"]'))


def attribute_of(mine: Held) -> Message:
    kind = AttributeType.OUT
    wanted = Attribute(targetid=mine.process, attributetype=kind, key="k", value="v")
    return AddAttribute(attribute=wanted)


def line_of(mine: Held) -> Message:
    return AddLog(processid=mine.process, message="line")


def renewal_of(mine: Held) -> Message:
    return Renew(processid=mine.process, count=1)


def release_of(mine: Held) -> Message:
    return ReleaseProcess(processid=mine.process)


MESSAGES: dict[str, tuple[Callable[[Held], Message], What]] = {
    "success": (Held.success, What.SUCCEEDED),
    "failure": (Held.failure, What.FAILED),
    "output": (output_of, What.CONFIRMED),
    "attribute": (attribute_of, What.CONFIRMED),
    "line": (line_of, What.CONFIRMED),
    "renewal": (renewal_of, What.RENEWED),
    "release": (release_of, What.RELEASED),
}


async def say_and_lose(made: Cluster, mine: Held, sealed: Sealed, way: str) -> None:
    """Send it to node a, which dies at the first commit, or does not hear what became of it."""
    line = made["a"].line
    line.arm(0, way)
    saying = asyncio.create_task(mine.made.dispatch.answer(sealed.body))
    await asyncio.sleep(1)
    assert line.was_met
    saying.cancel()
    with suppress(asyncio.CancelledError):
        await saying
    if way != "lost":
        await made.kill("a")


async def events(made: World, process: str) -> list[int]:
    stored = await made.dump()
    pid = bytes.fromhex(process)
    end = stored.get(keys.closed(pid))
    live = decode_closed(end).live if end is not None else decode_live(stored[keys.live(pid)])
    return [event.what for event in live.events]


async def hired(made: Cluster) -> tuple[World, World]:
    a, b = (World(made[name].bench.dispatch) for name in ("a", "b"))
    await a.found("ada", "ben")
    await a.enrol("uma")
    await a.submit("uma", maxexectime=60, maxretries=9)
    return a, b


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MESSAGES)
@virtual
async def test_what_an_attempt_says_counts_once_wherever_the_server_dies(
    name: str, way: str
) -> None:
    make, what = MESSAGES[name]
    async with cluster("a", "b") as made:
        a, b = await hired(made)
        mine = await take(a, "ada")
        sealed = mine.sealed(make(mine))
        await say_and_lose(made, mine, sealed, way)
        replies = [await attempts.told(b, sealed)]
        await asyncio.sleep(2 * LATE_S)
        replies.append(await attempts.told(b, sealed))
        assert (await events(b, mine.process)).count(what) == 1
        for reply in replies:
            check(name, reply)
        lines = [each for each in await b.dump() if each.startswith(keys.LOG)]
        assert len(lines) == (2 if name == "line" else 0)


def check(name: str, reply: Any) -> None:
    match name:
        case "success" | "failure":
            assert reply == {"outcome": "counted"}
        case "attribute":
            assert reply["value"] == "v"
        case "renewal":
            assert reply["lease"] > 60
        case _:
            assert reply == {}


@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_a_result_is_recorded_once_wherever_the_server_dies(way: str) -> None:
    async with cluster("a", "b") as made:
        a, b = await hired(made)
        late = await take(a, "ada")
        await late.release()
        await take(a, "ben")
        sealed = late.sealed(late.failure())
        await say_and_lose(made, late, sealed, way)
        for _ in range(2):
            assert await attempts.told(b, sealed) == {"outcome": "recorded"}
            await asyncio.sleep(2 * LATE_S)
        assert (await events(b, late.process)).count(What.RECORDED) == 1


@pytest.mark.parametrize("is_first", [True, False])
@virtual
async def test_what_a_repeated_assign_was_told_is_not_taken_back(is_first: bool) -> None:
    """Its first reply is lost at one node, the same bytes are presented at another."""
    async with cluster("a", "b") as made:
        await made.elected()
        a, b = made["a"].bench, made["b"].bench
        await a.found("ada")
        id = (await a.submit("ada", maxexectime=100)).processid
        await asyncio.sleep(1)
        ask = AssignProcess(colonyname=COLONY, timeout=2)
        sent = sealing.of_now(a.dispatch, ask, key("ada"))
        answer = await a.dispatch.answer(sent.body)
        assert answer.lost is not None
        if is_first:
            answer.lost()
        shown = await attempts.told(b, sent)
        if not is_first:
            answer.lost()
        await asyncio.sleep(1)
        live = a.rooms.view.rows[bytes.fromhex(id)].live()
        assert (live.state == State.RUNNING) == ("attempt" in shown)
        assert ("attempt" in shown) or is_first
        for _ in range(3):
            await attempts.told(a, sent)
        whats = [event.what for event in live.events]
        assert whats == [
            What.ASSIGNED,
            What.UNDELIVERED if live.state == State.WAITING else What.REDELIVERED,
        ]
        assert a.rooms.view.rows[bytes.fromhex(id)].live() == live
