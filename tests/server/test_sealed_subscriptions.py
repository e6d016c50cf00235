"""A sealed order has one stream, wherever and how often its bytes are presented."""

from __future__ import annotations

import asyncio

from colonist_protocol import codec, envelope
from colonist_protocol.envelope import Failure
from colonist_protocol.message import Message
from colonist_protocol.process import Process, State
from colonist_protocol.subscription import SubscribeProcess, SubscribeProcesses
from colonist_protocol.tokens import ServerKeys
from colonist_server.loops.epochs import forget
from colonist_server.repo import keys
from colonist_server.repo.once import ASSIGN_LIFE_MINUTES
from colonist_server.rpc.dispatch import Refusal
from tests.server.following import Ear
from tests.server.people import World, world
from tests.server.test_sealed_law import minutes
from tests.support import sealing
from tests.support.clock import run_virtual, virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, key, settle
from tests.support.sealing import Sealed
from tests.support.shared_store import Connection, SharedStore

KEYS = ServerKeys(key("server"))
UMA = key("uma")
ALL = SubscribeProcesses(colonyname=COLONY, state=-1, timeout=900)
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


def order(made: World, message: Message = ALL, who: str = "uma", ttl: int = 600) -> Sealed:
    return sealing.of_now(made.dispatch, message, key(who), ttl)


async def present(made: World, sent: Sealed) -> tuple[Ear, Refusal | None]:
    """What one frame of a client comes to."""
    ear = Ear()
    opened = await made.dispatch.subscribe(sent.body, ear, lambda _: None)
    if isinstance(opened, Refusal):
        return ear, opened
    ear.subscription = opened
    return ear, None


def names(sent: Sealed, ear: Ear) -> list[str]:
    """The functions of the processes in the frames, each checked as the next one."""
    found: list[str] = []
    for index, frame in enumerate(ear.frames):
        reply = sent.opened(frame, index=index).reply
        assert isinstance(reply, bytes)
        found.append(codec.decode(reply, Process, "event").spec.funcname)
    return found


def code(sent: Sealed, refusal: Refusal | None) -> str:
    assert refusal is not None
    reply = sent.opened(refusal.body).reply
    assert isinstance(reply, Failure)
    return reply.code


async def peopled(made: World) -> World:
    await made.found("ada")
    await made.enrol("uma")
    return made


@virtual
async def test_the_same_bytes_give_no_second_stream() -> None:
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        sent = order(made)
        ear, refused = await present(made, sent)
        assert refused is None
        await made.submit("uma", funcname="a")
        await settle()
        copy, refused = await present(made, sent)
        assert code(sent, refused) == "conflict"
        for name in "bc":
            await made.submit("uma", funcname=name)
        await settle()
        assert (names(sent, ear), copy.frames) == (["a", "b", "c"], [])


@virtual
async def test_nor_at_once_nor_when_it_has_ended_nor_after_a_restart() -> None:
    async with MemoryStore() as store:
        async with world(store, server_keys=KEYS) as made:
            await peopled(made)
            sent = order(made)
            came = await asyncio.gather(*(present(made, sent) for _ in range(3)))
            assert [refused is None for _, refused in came].count(True) == 1
            [ear] = [ear for ear, refused in came if refused is None]
            assert ear.subscription is not None
            made.rooms.subscriptions.cancel(ear.subscription)
            assert code(sent, (await present(made, sent))[1]) == "conflict"
        async with world(store, server_keys=KEYS) as made:
            assert code(sent, (await present(made, sent))[1]) == "conflict"
            assert (await present(made, order(made)))[1] is None


def test_nor_at_another_node() -> None:
    async def story() -> None:
        shared = SharedStore()
        ways = [Connection(shared, answer_s=0.002, lag_s=0.003) for _ in range(2)]
        async with (
            world(ways[0], server_keys=KEYS, node="a") as a,
            world(ways[1], server_keys=KEYS, node="b") as b,
        ):
            await asyncio.sleep(0.1)
            await peopled(a)
            sent = order(a)
            came = await asyncio.gather(*(present(each, sent) for each in (a, b, b, a)))
            refusals = [refused for _, refused in came if refused is not None]
            assert [code(sent, each) for each in refusals] == ["conflict"] * 3

    run_virtual(story())


@virtual
async def test_one_process_is_followed_once_too() -> None:
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        wanted = SubscribeProcess(
            processid=(await made.submit("uma")).processid, state=-1, timeout=9
        )
        sent = order(made, wanted)
        ear, _ = await present(made, sent)
        await settle()
        assert code(sent, (await present(made, sent))[1]) == "conflict"
        assert names(sent, ear) == ["f"]
        assert (await present(made, order(made, wanted)))[1] is None


@virtual
async def test_the_record_lives_minutes_longer_than_the_order() -> None:
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        long = order(made, ttl=601)
        assert code(long, (await present(made, long))[1]) == "seal_invalid"
        sent, never = order(made, ttl=120), order(made, ttl=120)
        assert (await present(made, sent))[1] is None
        await minutes(made, 2)
        assert code(sent, (await present(made, sent))[1]) == "conflict"
        await minutes(made, 1)
        assert code(sent, (await present(made, sent))[1]) == "conflict"
        assert code(never, (await present(made, never))[1]) == "epoch_stale"
        await minutes(made, ASSIGN_LIFE_MINUTES + 1)
        await forget(made.rooms.epochs, made.rooms.writes)
        assert not [each for each in await made.dump() if each.startswith(keys.SEALED)]
        assert code(sent, (await present(made, sent))[1]) == "too_old"


@virtual
async def test_the_same_bytes_of_another_member_take_nothing_from_it() -> None:
    """The digest is of what is said: another may sign it too, and be first."""
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        sent = order(made)
        body = envelope.parse_request(sent.body)
        signed = key("ada").sign_digest(bytes.fromhex(sent.re)).hex()
        copied = sent._replace(
            body=sent.body.replace(body.signature.encode(), signed.encode()), identity=key("ada")
        )
        assert (await present(made, copied))[1] is None
        assert (await present(made, sent))[1] is None
