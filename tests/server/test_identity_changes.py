"""Changes of identity: signed with the old key, effective at once, and nothing is lost by them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_protocol.colony import (
    ChangeColonyId,
    GetColonies,
    PauseAssignments,
    RemoveColony,
)
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    ChangeExecutorId,
    Executor,
    RemoveExecutor,
)
from colonist_protocol.function import GetFunctions
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddExecutorLog, AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CloseFailed,
    CloseSuccessful,
    ReleaseProcess,
    SetOutput,
    State,
)
from colonist_protocol.server import ChangeServerId
from colonist_protocol.user import AddUser, ChangeUserId, GetUser, GetUsers, User
from colonist_server.repo import keys
from colonist_server.repo.identities import MAX_FORMER
from tests.server.house import house
from tests.server.people import (
    OTHER,
    OTHER_OWNER,
    WHO,
    World,
    attribute_of,
    crashing,
    function_of,
    world,
)
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, Refused, key, settle

ADA, BEN, UMA, NEW = key("ada"), key("ben"), key("uma"), key("new")

Make = Callable[[str], Message]

CHANGES: dict[str, tuple[Identity, Make, Message]] = {
    "server": (OWNER, lambda id: ChangeServerId(serverid=id), GetColonies()),
    "colony": (
        COLONY_OWNER,
        lambda id: ChangeColonyId(colonyname=COLONY, colonyid=id),
        PauseAssignments(colonyname=COLONY),
    ),
    "user": (
        UMA,
        lambda id: ChangeUserId(colonyname=COLONY, userid=id),
        GetUsers(colonyname=COLONY),
    ),
    "executor": (
        ADA,
        lambda id: ChangeExecutorId(colonyname=COLONY, executorid=id),
        AddExecutorLog(colonyname=COLONY, executorname="ada", message="here"),
    ),
}


async def change(made: World, old: Identity, new: Identity) -> None:
    await made.call(ChangeExecutorId(colonyname=COLONY, executorid=new.id), old)


async def close(made: World, process: str, by: Identity) -> None:
    await made.call(CloseSuccessful(processid=process, out=msgspec.Raw(b"[1]")), by)


async def assign(made: World, by: Identity, timeout: int = 1) -> str:
    message = AssignProcess(colonyname=COLONY, timeout=timeout)
    return (await made.process(message, by)).processid


@pytest.mark.parametrize("what", CHANGES)
@virtual
async def test_only_the_new_id_works_after_a_change(what: str) -> None:
    old, make, use = CHANGES[what]
    async with world() as made:
        await made.populate()
        await made.call(use, old)
        reply = await made.call(make(NEW.id), old)
        assert reply == msgspec.to_builtins(make(NEW.id))
        assert (await made.refuse(use, old)).failure.code == "access_denied"
        assert (await made.refuse(make(old.id), old)).failure.code == "access_denied"
        await made.call(use, NEW)
        await made.call(make(old.id), NEW)  # back again
        await made.call(use, old)


@pytest.mark.parametrize("what", CHANGES)
@virtual
async def test_a_change_survives_a_restart(what: str) -> None:
    old, make, use = CHANGES[what]
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            await made.call(make(NEW.id), old)
        async with world(store) as made:
            assert (await made.refuse(use, old)).failure.code == "access_denied"
            await made.call(use, NEW)


@pytest.mark.parametrize("what", CHANGES)
@virtual
async def test_a_change_is_learnt_from_the_store_by_who_did_not_make_it(what: str) -> None:
    old, make, use = CHANGES[what]
    async with MemoryStore() as store, world(store) as made, world(store, node="b") as other:
        await made.populate()
        await settle()
        await other.call(use, old)
        await made.call(make(NEW.id), old)
        await settle()
        assert (await other.refuse(use, old)).failure.code == "access_denied"
        await other.call(use, NEW)
        await other.call(make(old.id), NEW)
        await settle()
        await made.call(use, old)


@pytest.mark.parametrize("what", CHANGES)
@virtual
async def test_the_same_id_is_no_error_and_no_change(what: str) -> None:
    old, make, _ = CHANGES[what]
    async with world() as made:
        await made.populate()
        before = await made.dump()
        await made.call(make(old.id), old)
        assert await made.dump() == before


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("id", ["", "ab" * 31, "AB" * 32, "g" * 64, "ab" * 33, " " + "a" * 63])
@virtual
async def test_s13_what_is_no_id_is_refused(what: str, id: str) -> None:
    old, make, _ = CHANGES[what]
    async with world() as made:
        await made.populate()
        before = await made.dump()
        failure = (await made.refuse(make(id), old)).failure
        assert (failure.status, failure.code) == (400, "bad_id")
        assert await made.dump() == before


@pytest.mark.parametrize(
    ("what", "taken"),
    [
        ("colony", OTHER_OWNER),
        ("user", ADA),
        ("user", key("una")),
        ("executor", BEN),
        ("executor", UMA),
        ("executor", key("pat")),
    ],
)
@virtual
async def test_s12_an_id_that_is_taken_is_refused(what: str, taken: Identity) -> None:
    old, make, _ = CHANGES[what]
    async with world() as made:
        await made.populate()
        before = await made.dump()
        failure = (await made.refuse(make(taken.id), old)).failure
        assert (failure.status, failure.code) == (409, "exists")
        assert await made.dump() == before


@virtual
async def test_s12_one_id_may_be_a_member_of_two_colonies() -> None:
    async with world() as made:
        await made.populate()
        await change(made, ADA, key("eve"))
        message = AddExecutorLog(colonyname=OTHER, executorname="eve", message="still here")
        await made.call(message, key("eve"))


@virtual
async def test_s12_of_two_who_want_one_id_at_once_one_gets_it() -> None:
    async with world() as made:
        await made.populate()
        wanted: list[tuple[Message, Identity]] = [
            (ChangeExecutorId(colonyname=COLONY, executorid=NEW.id), ADA),
            (ChangeExecutorId(colonyname=COLONY, executorid=NEW.id), BEN),
            (ChangeUserId(colonyname=COLONY, userid=NEW.id), UMA),
            (AddUser(user=User(colonyname=COLONY, userid=NEW.id, name="new")), COLONY_OWNER),
        ]
        answers = await asyncio.gather(*(made.answer(*each) for each in wanted))
        assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]


@pytest.mark.parametrize("what", CHANGES)
@virtual
async def test_of_two_changes_at_once_by_one_key_one_counts(what: str) -> None:
    old, make, use = CHANGES[what]
    async with world() as made:
        await made.populate()
        news = [key("one"), key("two")]
        answers = await asyncio.gather(*(made.answer(make(new.id), old) for new in news))
        assert sorted(answer.status for answer in answers) == [200, 403]
        for new, answer in zip(news, answers, strict=True):
            assert (await made.answer(use, new)).status == answer.status


@virtual
async def test_neither_member_changes_the_other_nor_does_who_is_not_approved() -> None:
    async with world() as made:
        await made.populate()
        user = ChangeUserId(colonyname=COLONY, userid=NEW.id)
        mine = ChangeExecutorId(colonyname=COLONY, executorid=NEW.id)
        assert (await made.refuse(user, ADA)).failure.status == 403
        for who in ("user", "pending", "rejected", "unregistered", "colony owner"):
            assert (await made.refuse(mine, WHO[who])).failure.status == 403


# -- work that is under way (W15)


@virtual
async def test_w15_the_new_id_goes_on_with_what_the_old_one_began() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        running = made.running
        await change(made, ADA, NEW)
        for message in (
            SetOutput(processid=running, out=msgspec.Raw(b"[0]")),
            attribute_of(running, "step", "2"),
            AddLog(processid=running, message="going on"),
            CloseSuccessful(processid=running, out=msgspec.Raw(b"[1]")),
        ):
            assert (await made.refuse(message, ADA)).failure.code == "access_denied"
            assert (await made.refuse(message, BEN)).failure.code == "access_denied"
            await made.call(message, NEW)
        process = await made.get("uma", running)
        assert (process.state, process.assignedexecutorid) == (State.SUCCESS, ADA.id)
        late = CloseFailed(processid=running, errors=[])
        assert (await made.refuse(late, NEW)).failure.code == "conflict"
        assert (await made.refuse(late, BEN)).failure.code == "access_denied"


@virtual
async def test_w15_work_of_an_old_id_is_given_back_by_the_new_one() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await change(made, ADA, NEW)
        assert (await made.refuse(ReleaseProcess(processid=made.running), ADA)).failure
        await made.call(ReleaseProcess(processid=made.running), NEW)
        assert (await made.get("uma", made.running)).state == State.WAITING


@virtual
async def test_w15_an_assign_parked_under_the_old_id_is_refused_at_once() -> None:
    async with world() as made:
        await made.populate()
        parked = asyncio.create_task(made.assign("ada", 100))
        await settle()
        before = asyncio.get_running_loop().time()
        await change(made, ADA, NEW)
        with pytest.raises(Refused) as refused:
            await parked
        assert refused.value.failure.code == "access_denied"
        assert asyncio.get_running_loop().time() == before
        process = await made.submit("uma")
        assert await assign(made, NEW) == process.processid


@virtual
async def test_w15_a_process_on_its_way_to_the_old_id_is_not_lost() -> None:
    async with world() as made:
        await made.populate()
        parked = asyncio.create_task(made.answer(AssignProcess(colonyname=COLONY, timeout=9), ADA))
        await settle()
        process, _ = await asyncio.gather(made.submit("uma"), change(made, ADA, NEW))
        if (await parked).status == 200:
            await close(made, process.processid, NEW)
        else:
            assert await assign(made, NEW) == process.processid


@virtual
async def test_w15_what_the_old_id_may_never_have_seen_is_given_to_the_new_one() -> None:
    async with MemoryStore() as store:
        async with crashing(store) as made:
            await made.found("ada")
            await made.enrol("uma")
            process = await made.submit("uma")
            await made.assign("ada")
        async with world(store) as made:
            await change(made, ADA, NEW)
            assert await assign(made, NEW) == process.processid
            await close(made, process.processid, NEW)


@virtual
async def test_w15_removal_frees_what_runs_under_former_ids() -> None:
    async with world() as made:
        await made.found("ada", "ben")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        await change(made, ADA, NEW)
        await change(made, NEW, key("newer"))
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert await assign(made, BEN) == process.processid


@virtual
async def test_w15_another_key_under_a_known_name_inherits_no_work() -> None:
    async with world(may_reregister=True) as made:
        await made.found("ada", "ben")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        await change(made, ADA, NEW)
        wanted = Executor(
            executorid=key("machine 2").id,
            executortype=TYPE,
            executorname="ada",
            colonyname=COLONY,
        )
        await made.call(AddExecutor(executor=wanted), COLONY_OWNER)
        await made.call(ApproveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        for by in (ADA, NEW, key("machine 2")):
            with pytest.raises(Refused):
                await close(made, process.processid, by)
        assert await assign(made, BEN) == process.processid
        await made.enrol("new")  # whose id is free again
        await made.enrol("ada")  # and this former one


@virtual
async def test_w15_who_works_under_a_former_id_is_not_taken_for_stale() -> None:
    async with world(stale_s=60.0, presence_every_s=10.0) as made:
        await made.found("ada")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        await change(made, ADA, NEW)
        await asyncio.sleep(600)
        await close(made, process.processid, NEW)


@virtual
async def test_w15_no_other_member_takes_a_former_id() -> None:
    async with world() as made:
        await made.populate()
        await change(made, ADA, NEW)
        for message, by in (
            (ChangeExecutorId(colonyname=COLONY, executorid=ADA.id), BEN),
            (ChangeUserId(colonyname=COLONY, userid=ADA.id), UMA),
            (AddUser(user=User(colonyname=COLONY, userid=ADA.id, name="a")), COLONY_OWNER),
        ):
            assert (await made.refuse(message, by)).failure.code == "exists"


@virtual
async def test_w15_the_oldest_former_id_falls_out_when_nothing_runs_under_it() -> None:
    async with world() as made:
        await made.found("ada")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        chain = [ADA, *(key(f"ada {n}") for n in range(1, MAX_FORMER + 2))]
        for old, new in pairwise(chain[: MAX_FORMER + 1]):
            await change(made, old, new)
        last = chain[MAX_FORMER]
        message = ChangeExecutorId(colonyname=COLONY, executorid=chain[-1].id)
        failure = (await made.refuse(message, last)).failure
        assert (failure.status, failure.code) == (409, "conflict")
        assert process.processid in failure.message
        await close(made, process.processid, last)
        await change(made, last, chain[-1])
        await made.enrol("ada")  # whose id is free again
        assert len(made.colony.former) == MAX_FORMER


@virtual
async def test_w15_statistics_of_functions_go_on_counting() -> None:
    async with MemoryStore() as store:
        async with crashing(store, tallies_every_s=1e6) as made:
            await made.found("ada")
            await made.enrol("uma")
            await made.call(function_of("ada"), ADA)
            first, second = await made.submit("uma"), await made.submit("uma")
            await made.assign("ada")
            await made.assign("ada")
            await made.close("ada", first.processid)
            await change(made, ADA, NEW)
            await close(made, second.processid, NEW)
            assert await _count(made) == 2
        async with world(store) as made:
            assert await _count(made) == 2


async def _count(made: World) -> int:
    return (await made.call(GetFunctions(colonyname=COLONY), UMA))[0]["counter"]


# -- the server owner


@virtual
async def test_the_changed_server_owner_wins_over_the_configuration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.call(ChangeServerId(serverid=NEW.id), OWNER)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            async with world(store) as made:
                assert made.rooms.owner.id == NEW.id
        assert f"set COLONIES_SERVER_ID={NEW.id}" in caplog.text
        assert OWNER.id in caplog.text


@virtual
async def test_a_server_owner_as_configured_is_not_spoken_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world():
        pass
    assert "server owner" not in caplog.text


async def test_all_changes_stand_in_sqlite_and_go_over_http(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        await made.populate()
        await made.employ()
        async with Client(HttpTransport(made.url), OWNER) as client:
            await client.change_server_id(NEW.id)
        async with Client(HttpTransport(made.url), COLONY_OWNER) as client:
            await client.change_colony_id(COLONY, key("owner 2").id)
        async with Client(HttpTransport(made.url), ADA) as client:
            await client.change_executor_id(COLONY, key("ada 2").id)
        async with Client(HttpTransport(made.url), UMA) as client:
            await client.change_user_id(COLONY, key("uma 2").id)
        running = made.running
    async with house(tmp_path) as made:
        await made.close("ada 2", running)
        await made.call(GetUser(colonyname=COLONY, name="uma"), key("uma 2"))
        async with Client(HttpTransport(made.url), key("owner 2")) as client:
            changes = await client.member_history(COLONY, count=3)
        assert [each.what for each in changes] == [
            "user_id_changed",
            "executor_id_changed",
            "colony_id_changed",
        ]
        for old in (OWNER, COLONY_OWNER, ADA, UMA):
            assert (await made.refuse(GetColonies(), old)).failure.status == 403
        await made.call(RemoveColony(colonyname=COLONY), NEW)
        await made.call(RemoveColony(colonyname=OTHER), NEW)
        left = {key for key in await made.dump() if not key.startswith((b"m/", b"n/", b"nh/"))}
        assert left == set()


# -- nothing leaks (P9)


@virtual
async def test_p9_a_thousand_changes_leave_as_many_keys_as_a_few() -> None:
    async with world() as made:
        await made.found("ada")
        holders = [ADA, key("a"), key("b"), *(key(f"c{n}") for n in range(MAX_FORMER))]
        sizes: list[tuple[int, ...]] = []
        now = ADA
        for n in range(1, 1001):
            new = holders[n % len(holders)] if n % 2 else key(f"once {n}")
            if new.id != now.id:
                await change(made, now, new)
            now = new
            if n in (50, 1000):
                sizes.append(await _size(made))
        assert sizes[0] == sizes[1]


async def _size(made: World) -> tuple[int, ...]:
    stored = [key for key in await made.dump() if not key.startswith(keys.CHANGES)]
    view, colony = made.rooms.view, made.colony
    return (
        len(stored),
        len(colony.members),
        len(colony.former),
        len(colony.executors),
        len(view._graves),
        len(view._own),
        len(made.rooms.hand_over.doubtful),
        len(made.rooms.hand_over._rooms),
    )
