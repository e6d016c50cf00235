"""What a server exports is sound for the verifier, which shares nothing with what made it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from colonist_core.process import What
from colonist_protocol import claims
from colonist_protocol.audit import GetAudit
from colonist_protocol.audit_events import Tally
from colonist_protocol.claims import RemoveClaim
from colonist_protocol.colony import (
    ChangeColonyId,
    GetMemberHistory,
    PauseAssignments,
    SetPolicy,
)
from colonist_protocol.cron import RunCron
from colonist_protocol.executor import ChangeExecutorId, RemoveExecutor
from colonist_protocol.process import (
    AssignProcess,
    CloseSuccessful,
    RemoveAllProcesses,
    RemoveProcess,
    SubmitFunctionSpec,
)
from colonist_protocol.user import ChangeUserId, RemoveUser
from colonist_protocol.workflow import RemoveAllProcessGraphs
from colonist_server.repo import keys
from colonist_server.repo.records import decode_closed, encode
from colonist_server.store.interface import Guard, Put
from tests.server.history import History, historic
from tests.server.people import World
from tests.support import attempts, enrolling, sealing
from tests.support.audit_files import finished
from tests.support.audit_memory import examine, problem
from tests.support.clock import virtual
from tests.support.crons import add_of
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import COLONY, COLONY_OWNER, key, settle, spec

ADA, UMA = key("ada"), key("uma")
SOON_S = 11.0
"""By then all is in a checkpoint."""


async def file_of(made: World, *, size: int = 0) -> bytes:
    lines: list[bytes] = []
    cursor = ""
    while True:
        message = GetAudit(colonyname=COLONY, cursor=cursor, size=size)
        page = await made.call(message, made.owner)
        lines += [line.encode() for line in page["lines"]]
        cursor = page["cursor"]
        if not cursor:
            return finished(lines)


async def sound(made: World) -> Tally:
    """All is proven but what is newer than the last checkpoint: nothing, after a while."""
    await asyncio.sleep(SOON_S)
    data = await file_of(made)
    for step in (2_000, 1 << 20):
        tally, unknown, _ = examine(data, made.rooms.server_keys.id, step=step)
        assert not unknown
        assert tally.unproven == 0
    return tally


async def by_hand(made: World) -> None:
    await made.call(RemoveAllProcessGraphs(colonyname=COLONY, state=-1), COLONY_OWNER)
    await made.call(RemoveAllProcesses(colonyname=COLONY, state=-1), COLONY_OWNER)


async def one_by_one(made: World) -> None:
    id = (await made.submit("uma")).processid
    await made.call(RemoveProcess(processid=id), UMA)


async def members(made: World) -> None:
    """Everybody changes, and works before and after."""
    await made.enrol("ben")
    await made.hire("eve")
    await made.call(ChangeUserId(colonyname=COLONY, userid=key("ben 2").id), key("ben"))
    await made.call(ChangeExecutorId(colonyname=COLONY, executorid=key("eve 2").id), key("eve"))
    await made.submit("ben 2")
    await made.assign("eve 2")
    await asyncio.sleep(SOON_S)
    await made.call(RemoveUser(colonyname=COLONY, name="ben"), COLONY_OWNER)
    await made.call(RemoveExecutor(colonyname=COLONY, executorname="eve"), COLONY_OWNER)
    await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
    new = key("new owner")
    await made.call(ChangeColonyId(colonyname=COLONY, colonyid=new.id), COLONY_OWNER)
    made.owner = new
    await made.enrol("zoe", owner=new)


async def devices(made: World) -> None:
    """Come by claims, work under seals, and go with their claim."""
    code = await enrolling.open_claim(made, count=3, type="cli")
    devices = [key("device 1"), key("device 2")]
    for device in devices:
        shown = await enrolling.enrol(made.dispatch, code, device)
        await made.submit_specs("uma", [spec(nodename="a", executortype=shown["executortype"])])
    for device in devices:
        message = AssignProcess(colonyname=COLONY, timeout=5)
        process = await enrolling.say(made.dispatch, message, device)
        token = process["attempt"]["token"]
        close = CloseSuccessful(processid=process["processid"], out=msgspec.Raw(b"[1]"))
        sent = sealing.of_attempt(made.dispatch, close, device, token, 1)
        for _ in range(2):
            await sealing.present(made.dispatch, sent)
    remove = RemoveClaim(colonyname=COLONY, claim=claims.claim_key(code).id, executors=True)
    sent = sealing.of_now(made.dispatch, remove, COLONY_OWNER)
    for _ in range(2):
        await sealing.present(made.dispatch, sent)
    said = await made.call(GetMemberHistory(colonyname=COLONY, count=4), COLONY_OWNER)
    assert [(each["what"], each["by"]) for each in said] == [
        *[("executor_removed", COLONY_OWNER.id)] * 2,
        ("claim_removed", COLONY_OWNER.id),
        ("executor_enrolled", devices[1].id),
    ]
    assert len({(each["digest"], each["signature"]) for each in said[:3]}) == 1


async def crons(made: World) -> None:
    """By themselves, and at once by hand."""
    id = (await made.call(add_of(), UMA))["cronid"]
    await asyncio.sleep(21)
    await made.call(RunCron(cronid=id), ADA)


async def sealed_submits(made: World) -> None:
    for message in (SubmitFunctionSpec(spec=spec()), SetPolicy(colonyname=COLONY)):
        who = UMA if isinstance(message, SubmitFunctionSpec) else COLONY_OWNER
        sent = sealing.of_now(made.dispatch, message, who)
        for _ in range(3):
            await sealing.present(made.dispatch, sent)


async def assigns_again(made: World) -> None:
    await made.submit("uma")
    sent = sealing.of_now(made.dispatch, AssignProcess(colonyname=COLONY, timeout=5), ADA)
    for _ in range(3):
        shown = await attempts.told(made, sent)
    live = made.rooms.view.rows[bytes.fromhex(shown["processid"])].live()
    assert [event.what for event in live.events][-2:] == [What.ASSIGNED, What.REDELIVERED]


async def nothing(made: World) -> None:
    del made


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize(
    "do", [nothing, by_hand, one_by_one, members, devices, crons, sealed_submits, assigns_again]
)
@virtual
async def test_an_export_is_sound(
    do: Callable[[World], Awaitable[None]], is_archived: bool
) -> None:
    archive = MemoryArchive() if is_archived else None
    async with historic(archive) as made:
        made.owner = COLONY_OWNER
        await History(made).make()
        if is_archived:
            await asyncio.sleep(400)
        await do(made)
        tally = await sound(made)
        assert tally.events > 20


@virtual
async def test_what_the_server_promised_in_replies_is_in_the_export() -> None:
    async with historic(None) as made:
        made.owner = COLONY_OWNER
        await made.found("ada")
        await made.enrol("uma")
        sent = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), UMA)
        process, submitted = await sealing.present(made.dispatch, sent)
        assign = AssignProcess(colonyname=COLONY, timeout=5)
        process, _ = await sealing.present(
            made.dispatch, sealing.of_now(made.dispatch, assign, ADA)
        )
        close = CloseSuccessful(processid=process["processid"])
        token = process["attempt"]["token"]
        sent = sealing.of_attempt(made.dispatch, close, ADA, token, 1)
        _, closed = await sealing.present(made.dispatch, sent)
        wanted = {submitted.event, closed.event}
        assert len(wanted - {""}) == 2
        data = await file_of(made)
        assert examine(data, made.rooms.server_keys.id, wanted=tuple(wanted))[2] == wanted


@virtual
async def test_what_retention_forgot_is_said_and_sound() -> None:
    async with historic(None, retention_age_s=600.0) as made:
        made.owner = COLONY_OWNER
        await History(made).make()
        await asyncio.sleep(700)
        assert (await sound(made)).removed > 5
        await asyncio.sleep(4000)
        await made.submit("uma")
        assert (await sound(made)).removed == 0
        assert b'"what":"history_forgotten"' in await file_of(made)


@virtual
async def test_who_edits_the_store_is_found_out() -> None:
    """He has all of it but the server's key."""
    async with historic(None) as made:
        made.owner = COLONY_OWNER
        history = History(made)
        await history.make()
        await sound(made)
        pid = bytes.fromhex(history.lone[0])
        item = await made.rooms.writes.past.read(keys.closed(pid))
        assert item is not None
        closed = decode_closed(item.value)
        *before, last = closed.live.events
        events = (*before, msgspec.structs.replace(last, time_ms=last.time_ms + 1))
        changed = msgspec.structs.replace(
            closed, live=msgspec.structs.replace(closed.live, events=events)
        )
        await made.rooms.writes.store.commit(
            [Guard(item.key, item.modified)], [Put(item.key, encode(changed))]
        )
        await settle()
        found = problem(await file_of(made), made.rooms.server_keys.id)
        assert "names another event 2" in found


@virtual
async def test_who_joins_while_an_export_is_made_does_not_spoil_it() -> None:
    async with historic(None) as made:
        await made.found("ada")
        await made.enrol("uma")
        for _ in range(5):
            await made.submit("uma")
        await asyncio.sleep(SOON_S)
        lines: list[bytes] = []
        cursor = ""
        has_joined = False
        while cursor or not lines:
            message = GetAudit(colonyname=COLONY, cursor=cursor, size=1_500)
            page = await made.call(message, COLONY_OWNER)
            lines += [line.encode() for line in page["lines"]]
            cursor = page["cursor"]
            if ".p." in cursor and not has_joined:
                has_joined = True
                await asyncio.sleep(60)  # ids begin with the minute: the new one comes last
                await made.enrol("zoe")
                await made.submit("zoe")
        tally, unknown, _ = examine(finished(lines), made.rooms.server_keys.id)
        assert (has_joined, tally.unproven, unknown) == (True, 1, "")
