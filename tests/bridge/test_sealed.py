"""Sealed requests over MQTT: what the bridge lets pass, what the device believes, the whole way."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from colonist_agent.context import Context
from colonist_agent.function import Registry
from colonist_agent.transport_mqtt import MqttTransport, running
from colonist_bridge.config import BridgeConfig
from colonist_bridge.epochs import Epochs
from colonist_bridge.main import Bridge
from colonist_bridge.reply import read_reply
from colonist_bridge.screen import Refusal, Request, screen
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_client.sealer import Pin, Sealer
from colonist_client.transport import UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.colony import Colony
from colonist_protocol.errors import AccessError
from colonist_protocol.executor import Executor
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, CloseSuccessful, GetProcess, State
from colonist_protocol.seal import AttemptSeal, EpochSeal
from colonist_protocol.tokens import ServerKeys
from colonist_protocol.user import User
from colonist_server.config import ServerConfig
from colonist_server.main import Server, serve
from tests.agent.test_real_server import COLONY, DEVICE, OWNER, PERSON, at_work, call
from tests.bridge.rig import TOPICS, WAIT_S, Place, Wire, eventually, identity, wire
from tests.support.sealed_server import SealedServer

ANNA = identity("anna")
SERVER, EVIL = Identity(bytes(31) + b"\x2a"), Identity(bytes(31) + b"\x2b")
LIMIT = 100_000
READ = GetProcess(processid="p")
POLL = AssignProcess(colonyname="c", timeout=60)
TOKEN = ServerKeys(SERVER).current.attempt_token("p", ANNA.id, 1, "ab" * 8)


def sealed(message: Message, **members: Any) -> bytes:
    given: dict[str, Any] = {"v": 1, "to": SERVER.id, "epoch": "", "id": "ab" * 16, "ttl": 60}
    given |= members
    return envelope.pack_sealed_request(message, ANNA, EpochSeal(**given))


def closing() -> bytes:
    seal = AttemptSeal(1, SERVER.id, TOKEN, 7)
    return envelope.pack_sealed_request(CloseSuccessful(processid="p"), ANNA, seal)


# -- the bridge's checks


@pytest.mark.parametrize("body", [sealed(READ), sealed(POLL), closing()])
def test_a_sealed_request_of_its_own_id_passes_untouched_and_may_be_repeated(body: bytes) -> None:
    request = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(request, Request)
    assert (request.body, request.is_repeatable, len(request.re)) == (body, True, 64)


def test_an_index_beside_a_standing_assign_passes() -> None:
    body = envelope.with_index(sealed(POLL), 7)
    request = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(request, Request)
    assert (request.body, request.index, request.is_poll) == (body, 7, True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (envelope.with_index(sealed(READ), 1), "seal_invalid"),
        (envelope.with_index(sealed(POLL), 2**32), "seal_invalid"),
        (envelope.with_index(envelope.pack_request(POLL, ANNA), 1), "seal_invalid"),
        (sealed(READ, ttl=0), "seal_invalid"),
        (sealed(READ, to="x"), "seal_invalid"),
        (sealed(READ, id="AB" * 16), "seal_invalid"),
        (sealed(READ, v=2), "seal_invalid"),
        (sealed(CloseSuccessful(processid="p")), "seal_invalid"),
        (envelope.pack_sealed_request(READ, ANNA, AttemptSeal(1, SERVER.id, TOKEN, 1)),
         "seal_invalid"),
    ],
)  # fmt: skip
def test_a_seal_that_is_not_as_designed_is_refused(body: bytes, code: str) -> None:
    refusal = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code


def test_the_topic_must_be_that_of_the_key_that_signed_the_seal_too() -> None:
    tree = json.loads(sealed(READ))
    swapped = {**tree, "seal": json.loads(sealed(READ, id="cd" * 16))["seal"]}
    stripped = {name: tree[name] for name in ("payloadtype", "payload", "signature")}
    for body in (sealed(READ), json.dumps(swapped).encode(), json.dumps(stripped).encode()):
        who = EVIL.id if body == sealed(READ) else ANNA.id
        refusal = screen(who, body, max_bytes=LIMIT)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "not_yours"


def test_the_token_that_devices_are_told_comes_from_the_pinned_server_only() -> None:
    honest, other = SealedServer(SERVER, ANNA.id), SealedServer(EVIL, ANNA.id)
    other.n += 50
    epochs, unpinned = Epochs(Pin(SERVER.id)), Epochs(None)
    for server in (honest, other):
        body = server.seal("x", b"{}", to=ANNA.id, re="ab" * 32, ok=True)
        for each in (epochs, unpinned):
            each.heard(read_reply(body, max_bytes=LIMIT))
    assert (epochs.token, unpinned.token) == (honest.token, "")
    newest = honest.token
    honest.n -= 1
    body = honest.seal("x", b"{}", to=ANNA.id, re="ab" * 32, ok=True)
    epochs.heard(read_reply(body, max_bytes=LIMIT))
    epochs.heard(read_reply(envelope.pack_reply("x", b"{}"), max_bytes=LIMIT))
    assert epochs.token == newest


# -- the device's checks


@contextlib.asynccontextmanager
async def pair(place: Place) -> AsyncIterator[tuple[MqttTransport, Wire]]:
    """A device that has pinned a server, and whoever sits at the broker."""
    async with wire(place, "gw-edge", TOPICS.every_device("req")) as by_hand:
        made = MqttTransport(place.url, ANNA.id, reconnect_base_s=0.02, pin=Pin(SERVER.id))
        async with running(made) as transport:
            await eventually(lambda: made.is_connected)
            yield transport, by_hand


@pytest.mark.mosquitto
async def test_whatever_is_published_only_the_servers_word_is_a_reply(
    mosquitto_place: Place,
) -> None:
    server, evil = SealedServer(SERVER, ANNA.id), SealedServer(EVIL, ANNA.id)
    sealer = Sealer(Pin(SERVER.id), ANNA, lambda: 0.0)
    request = sealer.seal(READ)
    tag = json.loads(request.body)["signature"][:16]
    refusal = envelope.pack_failure(AccessError("go away"))[:-1] + b',"req":"%b"}' % tag.encode()
    good = server.seal("x", b"{}", to=ANNA.id, re=request.re, ok=True)
    lies = [
        ("no_reply", b"{}"),
        ("no_reply", b"x" * 100),
        ("unsealed", refusal),
        ("not_genuine", evil.seal("x", b"{}", to=ANNA.id, re=request.re, ok=True)),
        ("not_genuine", good.replace(b'"payload":"e30="', b'"payload":"W10="')),
        ("unknown_req", server.seal("x", b"{}", to=EVIL.id, re=request.re, ok=True)),
        ("unknown_req", server.seal("x", b"{}", to=ANNA.id, re="ab" * 32, ok=True)),
        ("unknown_req", server.seal("x", b"{}", to=ANNA.id, re=request.re, ok=True, index=1)),
    ]
    async with pair(mosquitto_place) as (anna, box), asyncio.TaskGroup() as group:
        asked = group.create_task(anna.exchange(request.body, wait_s=WAIT_S))
        assert (await box.next()).payload == request.body
        topic = TOPICS.device(ANNA.id, "rep")
        for name, lie in lies:
            before = anna.counts[name]
            await box.connection.publish(topic, lie)
            await eventually(lambda name=name, before=before: anna.counts[name] == before + 1)
            assert not asked.done()
        await box.connection.publish(topic, good, retain=True)
        await box.connection.publish(topic, good)
        assert await asked == good
        await box.connection.publish(topic, b"", retain=True)


@pytest.mark.mosquitto
async def test_an_unverified_refusal_is_told_when_nothing_better_comes(
    mosquitto_place: Place,
) -> None:
    request = Sealer(Pin(SERVER.id), ANNA, lambda: 0.0).seal(READ)
    tag = json.loads(request.body)["signature"][:16]
    refusal = envelope.pack_failure(AccessError("no"))[:-1] + b',"req":"%b"}' % tag.encode()
    async with pair(mosquitto_place) as (anna, box), asyncio.TaskGroup() as group:
        asked = group.create_task(_fate(anna, request.body))
        await box.next()
        await box.connection.publish(TOPICS.device(ANNA.id, "rep"), refusal)
        assert "unverified, something answered: access_denied" in await asked


async def _fate(anna: MqttTransport, body: bytes) -> str:
    with pytest.raises(UnreachableError) as raised:
        await anna.exchange(body, wait_s=1)
    assert raised.value.said_code == "access_denied"  # for what judges it
    return str(raised.value)


# -- the whole way


@contextlib.asynccontextmanager
async def bridged(place: Place, folder: Path) -> AsyncIterator[tuple[Server, Client, Bridge]]:
    """A colony; a sealed person in it, over HTTP; a bridge to it that has pinned the server."""
    config = ServerConfig(
        port=0, store=f"sqlite:{folder}/store.db", owner=OWNER.id, keys=folder / "keys"
    )
    async with serve(config) as server, HttpTransport(server.url) as http:
        pin = Pin(server.rooms.server_keys.id)
        owner, colony, person = (Client(http, key, pin=pin) for key in (OWNER, COLONY, PERSON))
        await owner.add_colony(_colony())
        new = Executor(
            executorid=DEVICE.id, executortype="device", executorname="pump", colonyname="home"
        )
        await colony.add_executor(new)
        await colony.approve_executor("home", "pump")
        await colony.add_user(_user())
        made = BridgeConfig(
            name="edge", server_url=server.url, broker_url=place.url, server_id=pin.id
        )
        async with asyncio.TaskGroup() as group:
            bridge = Bridge(made, http)
            task = group.create_task(bridge.run())
            await eventually(lambda: bridge.link.is_up)
            yield server, person, bridge
            task.cancel()


def _colony() -> Colony:
    return Colony(colonyid=COLONY.id, name="home")


def _user() -> User:
    return User(colonyname="home", userid=PERSON.id, name="ann")


@pytest.mark.mosquitto
async def test_sealed_work_goes_the_whole_way_and_a_thief_at_the_broker_gets_nowhere(
    mosquitto_place: Place, tmp_path: Path
) -> None:
    registry = Registry()

    @registry.function("double")
    async def double(context: Context, number: float) -> float:
        context.log("doubling")
        return 2 * number

    async with (
        bridged(mosquitto_place, tmp_path) as (server, person, bridge),
        wire(mosquitto_place, "thief", TOPICS.every_device("req")) as thief,
    ):
        pin = Pin(server.rooms.server_keys.id)
        made = MqttTransport(mosquitto_place.url, DEVICE.id, pin=pin)
        async with running(made) as transport:
            device = Client(transport, DEVICE, pin=pin)
            async with at_work(device, registry):
                done = []
                for number in (1, 2):
                    submitted = await person.submit(call("double", number))
                    done.append(await person.wait(submitted.processid, timeout_s=WAIT_S))
        assert [(each.state, each.output()) for each in done] == [
            (State.SUCCESS, [2.0]),
            (State.SUCCESS, [4.0]),
        ]
        assert bridge.epochs.token == server.rooms.epochs.token
        captured = [(each.topic, each.payload) for each in _heard(thief)]
        assert len(captured) > 4
        before = await person.colony_statistics("home")
        answered = bridge.counts.of("answered")
        topic = TOPICS.device(DEVICE.id, "req")
        for _, body in captured:
            assert b'"seal":"' in body
            await thief.connection.publish(topic, body)
        polls = sum(codec.scan(body)["payloadtype"] == POLL.msgtype() for _, body in captured)
        await eventually(lambda: bridge.counts.of("answered") >= answered + len(captured) - polls)
        after = await person.colony_statistics("home")
        assert after == before
        logs = await person.logs("home", process_id=done[0].processid)
        assert [each.message for each in logs] == ["doubling"]


def _heard(by_hand: Wire) -> list[Any]:
    return [by_hand.messages.get_nowait() for _ in range(by_hand.messages.qsize())]
