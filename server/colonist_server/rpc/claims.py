"""Messages about claims and enrolment; ours alone."""

from __future__ import annotations

from typing import Final

from colonist_core.process import MILLISECOND_NS
from colonist_protocol import claims as wire
from colonist_protocol.claims import Approval
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.names import check_id
from colonist_protocol.times import to_text
from colonist_server.repo.claims import removed_at
from colonist_server.repo.nouns import Executor
from colonist_server.repo.records import ClaimRecord
from colonist_server.rpc import executors
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms

MAX_LIFE_MS: Final = 366 * 86_400 * 1000
_ANY_STATE: Final = -1


async def add(rooms: Rooms, call: Call, message: wire.AddClaim) -> Reply:
    """Let executors enrol by a claim."""
    warrant = call.warrant
    now_ms = rooms.clock.now_ns() // MILLISECOND_NS
    check_id(message.claim, "claim")
    wire.check_type(message.executortype)
    if not 1 <= message.count <= wire.MAX_COUNT:
        raise InvalidValueError(f"count {message.count} is not 1 to {wire.MAX_COUNT}")
    if not now_ms < message.expires <= now_ms + MAX_LIFE_MS:
        raise InvalidValueError(
            "expires is not within a year from now, in ms since 1970, by the server's clock "
            f"({to_text(now_ms * MILLISECOND_NS)}): is yours right?"
        )
    if message.approval not in set(Approval):
        raise InvalidValueError(f"approval is not one of {', '.join(Approval)}")
    record = ClaimRecord(
        type=message.executortype,
        count=message.count,
        ends_ns=message.expires * MILLISECOND_NS,
        approval=message.approval,
    )
    await rooms.claims.add(call.colony, message.claim, record, warrant)
    return Reply(_shown(message.claim, record), event=warrant.event)


async def added_again(rooms: Rooms, call: Call, message: wire.AddClaim, value: bytes) -> Reply:
    """Show the claim that this request has made before."""
    del value
    record = rooms.claims.find(call.colony.tag, message.claim)
    if record is None:  # it was removed since: as it was
        ends_ns = message.expires * MILLISECOND_NS
        record = ClaimRecord(message.executortype, message.count, ends_ns, message.approval)
    return Reply(_shown(message.claim, record))


async def list_all(rooms: Rooms, call: Call, message: wire.GetClaims) -> Reply:
    """List a colony's claims."""
    del message
    return Reply([_shown(id, record) for id, record in rooms.claims.of(call.colony.tag)])


async def remove(rooms: Rooms, call: Call, message: wire.RemoveClaim) -> Reply:
    """Let nobody enrol by a claim any more; on demand, remove all who did."""
    check_id(message.claim, "claim")
    n = await rooms.claims.remove(call.colony, message.claim, call.warrant)
    if message.executors:
        await rooms.claims.remove_who_came(call.colony, message.claim, n, call.warrant)
    return NOTHING


async def removed_again(rooms: Rooms, call: Call, message: wire.RemoveClaim, value: bytes) -> Reply:
    """Go on with what a stop may have interrupted: with those who had come until then."""
    n = removed_at(call.colony, value)
    if message.executors and n:
        await rooms.claims.remove_who_came(call.colony, message.claim, n, call.warrant)
    return NOTHING


async def list_enrolled(rooms: Rooms, call: Call, message: wire.GetEnrolled) -> Reply:
    """List executors that came by claims."""
    del rooms
    found = [
        _enrolled(executor)
        for executor in call.colony.executors.values()
        if executor.record.claim
        and message.claim in ("", executor.record.claim)
        and message.state in (_ANY_STATE, executor.record.state)
    ]
    return Reply(found)


async def enrol(rooms: Rooms, call: Call, message: wire.Enrol) -> Reply:
    """Make the caller an executor. That its proof is good was checked before."""
    warrant = call.warrant
    wire.check_hardware(message.hw)
    executor = await rooms.claims.enrol(
        call.colony, message.claim, message.executorid, message.hw, warrant
    )
    return Reply(executors.shown(call.colony, executor), event=warrant.event)


async def enrolled_again(rooms: Rooms, call: Call, message: wire.Enrol, value: bytes) -> Reply:
    """Show the executor that this request has made before, as it is now; never make one anew."""
    del value
    executor = rooms.claims.enrolled(call.colony, message.executorid, message.hw)
    return Reply(executors.shown(call.colony, executor))


def _shown(id: str, record: ClaimRecord) -> wire.Claim:
    return wire.Claim(
        claim=id,
        executortype=record.type,
        count=record.count,
        used=record.used,
        expires=record.ends_ns // MILLISECOND_NS,
        approval=record.approval,
    )


def _enrolled(executor: Executor) -> wire.Enrolled:
    record = executor.record
    return wire.Enrolled(
        executorname=executor.name,
        executorid=record.id,
        executortype=record.type,
        state=record.state,
        hw=record.hw,
        claim=record.claim,
        enrolled=record.commissioned_ns // MILLISECOND_NS,
    )
