"""Which colonies know an id is looked up, and is what a look through all colonies would find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_protocol.attribute import GetAttribute
from colonist_protocol.colony import AddColony, ChangeColonyId, Colony, GetColony, RemoveColony
from colonist_protocol.user import AddUser, ChangeUserId, RemoveUser, User
from colonist_server.repo import keys
from colonist_server.repo.gone import Gone
from colonist_server.repo.records import ColonyRecord, ExecutorRecord, UserRecord, encode
from colonist_server.repo.view import View
from colonist_server.rpc.gate import Gate
from colonist_server.store.interface import Change, Delete, Event, Op, Put
from tests.server.people import OTHER, OTHER_OWNER, STRANGER, World, world
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key

TAGS = [b"tag1", b"tag2"]
IDS = [bytes([n]) * 32 for n in range(3)]

_tag = st.sampled_from(TAGS)
_id = st.sampled_from([id.hex() for id in IDS])
_former = st.lists(_id, max_size=1, unique=True).map(tuple)
_name = st.just("ann")


def _executor(id: str, former: tuple[str, ...]) -> bytes:
    return encode(ExecutorRecord(id=id, type="cli", state=1, commissioned_ns=1, former=former))


def _user(id: str, former: tuple[str, ...]) -> bytes:
    return encode(UserRecord(id, former=former))


_puts = st.one_of(
    st.builds(
        lambda tag, id: Put(keys.colony(tag), encode(ColonyRecord(tag.decode(), id))), _tag, _id
    ),
    st.builds(
        lambda tag, name, id, former: Put(keys.executor(tag, name), _executor(id, former)),
        _tag,
        _name,
        _id,
        _former,
    ),
    st.builds(
        lambda tag, name, id, former: Put(keys.user(tag, name), _user(id, former)),
        _tag,
        _name,
        _id,
        _former,
    ),
    st.builds(lambda tag, id: Put(keys.gone(tag, id), b""), _tag, _id),
    st.builds(lambda tag, name: Put(keys.executor(tag, name), b"not a record"), _tag, _name),
)
_ops = st.one_of(_puts, _puts.map(lambda put: Delete(put.key)))


def _scan(view: View, gone: Gone, id: str) -> set[bytes]:
    return {
        tag
        for tag, colony in view.tags.items()
        if colony.record.owner == id or colony.holder(id) is not None or gone.has(tag, id)
    }


def _check(view: View, gone: Gone) -> None:
    for id in (id.hex() for id in IDS):
        found = {*view.known.tags(id), *gone.known.tags(id)}
        assert found & set(view.tags) == _scan(view, gone, id)
        assert set(view.known.tags(id)) <= set(view.tags)


@given(st.lists(_ops, max_size=16), st.data())
def test_the_look_finds_what_a_scan_finds(ops: list[Op], data: st.DataObject) -> None:
    """After each step, own commits coming before or after the watch of others'."""
    ops = [*(Put(keys.colony(tag), encode(ColonyRecord(tag.decode(), "0"))) for tag in TAGS), *ops]
    own = data.draw(st.permutations(range(len(ops))), "order in which own commits are applied")
    own = own[: data.draw(st.integers(0, len(ops)), "how many commits are our own")]
    turns = data.draw(
        st.lists(st.booleans(), min_size=2 * len(ops), max_size=2 * len(ops)), "who goes next"
    )
    view = View()
    gone = Gone(view)
    watch = [
        Event(revision, (Change(op.key, op.value if isinstance(op, Put) else None),))
        for revision, op in enumerate(ops, 1)
    ]
    for is_own in (*turns, *[False] * len(watch)):
        if is_own and own:
            index = own.pop(0)
            view.committed(index + 1, [ops[index]])
        elif watch:
            view.watched(watch.pop(0))
        _check(view, gone)
    held = [*(keys.colony(tag) for tag in view.tags), *gone._held()]
    for revision, key_held in enumerate(held, len(ops) + 1):
        view.watched(Event(revision, (Change(key_held, None),)))
    assert len(view.known) == len(gone.known) == 0  # nothing stays behind


@pytest.mark.parametrize(("at", "made"), [(keys.executor, _executor), (keys.user, _user)])
def test_a_member_is_known_by_its_ids_and_no_longer(
    at: Callable[[bytes, str], bytes], made: Callable[[str, tuple[str, ...]], bytes]
) -> None:
    view = View()
    [tag, _], [a, b, c] = TAGS, [id.hex() for id in IDS]
    view.watched(Event(1, (Change(keys.colony(tag), encode(ColonyRecord("dev", "f" * 64))),)))
    for revision, (value, known) in enumerate(
        [(made(a, ()), {a}), (made(b, (a,)), {a, b}), (made(c, (b,)), {b, c}), (None, set())], 2
    ):
        view.watched(Event(revision, (Change(at(tag, "ann"), value),)))
        assert {id for id in (a, b, c) if tag in view.known.tags(id)} == known


class Unscanned(dict[Any, Any]):
    """Colonies that nobody may look through."""

    def __iter__(self) -> Any:
        raise AssertionError("all colonies were looked through")

    keys = values = items = __iter__


async def is_known(made: World, name: str) -> bool:
    """Whether a refusal is sealed for them."""
    asked = sealing.of_now(made.dispatch, GetColony(colonyname="no such colony"), key(name))
    return b'"seal"' in (await made.dispatch.answer(asked.body)).body


@virtual
async def test_a_stranger_costs_no_look_through_all_colonies() -> None:
    async with world() as made:
        await made.populate()
        gate = Gate(made.dispatch, made.dispatch.limiter.limits)
        made.rooms.view.tags = Unscanned(made.rooms.view.tags)
        for message in (GetColony(colonyname=COLONY), GetAttribute(attributeid="0" * 64)):
            gate.judge(sealing.of_now(made.dispatch, message, STRANGER).body, "a")
        assert [await is_known(made, name) for name in ("uma", "ulf", "stranger")] == [
            True,
            True,
            False,
        ]


@virtual
async def test_who_is_known_is_so_after_changes_removals_and_a_start() -> None:
    store = MemoryStore()
    everybody = ("uma", "new uma", "ulf", "other owner", "new owner", "vic", "stranger")

    async def known(made: World) -> set[str]:
        return {name for name in everybody if await is_known(made, name)}

    async with world(store) as made:
        await made.populate()
        await made.call(ChangeUserId(colonyname=COLONY, userid=key("new uma").id), key("uma"))
        change = ChangeColonyId(colonyname=OTHER, colonyid=key("new owner").id)
        await made.call(change, OTHER_OWNER)
        user = User(colonyname=COLONY, userid=key("vic").id, name="vic")
        await made.call(AddUser(user=user), COLONY_OWNER)
        await made.call(RemoveUser(colonyname=COLONY, name="vic"), COLONY_OWNER)
        expected = {"uma", "new uma", "ulf", "new owner", "vic"}
        assert await known(made) == expected
    async with world(store) as made:
        assert await known(made) == expected
        await made.call(RemoveColony(colonyname=OTHER), OWNER)
        assert await known(made) == {"uma", "new uma", "vic"}
        await made.call(AddColony(colony=Colony(colonyid=OTHER_OWNER.id, name=OTHER)), OWNER)
        assert await known(made) == {"uma", "new uma", "vic", "other owner"}
