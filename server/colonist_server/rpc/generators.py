"""Messages about generators: COLONIES-RPC section 2.8."""

from __future__ import annotations

import msgspec

from colonist_protocol import generator as wire
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.times import to_text
from colonist_server.repo import keys
from colonist_server.repo.budget import Budget
from colonist_server.repo.definitions import why_held
from colonist_server.repo.generator import Generator
from colonist_server.repo.nouns import Colony
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms


async def add(rooms: Rooms, call: Call, message: wire.AddGenerator) -> Reply:
    """Make a generator; the caller becomes the initiator of its workflows."""
    keys.check_part(message.generator.name, "generator name")
    made = await rooms.generators.add(call.colony, call.member, message.generator)
    return Reply(_shown(call.colony, made))


async def added_again(rooms: Rooms, call: Call, message: wire.AddGenerator, value: bytes) -> Reply:
    """Show the generator that this request has made before. Raises `NotFoundError`."""
    del message
    return Reply(_shown(call.colony, rooms.generators.get(value)))


async def get(rooms: Rooms, call: Call, message: wire.GetGenerator) -> Reply:
    """Read one generator."""
    found = rooms.generators.get(bytes.fromhex(message.generatorid))
    return Reply(_shown(call.colony, found))


async def resolve(rooms: Rooms, call: Call, message: wire.ResolveGenerator) -> Reply:
    """Read one generator by its name."""
    return Reply(_shown(call.colony, rooms.generators.resolve(call.colony, message.generatorname)))


async def list_some(rooms: Rooms, call: Call, message: wire.GetGenerators) -> Reply:
    """List generators, oldest first; fewer than `count` over `REPLY_BYTES`."""
    if not 0 <= message.count <= wire.MAX_LIST:
        raise InvalidValueError(f"Count is not within 0 and MaxCount limit <{wire.MAX_LIST}>")
    found = rooms.generators.view.of(call.colony.tag)
    return Reply(Budget().first([_shown(call.colony, each) for each in found[: message.count]]))


async def pack(rooms: Rooms, call: Call, message: wire.PackGenerator) -> Reply:
    """Store one argument."""
    del call
    await rooms.generators.pack(bytes.fromhex(message.generatorid), message.arg)
    return NOTHING


async def remove(rooms: Rooms, call: Call, message: wire.RemoveGenerator) -> Reply:
    """Remove a generator and the arguments that wait at it."""
    del call
    await rooms.generators.remove(bytes.fromhex(message.generatorid))
    return NOTHING


def _shown(colony: Colony, generator: Generator) -> wire.Generator:
    record = generator.definition
    return wire.Generator(
        generatorid=generator.id,
        initiatorid=record.initiator_id,
        initiatorname=record.initiator,
        colonyname=colony.record.name,
        name=record.name,
        workflowspec=record.spec,
        trigger=record.trigger,
        timeout=record.timeout_s,
        firstpack=to_text(generator.first_pack_ns()),
        lastrun=to_text(generator.firings.last_ns),
        queuesize=len(generator.waiting),
        checkerperiod=wire.CHECKER_PERIOD_MS,
        disabledreason=record.disabled or why_held(colony, record) or msgspec.UNSET,
    )
