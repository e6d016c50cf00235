"""The trail of changes of members and owner (S16): who, when, by which signed request."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from colonist_protocol.claims import RemoveClaim
from colonist_protocol.codec import decode
from colonist_protocol.colony import (
    MAX_CHANGES,
    ChangeColonyId,
    GetMemberHistory,
    MemberChange,
    PauseAssignments,
    RemoveColony,
    ResumeAssignments,
    SetPolicy,
)
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    Capabilities,
    ChangeExecutorId,
    Executor,
    RejectExecutor,
    RemoveExecutor,
    Software,
)
from colonist_protocol.identity import Identity, digest, recover_digest
from colonist_protocol.message import Message
from colonist_protocol.user import ChangeUserId, RemoveUser
from colonist_server.repo import keys
from colonist_server.repo.trail import Changed
from tests.server.people import World, world
from tests.support.clock import virtual
from tests.support.enrolling import claim_of, code_of
from tests.support.rooms import COLONY, COLONY_OWNER, EPOCH_NS, OWNER, TYPE, key

ADA, UMA, NEW = key("ada"), key("uma"), key("new")
CLAIM = claim_of(code_of("card"))


async def history(
    made: World, by: Identity = COLONY_OWNER, *, count: int = 100, since: int = 0, before: int = 0
) -> list[MemberChange]:
    message = GetMemberHistory(colonyname=COLONY, count=count, since=since, before=before)
    return [
        decode(json.dumps(each).encode(), MemberChange, "") for each in await made.call(message, by)
    ]


@virtual
async def test_s16_every_change_leaves_a_record_that_proves_who_asked() -> None:
    new_owner = key("owner 2")
    again = Executor(executorid=ADA.id, executortype=TYPE, executorname="ada", colonyname=COLONY)
    steps: list[tuple[Changed, str, Message, Identity]] = [
        (Changed.EXECUTOR_AGAIN, "ada", AddExecutor(executor=again), COLONY_OWNER),
        (
            Changed.EXECUTOR_REJECTED,
            "ada",
            RejectExecutor(colonyname=COLONY, executorname="ada"),
            COLONY_OWNER,
        ),
        (
            Changed.EXECUTOR_APPROVED,
            "ada",
            ApproveExecutor(colonyname=COLONY, executorname="ada"),
            COLONY_OWNER,
        ),
        (Changed.EXECUTOR_ID, "ada", ChangeExecutorId(colonyname=COLONY, executorid=NEW.id), ADA),
        (
            Changed.EXECUTOR_REMOVED,
            "ada",
            RemoveExecutor(colonyname=COLONY, executorname="ada"),
            COLONY_OWNER,
        ),
        (Changed.USER_ID, "uma", ChangeUserId(colonyname=COLONY, userid=key("uma 2").id), UMA),
        (Changed.USER_REMOVED, "uma", RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER),
        (Changed.PAUSED, "", PauseAssignments(colonyname=COLONY), COLONY_OWNER),
        (Changed.RESUMED, "", ResumeAssignments(colonyname=COLONY), COLONY_OWNER),
        (Changed.POLICY, "", SetPolicy(colonyname=COLONY), COLONY_OWNER),
        (Changed.CLAIM_ADDED, CLAIM.claim, CLAIM, COLONY_OWNER),
        (
            Changed.CLAIM_REMOVED,
            CLAIM.claim,
            RemoveClaim(colonyname=COLONY, claim=CLAIM.claim),
            COLONY_OWNER,
        ),
        (
            Changed.COLONY_ID,
            "",
            ChangeColonyId(colonyname=COLONY, colonyid=new_owner.id),
            COLONY_OWNER,
        ),
    ]
    async with world(may_reregister=True) as made:
        await made.found("ada")
        await made.enrol("uma")
        for _, _, message, by in steps:
            await made.call(message, by)
        found = (await history(made, new_owner))[::-1]
    first = [Changed.COLONY_ADDED, Changed.EXECUTOR_ADDED, Changed.EXECUTOR_APPROVED]
    assert [each.what for each in found] == [
        *first,
        Changed.USER_ADDED,
        *(what for what, *_ in steps),
    ]
    # What is left is tested where it happens: retention, enrolment, late results.
    elsewhere = {Changed.FORGOTTEN, Changed.EXECUTOR_ENROLLED, Changed.RESULT_RECORDED}
    assert set(Changed) - elsewhere == {each.what for each in found}
    assert found[0].by == OWNER.id
    for change, (_, name, message, by) in zip(found[4:], steps, strict=True):
        assert (change.name, change.by) == (name, by.id)
        assert json.loads(base64.b64decode(change.payload))["msgtype"] == message.msgtype()
    for change in found:
        assert change.digest == digest(change.payload.encode()).hex()
        signer = recover_digest(bytes.fromhex(change.digest), bytes.fromhex(change.signature))
        assert signer == change.by
    times = [change.timestamp for change in found]
    assert times == sorted(set(times))


@virtual
async def test_s16_what_the_server_does_by_itself_is_told_too() -> None:
    async with world(stale_s=1.0, presence_every_s=5.0) as made:
        await made.found("ada")
        await made.submit("ada")
        await asyncio.sleep(20)
        change = (await history(made))[0]
    assert (change.what, change.name) == (Changed.EXECUTOR_REMOVED, "ada")
    assert (change.by, change.digest, change.signature, change.payload) == ("", "", "", "")


@virtual
async def test_s16_records_are_read_newest_first_in_pages() -> None:
    async with world() as made:
        await made.found(*(f"e{n}" for n in range(60)))
        pages = [await history(made)]
        while pages[-1]:
            pages.append(await history(made, count=50, before=pages[-1][-1].timestamp))
        times = [change.timestamp for page in pages for change in page]
        assert times == sorted(times, reverse=True)
        assert (len(times), len(set(times)), len(pages[0])) == (121, 121, MAX_CHANGES)
        assert [each.timestamp for each in await history(made, since=times[5])] == times[:5]
        assert await history(made, count=0) == []
        assert await history(made, count=-1) == []
        assert await history(made, before=EPOCH_NS) == []
        assert await history(made, since=2**63 - 1) == []
        assert len(await history(made, since=-(2**63), before=-(2**63))) == MAX_CHANGES
        message = GetMemberHistory(colonyname=COLONY, count=MAX_CHANGES + 1)
        assert (await made.refuse(message, COLONY_OWNER)).failure.code == "invalid_value"


@virtual
async def test_s16_a_long_request_is_kept_by_its_digest() -> None:
    software = Software(name="x" * 80_000)
    wanted = Executor(
        executorid=ADA.id,
        executortype=TYPE,
        executorname="ada",
        colonyname=COLONY,
        capabilities=Capabilities(software=[software]),
    )
    async with world() as made:
        await made.found()
        await made.call(AddExecutor(executor=wanted), COLONY_OWNER)
        change = (await history(made))[0]
    assert (change.what, change.payload) == (Changed.EXECUTOR_ADDED, "")
    signer = recover_digest(bytes.fromhex(change.digest), bytes.fromhex(change.signature))
    assert signer == COLONY_OWNER.id


@virtual
async def test_s16_a_refused_change_leaves_no_record() -> None:
    async with world() as made:
        await made.populate()
        before = await history(made)
        for message, by in (
            (RemoveUser(colonyname=COLONY, name="nobody"), COLONY_OWNER),
            (RemoveUser(colonyname=COLONY, name="uma"), ADA),
            (ChangeExecutorId(colonyname=COLONY, executorid=UMA.id), ADA),
            (ApproveExecutor(colonyname=COLONY, executorname="una"), COLONY_OWNER),
        ):
            await made.refuse(message, by)
        assert await history(made) == before


@pytest.mark.parametrize("who", ["ada", "uma", "server owner", "other owner"])
@virtual
async def test_s16_the_trail_is_the_colony_owners(who: str) -> None:
    async with world() as made:
        await made.populate()
        message = GetMemberHistory(colonyname=COLONY)
        assert (await made.refuse(message, key(who))).failure.code == "access_denied"


@virtual
async def test_s16_the_trail_goes_with_its_colony() -> None:
    async with world() as made:
        await made.populate()
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        left = [each for each in await made.dump() if each.startswith(keys.CHANGES)]
        assert len(left) == 4  # the other colony's
        await made.found()
        assert [each.what for each in await history(made)] == [Changed.COLONY_ADDED]
