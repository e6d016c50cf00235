"""Messages about crons: COLONIES-RPC section 2.8."""

from __future__ import annotations

import msgspec

from colonist_protocol import cron as wire
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.times import to_text
from colonist_server.repo import keys
from colonist_server.repo.budget import Budget
from colonist_server.repo.cron_view import Cron
from colonist_server.repo.definitions import why_held
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import CronRecord
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms


async def add(rooms: Rooms, call: Call, message: wire.AddCron) -> Reply:
    """Make a cron; the caller becomes the initiator of its workflows."""
    keys.check_part(message.cron.name, "cron name")
    made = await rooms.crons.add(call.colony, call.member, message.cron)
    return Reply(_shown(call.colony, made, made.record))


async def added_again(rooms: Rooms, call: Call, message: wire.AddCron, value: bytes) -> Reply:
    """Show the cron that this request has made before. Raises `NotFoundError`."""
    del message
    found = rooms.crons.get(value)
    return Reply(_shown(call.colony, found, found.record))


async def get(rooms: Rooms, call: Call, message: wire.GetCron) -> Reply:
    """Read one cron."""
    found = rooms.crons.get(bytes.fromhex(message.cronid))
    shown = _shown(call.colony, found, found.record)
    return Reply(msgspec.structs.replace(shown, checkerperiod=wire.CHECKER_PERIOD_MS))


async def list_some(rooms: Rooms, call: Call, message: wire.GetCrons) -> Reply:
    """List crons, oldest first; fewer than `count` over `REPLY_BYTES`."""
    if not 0 <= message.count <= wire.MAX_LIST:
        raise InvalidValueError(f"Count is not within 0 and MaxCount limit <{wire.MAX_LIST}>")
    found = rooms.crons.view.of(call.colony.tag)[: message.count]
    return Reply(Budget().first([_shown(call.colony, each, each.record) for each in found]))


async def run(rooms: Rooms, call: Call, message: wire.RunCron) -> Reply:
    """Start a cron's workflow now; the cron as it was before."""
    cron = rooms.crons.find_to_run(bytes.fromhex(message.cronid))
    before = await rooms.cron_runs.run(cron, call.cause, call.payload)
    return Reply(_shown(call.colony, cron, before))


async def run_again(rooms: Rooms, call: Call, message: wire.RunCron, value: bytes) -> Reply:
    """Show the cron of which this request has started a run before."""
    del value
    found = rooms.crons.get(bytes.fromhex(message.cronid))
    return Reply(_shown(call.colony, found, found.record))


async def remove(rooms: Rooms, call: Call, message: wire.RemoveCron) -> Reply:
    """Remove a cron; workflows that it started go on."""
    del call
    await rooms.crons.remove(bytes.fromhex(message.cronid))
    return NOTHING


def _shown(colony: Colony, cron: Cron, record: CronRecord) -> wire.Cron:
    return wire.Cron(
        cronid=cron.id,
        initiatorid=record.initiator_id,
        initiatorname=record.initiator,
        colonyname=colony.record.name,
        name=record.name,
        cronexpression=record.expression,
        interval=record.interval_s,
        random=record.is_random,
        nextrun=to_text(record.turn.at_ns),
        lastrun=to_text(record.last_ns),
        workflowspec=record.spec,
        prevprocessgraphid=keys.graph_id(record.previous).hex() if record.previous else "",
        waitforprevprocessgraph=record.waits,
        disabledreason=record.disabled or why_held(colony, record) or msgspec.UNSET,
    )
