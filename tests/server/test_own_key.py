"""The keys of the server sign its word, and are nobody's: no caller, no member, no owner."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from colonist_protocol import envelope
from colonist_protocol.colony import AddColony, ChangeColonyId, Colony, GetColonies, GetColony
from colonist_protocol.executor import AddExecutor, ChangeExecutorId, Executor
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import SubmitFunctionSpec
from colonist_protocol.server import ChangeServerId
from colonist_protocol.tokens import ServerKeys
from colonist_protocol.user import AddUser, ChangeUserId, GetUsers, User
from colonist_server.store.interface import StoreError
from tests.server.people import OTHER, OTHER_OWNER, world
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, Bench, bench, key, spec

OLD, NOW, NEXT = key("old server"), key("server of now"), key("next server")
KEYS = ServerKeys(NOW, [OLD], coming=NEXT)
Make = Callable[[str], Message]

TAKES: dict[str, tuple[Identity, Make]] = {
    "colony": (OWNER, lambda id: AddColony(colony=Colony(colonyid=id, name="c2"))),
    "user": (
        COLONY_OWNER,
        lambda id: AddUser(user=User(colonyname=COLONY, userid=id, name="u2")),
    ),
    "executor": (
        COLONY_OWNER,
        lambda id: AddExecutor(
            executor=Executor(
                executorid=id, executortype="cli", executorname="e2", colonyname=COLONY
            )
        ),
    ),
    "server owner": (OWNER, lambda id: ChangeServerId(serverid=id)),
    "colony owner": (COLONY_OWNER, lambda id: ChangeColonyId(colonyname=COLONY, colonyid=id)),
    "changed user": (key("uma"), lambda id: ChangeUserId(colonyname=COLONY, userid=id)),
    "changed executor": (key("ada"), lambda id: ChangeExecutorId(colonyname=COLONY, executorid=id)),
}


@pytest.mark.parametrize("name", TAKES)
@virtual
async def test_nobody_is_given_an_id_of_the_server(name: str) -> None:
    async with world(server_keys=KEYS) as made:
        await made.populate()
        by, make = TAKES[name]
        for own in (NOW, OLD, NEXT):
            failure = (await made.refuse(make(own.id), by)).failure
            assert (failure.code, failure.status) == ("exists", 409)
            assert "is the server's own" in failure.message
            sealed = sealing.of_now(made.dispatch, make(own.id), by)
            told, _ = await sealing.present(made.dispatch, sealed)
            assert told.code == "exists"
        await made.call(make(key("another").id), by)


async def denied(made: Bench, message: Message, who: Identity) -> bool:
    """Whether it is refused as a stranger's is, plain and sealed."""
    plain = (await made.refuse(message, who)).failure
    body = (await made.dispatch.answer(sealing.of_now(made.dispatch, message, who).body)).body
    sealed = envelope.parse_reply(body) if b'"seal"' not in body else None
    assert plain.code == "access_denied"
    assert sealed is None or getattr(sealed, "code", "") == "access_denied"
    return not made.colony.waiting


@virtual
async def test_a_key_that_becomes_the_servers_is_no_caller_any_more() -> None:
    """Whoever has an id before a server's key is changed to it does not act under it after."""
    async with MemoryStore() as store:
        async with bench(store) as made:
            await made.found("ada")
            taken = (("u2", OLD), ("u3", NEXT))
            for name, id in taken:
                await made.call(
                    AddUser(user=User(colonyname=COLONY, userid=id.id, name=name)), COLONY_OWNER
                )
            await made.call(AddColony(colony=Colony(colonyid=NOW.id, name=OTHER)), OWNER)
            await made.call(GetUsers(colonyname=COLONY), OLD)
        async with bench(store, server_keys=KEYS) as made:
            for _, id in taken:
                assert await denied(made, SubmitFunctionSpec(spec=spec()), id)
                assert await denied(made, GetColony(colonyname=COLONY), id)
            add = AddUser(user=User(colonyname=OTHER, userid=OTHER_OWNER.id, name="ulf"))
            assert await denied(made, add, NOW)
            assert await denied(made, GetColonies(), NOW)
            await made.call(SubmitFunctionSpec(spec=spec()), key("ada"))  # nobody else is held up


@virtual
async def test_a_server_does_not_start_that_is_to_obey_itself() -> None:
    async with MemoryStore() as store:
        for own in (OWNER, NOW):
            keys = ServerKeys(own, [OWNER]) if own is NOW else ServerKeys(own)
            with pytest.raises(StoreError, match=r"key of the server's own.*COLONIES_SERVER_ID"):
                async with bench(store, server_keys=keys):
                    raise AssertionError("it started")
        async with bench(store, server_keys=KEYS) as made:  # nothing was left behind
            await made.found("ada")
            await made.call(ChangeServerId(serverid=key("new owner").id), OWNER)
        with pytest.raises(StoreError, match=key("new owner").id):
            async with bench(store, server_keys=ServerKeys(key("new owner"))):
                raise AssertionError("it started")
