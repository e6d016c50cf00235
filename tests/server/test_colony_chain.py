"""The chain of a colony: every change of members, owner and pause, each bound to the one before."""

from __future__ import annotations

import asyncio

from colonist_protocol.audit import colony_chain
from colonist_protocol.codec import decode, encode
from colonist_protocol.colony import PauseAssignments, ResumeAssignments
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.executor import AddExecutor, Executor
from colonist_protocol.identity import recover_digest
from colonist_server.repo import keys
from colonist_server.repo.records import ChangeRecord, decode_change
from colonist_server.repo.records import encode as packed
from colonist_server.repo.trail import line_of
from tests.server.people import World, world
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, TYPE, key


def colony_tag(made: World) -> bytes:
    return made.rooms.view.colonies[COLONY].tag


async def chain_of(made: World) -> list[EventLine]:
    tag = colony_tag(made)
    items = (await made.rooms.writes.store.range(keys.changes(tag), reverse=True)).items
    return [line_of(tag, decode_change(item.value)) for item in items]


def check(lines: list[EventLine], tag: bytes, *, first: int = 0) -> bytes:
    head = b""
    for n, line in enumerate(lines, first):
        assert (line.chain, line.n, line.prev) == (colony_chain(tag.hex()), n, head.hex())
        head = event_hash(line)
        assert decode(encode(line), EventLine, "") == line
        signer = recover_digest(bytes.fromhex(line.req), bytes.fromhex(line.sig))
        assert signer == line.who
    return head


@virtual
async def test_each_change_is_bound_to_the_one_before() -> None:
    async with world() as made:
        await made.populate()
        await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        lines = await chain_of(made)
        tag = colony_tag(made)
        assert lines[0].what == "colony_added"
        assert lines[-1].what == "paused"
        assert check(lines, tag) == made.rooms.trail.head(tag).head
        assert made.rooms.trail.head(tag).count == len(lines)


@virtual
async def test_a_hundred_changes_at_once_all_take_place() -> None:
    async with world() as made:
        await made.found()
        wanted = [
            Executor(
                executorid=key(name).id, executortype=TYPE, executorname=name, colonyname=COLONY
            )
            for name in (f"e{n}" for n in range(100))
        ]
        calls = (made.call(AddExecutor(executor=each), COLONY_OWNER) for each in wanted)
        await asyncio.gather(*calls)
        lines = await chain_of(made)
        assert len(lines) == 101
        check(lines, colony_tag(made))


@virtual
async def test_times_in_a_chain_grow_whatever_the_clock_does() -> None:
    async with world() as made:
        await made.found()
        for _ in range(3):
            await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
            await made.call(ResumeAssignments(colonyname=COLONY), COLONY_OWNER)
        items = (await made.rooms.writes.store.range(keys.changes(colony_tag(made)))).items
        times = [decode_change(item.value).time_ns for item in items]
        assert times == sorted(set(times), reverse=True)


def test_a_record_of_before_the_chain_has_no_place_in_it() -> None:
    old = ["paused", "", 1, b"\x01" * 32, b"\x02" * 32, b"\x03" * 65, b"{}"]
    record = decode_change(packed(old))
    assert isinstance(record, ChangeRecord)
    assert (record.n, record.prev) == (-1, b"")
