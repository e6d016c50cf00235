"""Changes of identity: signed with the old key, effective at once, and nothing is lost by them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
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
    ChangeExecutorId,
)
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddExecutorLog
from colonist_protocol.message import Message
from colonist_protocol.server import ChangeServerId
from colonist_protocol.user import AddUser, ChangeUserId, GetUser, GetUsers, User
from tests.server.house import house
from tests.server.people import (
    OTHER,
    OTHER_OWNER,
    WHO,
    world,
)
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, settle

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
        await made.call(ChangeExecutorId(colonyname=COLONY, executorid=key("eve").id), ADA)
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
        left = {
            key for key in await made.dump() if not key.startswith((b"m/", b"me", b"n/", b"nh/"))
        }
        assert left == set()
