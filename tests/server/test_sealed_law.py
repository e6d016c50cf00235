"""The law of sealed requests: at most one effect, and the same reply, whatever happens meanwhile.

Over every message that changes something: presented again and again, at once, at two nodes, after a
restart, after a restore from backup, after each commit at which the server may die.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from colonist_protocol import envelope
from colonist_protocol.envelope import Failure
from colonist_protocol.errors import SealError
from colonist_protocol.seal import OF_ATTEMPT
from colonist_protocol.tokens import ServerKeys
from colonist_server.backup.origin import StoreOrigin
from colonist_server.backup.restore import restore
from colonist_server.loops.epochs import forget
from colonist_server.repo import keys
from colonist_server.repo.once import LIFE_MINUTES
from colonist_server.repo.records import EpochRecord, encode
from colonist_server.rpc.contract import CONTRACTS
from colonist_server.rpc.table import API, ROUTES
from colonist_server.store.interface import Put, Store
from tests.server.people import WHO, World, crashing, world
from tests.server.test_routes import BY_TYPE
from tests.support import enrolling, sealing
from tests.support.clock import run_virtual, virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import key, settle
from tests.support.shared_store import Connection, SharedStore
from tests.support.stopping_store import WAYS, StoppingStore
from tests.support.stores import OF_NODES

KEYS = ServerKeys(key("server"))
MUTATING = sorted(
    kind
    for kind, route in ROUTES.items()
    if route.door == API and not CONTRACTS[route.kind].is_read and kind not in OF_ATTEMPT
)
STEPWISE = (
    "removeallprocessesmsg",
    "removeallprocessgraphsmsg",
    "removecolonymsg",
    "removeexecutormsg",
    "removegeneratormsg",
    "removeprocessgraphmsg",
    "runcronmsg",
)
_OF_TIME = ("lastheardfromtime", "lease")
_SHOWN_AS_BEFORE = {"runcronmsg"}
"""The reply to these shows what was before the effect, and at a repetition what is now."""


class Sent(NamedTuple):
    """A sealed request, and whoever is asked what it did."""

    kind: str
    sealed: sealing.Sealed


async def peopled(made: World) -> None:
    """Everybody and everything that a message may be about."""
    await made.populate()
    await made.employ()
    await made.weave()


def sealed(made: World, kind: str, ttl: int = 600) -> Sent:
    """The message of that kind, by who may."""
    case = BY_TYPE[kind]
    if kind == "enrolmsg":
        device = key("device")
        message: Any = enrolling.enrol_of(made.dispatch, enrolling.code_of("card"), device)
        return Sent(kind, sealing.of_now(made.dispatch, message, device, ttl))
    return Sent(kind, sealing.of_now(made.dispatch, case.make(made), WHO[case.caller], ttl))


async def present(made: World, sent: Sent) -> Any:
    """The reply, without what tells the time."""
    reply, _ = await sealing.present(made.dispatch, sent.sealed)
    return _timeless(reply, sent.kind)


def _timeless(reply: Any, kind: str) -> Any:
    if isinstance(reply, Failure):
        return reply
    shown = dict(reply)
    if kind in _SHOWN_AS_BEFORE:
        return shown["cronid"]
    for name in _OF_TIME:
        shown.pop(name, None)
    if isinstance(shown.get("attempt"), dict):
        shown["attempt"] = shown["attempt"]["token"]
    return shown


async def lasting(made: World) -> dict[bytes, bytes]:
    """All that is stored, but for what nodes say of themselves."""
    await settle()
    return {k: v for k, v in (await made.dump()).items() if not k.startswith(OF_NODES)}


def shape(stored: dict[bytes, bytes]) -> Counter[bytes]:
    """How much of what there is."""
    return Counter(k[:2] for k in stored)


@asynccontextmanager
async def served(store: Store | None = None, **settings: Any) -> AsyncGenerator[World]:
    async with world(store, server_keys=KEYS, **settings) as made:
        yield made


def test_every_message_that_changes_something_is_tried():
    assert set(MUTATING) | OF_ATTEMPT >= {
        kind for kind, route in ROUTES.items() if not CONTRACTS[route.kind].is_read
    }
    assert len(MUTATING) > 30


@pytest.mark.parametrize("kind", MUTATING)
@virtual
async def test_presented_again_it_is_answered_again_and_does_nothing(kind: str) -> None:
    async with served() as made:
        await peopled(made)
        before = await lasting(made)
        sent = sealed(made, kind)
        answers = await asyncio.gather(*(present(made, sent) for _ in range(3)))
        after = await lasting(made)
        assert not isinstance(answers[0], Failure), answers[0]
        assert after != before
        answers.append(await present(made, sent))
        await minutes(made, 5)
        answers.append(await present(made, sent))
        assert answers == [answers[0]] * 5
        assert (await lasting(made)).keys() == after.keys()


@pytest.mark.parametrize("kind", MUTATING)
@virtual
async def test_after_a_restart_it_is_answered_again_and_does_nothing(kind: str) -> None:
    async with MemoryStore() as store:
        async with served(store) as made:
            await peopled(made)
            sent = sealed(made, kind)
            first = await present(made, sent)
            stored = await lasting(made)
        async with served(store) as made:
            assert await present(made, sent) == first
            assert (await lasting(made)).keys() == stored.keys()


@pytest.mark.parametrize("kind", MUTATING)
@virtual
async def test_after_a_restore_it_is_answered_again_and_nothing_else_has_an_effect(
    kind: str,
) -> None:
    async with MemoryStore() as store, MemoryStore() as other:
        async with served(store) as made:
            await peopled(made)
            late = sealed(made, kind)
            sent = sealed(made, kind)
            first = await present(made, sent)
        await restore(StoreOrigin(store), other)
        async with served(other) as made:
            stored = await lasting(made)
            assert await present(made, sent) == first
            refused = await _refusal(made, late)
            assert refused.code in ("epoch_stale", "access_denied", "too_old", "not_found")
            assert (await lasting(made)).keys() == stored.keys()


async def _refusal(made: World, sent: Sent) -> Failure:
    """Why it was refused; who owned something before is a stranger now, and gets no seal."""
    try:
        reply = await present(made, sent)
    except SealError:
        reply = envelope.parse_reply((await made.dispatch.answer(sent.sealed.body)).body)
    assert isinstance(reply, Failure)
    return reply


@pytest.mark.parametrize("kind", MUTATING)
def test_at_two_nodes_at_once_it_takes_effect_once(kind: str) -> None:
    async def story() -> None:
        shared = SharedStore()
        ways = [Connection(shared, answer_s=0.002, lag_s=0.003) for _ in range(2)]
        async with served(ways[0], node="a") as a, served(ways[1], node="b") as b:
            await asyncio.sleep(0.1)
            await peopled(a)
            sent = sealed(a, kind)
            answers = await asyncio.gather(*(present(each, sent) for each in (a, b, b, a)))
            assert answers == [answers[0]] * 4
            assert not isinstance(answers[0], Failure)
            stored = await lasting(a)
            assert await present(b, sent) == answers[0]
            assert (await lasting(a)).keys() == stored.keys()

    run_virtual(story())


def _deaths() -> list[tuple[str, str]]:
    """In how many ways the server dies: in all, where there are several commits."""
    one = [(kind, WAYS[at % len(WAYS)]) for at, kind in enumerate(MUTATING) if kind not in STEPWISE]
    return one + [(kind, way) for kind in STEPWISE for way in WAYS]


async def _whole(kind: str) -> Counter[bytes]:
    """What there is after one undisturbed presentation."""
    async with served() as made:
        await peopled(made)
        await present(made, sealed(made, kind))
        await asyncio.sleep(5)
        return shape(await lasting(made))


@pytest.mark.parametrize(("kind", "way"), _deaths())
def test_wherever_the_server_dies_it_takes_effect_once(kind: str, way: str) -> None:
    async def story() -> None:
        expected = await _whole(kind)
        at, met = 0, True
        while met:
            async with StoppingStore() as store:
                met = await _die_at(store, kind, at, way, expected)
            at += 1

    run_virtual(story())


async def _die_at(
    store: StoppingStore, kind: str, at: int, way: str, expected: Counter[bytes]
) -> bool:
    async with crashing(store, server_keys=KEYS) as made:
        await peopled(made)
        sent = sealed(made, kind)
        store.arm(at, way)
        asking = asyncio.create_task(present(made, sent))
        stopping = asyncio.create_task(store.stopped.wait())
        await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if way in ("lost", "late") and asking.done() and store.was_met:
            again = await present(made, sent)  # before what is late arrives, too
            assert not isinstance(again, Failure) or again.code in ("unavailable", "too_old"), again
        asking.cancel()
    store.stopped.clear()
    store.arm(-1, way)
    async with served(store) as made:
        await asyncio.sleep(5)
        first = await present(made, sent)
        assert not isinstance(first, Failure), first
        await asyncio.sleep(5)
        stored = await lasting(made)
        assert shape(stored) == expected
        assert await present(made, sent) == first
        assert (await lasting(made)).keys() == stored.keys()
    return store.was_met


@pytest.mark.parametrize("kind", ["submitfuncspecmsg", "addusermsg", "submitworkflowspecmsg"])
@virtual
async def test_what_it_did_is_told_for_a_week_and_then_nobody_knows(kind: str) -> None:
    async with served() as made:
        await peopled(made)
        sent, never = sealed(made, kind, 60), sealed(made, kind, 60)
        first = await present(made, sent)
        await asyncio.sleep(3 * 60)
        again = await present(made, sent)
        assert again.keys() == first.keys()
        assert (await present(made, never)).code == "epoch_stale"
        await minutes(made, LIFE_MINUTES + 3)
        stored = await lasting(made)
        if kind == "addusermsg":
            assert (await present(made, sent)).code == "too_old"
        assert (await present(made, never)).code == "too_old"
        assert (await lasting(made)).keys() == stored.keys()
        assert not [k for k in stored if k.startswith(keys.SEALED)]


async def minutes(made: World, count: int) -> None:
    """So many minutes of the server go by, and what may be forgotten is forgotten."""
    epochs, writes = made.rooms.epochs, made.rooms.writes
    record = EpochRecord(epochs.n + count, bytes.fromhex(epochs.era), epochs.since_n)
    assert await writes.commit([epochs.guard], [Put(keys.EPOCH, encode(record))])
    await forget(epochs, writes)
