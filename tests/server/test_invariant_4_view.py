"""Store invariant 4: a view after any interleaving of own commits and late events is the store."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from colonist_core.matching import Placement
from colonist_core.process import Cause, Limits, Live, assigned, born
from colonist_server.repo import keys
from colonist_server.repo.records import ColonyRecord, UserRecord, decode_user, encode
from colonist_server.repo.view import View
from colonist_server.store.interface import Change, Delete, Event, Op, Put

TAG = b"tag1"
PIDS = [keys.process_id(TAG, 0, bytes([n]) * keys.RANDOM_BYTES) for n in range(3)]
USERS = ["ann", "bob"]
CAUSE = Cause("ab" * 32, b"d" * 32, b"s" * 65)


def _live(pid: bytes, *, running: bool) -> Live:
    waiting = born(
        pid.hex(),
        now_ns=1,
        priority_ns=1,
        placement=Placement("cli"),
        limits=Limits(0, 0, 0),
        label="",
        initiator="ann",
        funcname="f",
        cause=CAUSE,
    )
    if not running:
        return waiting
    return assigned(waiting, pid.hex(), executor="ab" * 32, node="n", now_ns=2, cause=CAUSE)


_puts = st.one_of(
    st.builds(
        lambda pid, running: Put(keys.live(pid), encode(_live(pid, running=running))),
        st.sampled_from(PIDS),
        st.booleans(),
    ),
    st.builds(
        lambda name, id: Put(keys.user(TAG, name), encode(UserRecord(id * 32))),
        st.sampled_from(USERS),
        st.sampled_from(["aa", "bb", "cc"]),
    ),
)
_deletes = st.builds(
    Delete,
    st.sampled_from([keys.live(pid) for pid in PIDS] + [keys.user(TAG, name) for name in USERS]),
)


def _history(ops: list[Op]) -> list[Op]:
    """Only what the store's guards let happen: no process comes back, no id has two holders."""
    dead: set[bytes] = set()
    holders: dict[str, bytes] = {}
    kept: list[Op] = []
    for op in ops:
        if isinstance(op, Put) and op.key.startswith(keys.USER):
            id = decode_user(op.value).id
            if holders.setdefault(id, op.key) != op.key:
                continue
        elif isinstance(op, Put) and op.key in dead:
            continue
        if isinstance(op, Delete):
            dead.add(op.key)
        if op.key.startswith(keys.USER):
            mine = decode_user(op.value).id if isinstance(op, Put) else ""
            holders = {id: key for id, key in holders.items() if key != op.key or id == mine}
        kept.append(op)
    return kept


def _new_view() -> View:
    view = View()
    view.apply(keys.colony(TAG), encode(ColonyRecord("dev", "0" * 64)), 1)
    return view


def _seen(view: View) -> dict[str, Any]:
    colony = view.colonies["dev"]
    return {
        "rows": {pid: (row.state, row.revision, row.raw) for pid, row in view.rows.items()},
        "queue": [row.pid for row in colony.queue],
        "waiting": colony.waiting,
        "running": set(colony.running),
        "users": {name: (user.record, user.revision) for name, user in colony.users.items()},
        "members": {id: member.name for id, member in colony.members.items()},
    }


def _range(ops: list[Op]) -> dict[str, Any]:
    """A view that was loaded once, from what the store holds at the end."""
    held: dict[bytes, tuple[bytes, int]] = {}
    for revision, op in enumerate(ops, 2):
        match op:
            case Put(key, value):
                held[key] = (value, revision)
            case _:
                held.pop(op.key, None)
    view = _new_view()
    for key, (value, revision) in held.items():
        view.apply(key, value, revision)
    return _seen(view)


@given(st.lists(st.one_of(_puts, _deletes), max_size=12), st.data())
def test_view_after_any_interleaving_is_what_the_store_holds(
    ops: list[Op], data: st.DataObject
) -> None:
    ops = _history(ops)
    own = data.draw(st.permutations(range(len(ops))), "order in which own commits are applied")
    own = own[: data.draw(st.integers(0, len(ops)), "how many commits are our own")]
    turns = data.draw(
        st.lists(st.booleans(), min_size=2 * len(ops), max_size=2 * len(ops)), "who goes next"
    )
    view = _new_view()
    watch = [
        Event(revision, (Change(op.key, op.value if isinstance(op, Put) else None),))
        for revision, op in enumerate(ops, 2)
    ]
    for is_own in turns:
        if is_own and own:
            index = own.pop(0)
            view.committed(index + 2, [ops[index]])
        elif watch:
            view.watched(watch.pop(0))
    for event in watch:
        view.watched(event)
    assert _seen(view) == _range(ops)


def test_late_put_does_not_revive_a_deleted_key() -> None:
    view = _new_view()
    put = Put(keys.live(PIDS[0]), encode(_live(PIDS[0], running=False)))
    view.committed(3, [Delete(put.key)])
    view.watched(Event(2, (Change(put.key, put.value),)))
    assert not view.rows


def test_graves_are_forgotten_once_the_watch_has_passed() -> None:
    view = _new_view()
    view.committed(3, [Delete(keys.live(PIDS[0]))])
    view.watched(Event(3, (Change(keys.live(PIDS[0]), None),)))
    assert not view._graves
