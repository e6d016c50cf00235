"""Brokers, bridges and devices that die in the middle: what a device sees of it."""

import asyncio
import json

import pytest

from colonist_client.mqtt_connection import LinkError
from colonist_client.transport import UnreachableError
from colonist_protocol import envelope
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, GetProcess, SubmitFunctionSpec
from tests.bridge.rig import TOPICS, Device, Place, Rig, eventually, identity, rig, wire
from tests.support.broker import Broker

ASSIGN = AssignProcess(colonyname="c", timeout=60)
SUBMIT = SubmitFunctionSpec(
    spec=FunctionSpec(funcname="f", conditions=Conditions(colonyname="c", executortype="t"))
)
LONG_S = 60.0

pytestmark = pytest.mark.mosquitto


async def test_poll_survives_a_killed_broker(mosquitto: Broker, mosquitto_place: Place) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        poll = group.create_task(anna.ask(ASSIGN, wait_s=LONG_S))
        await r.colony.until(lambda: r.colony.parked == 1)
        await mosquitto.kill()
        await eventually(lambda: not r.bridge.link.is_up and not anna.transport.is_connected)
        r.colony.give(anna.id, b'{"granted":"while the broker was down"}')
        await mosquitto.start()
        assert json.loads(await poll)["granted"]
        assert r.colony.seen[anna.id, "assignprocessmsg"] == 1


async def test_reply_that_a_frozen_broker_never_acknowledged_is_published_again(
    mosquitto: Broker, mosquitto_place: Place
) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        poll = group.create_task(anna.ask(ASSIGN, wait_s=LONG_S))
        await r.colony.until(lambda: r.colony.parked == 1)
        connection = r.bridge.link._connection
        assert connection is not None
        mosquitto.pause()
        r.colony.give(anna.id, b"{}")
        await eventually(lambda: bool(connection._waiting))  # handed over, not acknowledged
        await mosquitto.kill()
        await mosquitto.start()
        assert await poll == b"{}"
        assert r.bridge.counts.of("failed") == 0


async def test_poll_held_over_a_dead_broker_is_not_filed_twice(
    mosquitto: Broker, mosquitto_place: Place
) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        poll = group.create_task(anna.ask(ASSIGN, wait_s=LONG_S))
        await r.colony.until(lambda: r.colony.parked == 1)
        await mosquitto.kill()
        await mosquitto.start()
        await r.counted("joined")
        assert r.colony.parked == 1
        r.colony.give(anna.id, b"{}")
        assert await poll == b"{}"


async def test_poll_survives_an_orderly_restart_of_the_broker(
    mosquitto: Broker, mosquitto_place: Place
) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        poll = group.create_task(anna.ask(ASSIGN, wait_s=LONG_S))
        await r.colony.until(lambda: r.colony.parked == 1)
        await mosquitto.restart()
        await eventually(lambda: anna.transport.is_connected)
        await r.colony.until(lambda: r.colony.parked == 1)
        r.colony.give(anna.id, b"{}")
        assert await poll == b"{}"


async def test_poll_survives_a_bridge_that_dies_and_starts_again(mosquitto_place: Place) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        poll = group.create_task(anna.ask(ASSIGN, wait_s=LONG_S))
        await r.colony.until(lambda: r.colony.parked == 1)
        await r.stop_bridge(abruptly=True)
        await r.colony.until(lambda: r.colony.parked == 0)
        r.start_bridge()
        await r.colony.until(lambda: r.colony.parked == 1)
        r.colony.give(anna.id, b"{}")
        assert await poll == b"{}"


async def test_request_made_while_the_bridge_is_down_waits_at_the_broker(
    mosquitto_place: Place,
) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        await r.stop_bridge()
        asked = group.create_task(anna.ask(GetProcess(processid="p1")))
        await eventually(lambda: any(o.is_sent for o in anna.transport._requests.all()))
        r.start_bridge()
        assert json.loads(await asked)["processid"] == "p1"


async def test_a_request_that_must_not_be_repeated_is_sent_once(mosquitto_place: Place) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        r.colony.silent.add("submitfuncspecmsg")
        asked = group.create_task(_failure(anna, SUBMIT, wait_s=3))
        await r.colony.until(lambda: r.colony.seen[anna.id, "submitfuncspecmsg"] == 1)
        await r.stop_bridge(abruptly=True)
        r.start_bridge()
        assert "outcome is unknown" in await asked
        assert r.colony.seen[anna.id, "submitfuncspecmsg"] == 1


async def test_reconnect_of_a_device_in_mid_poll_joins_its_own_request(
    mosquitto_place: Place,
) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        poll = group.create_task(anna.ask(ASSIGN))
        await r.colony.until(lambda: r.colony.parked == 1)
        anna.transport._link.cut()
        await r.colony.until(lambda: r.colony.seen[anna.id, "assignprocessmsg"] == 2)
        await r.colony.until(lambda: r.colony.parked == 1)  # withdrawn by the will, filed anew
        r.colony.give(anna.id, b"{}")
        assert await poll == b"{}"


async def test_who_takes_a_session_over_is_thrown_out_in_turn_and_the_device_goes_on(
    mosquitto_place: Place,
) -> None:
    async with rig(mosquitto_place) as r, r.device("anna") as anna:
        async with wire(mosquitto_place, anna.id) as thief:
            assert await thief.connection.lost()
        assert json.loads(await anna.ask(GetProcess(processid="p1")))["processid"] == "p1"
        assert r.bridge.counts.of("answered") == 1


async def test_a_device_that_takes_nothing_stops_nobody_else(mosquitto_place: Place) -> None:
    lazy = identity("lazy")
    async with (
        rig(mosquitto_place) as r,
        wire(mosquitto_place, lazy.id, TOPICS.device(lazy.id, "rep")) as at_lazy,
        r.device("anna") as anna,
    ):
        at_lazy.acknowledges = False
        for number in range(60):
            body = envelope.pack_request(GetProcess(processid=f"p{number}"), lazy)
            await at_lazy.connection.publish(TOPICS.device(lazy.id, "req"), body)
        await r.colony.until(lambda: r.colony.seen[lazy.id, "getprocessmsg"] == 60)
        for number in range(20):
            asked = GetProcess(processid=f"a{number}")
            assert json.loads(await anna.ask(asked))["processid"] == f"a{number}"


async def test_200_devices_poll_through_one_bridge(mosquitto_place: Place) -> None:
    async with rig(mosquitto_place) as r, asyncio.TaskGroup() as group:
        done = asyncio.Event()
        polls = [group.create_task(_one_of_many(r, f"d{n}", done)) for n in range(200)]
        await r.colony.until(lambda: r.colony.parked == 200)
        assert r.bridge.forwarder.held_polls == 200
        for number in range(200):
            id = identity(f"d{number}").id
            r.colony.give(id, b'"%b"' % id.encode())
        await r.counted("answered", at_least=200)
        done.set()
        assert {await poll for poll in polls} == {
            b'"%b"' % identity(f"d{n}").id.encode() for n in range(200)
        }


async def test_copy_that_the_broker_sends_again_is_not_forwarded_twice(
    mosquitto_place: Place,
) -> None:
    anna = identity("anna")
    body = envelope.pack_request(SUBMIT, anna)
    async with rig(mosquitto_place) as r, wire(mosquitto_place, anna.id) as at_anna:
        forget_to_acknowledge(r)
        await at_anna.connection.publish(TOPICS.device(anna.id, "req"), body)
        await r.counted("answered")
        r.bridge.link.cut()
        await r.counted("copy_dropped")
        assert r.colony.seen[anna.id, "submitfuncspecmsg"] == 1


async def test_bridge_says_lost_when_it_dies(mosquitto_place: Place) -> None:
    anna = identity("anna").id
    async with (
        rig(mosquitto_place) as r,
        wire(mosquitto_place, anna, f"{TOPICS.prefix}/gw/+/#") as at_anna,
    ):
        state = await at_anna.next_json()
        await r.stop_bridge(abruptly=True)
        lost = await at_anna.next()
        assert lost.topic == f"{TOPICS.prefix}/gw/edge/lost"
        assert json.loads(lost.payload) == {"boot": state["boot"], "conn": state["conn"]}


async def test_a_broker_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(LinkError, match=r"127\.0\.0\.1:1: "):
        async with wire(Place("mqtt://127.0.0.1:1"), "nobody"):
            pass


def forget_to_acknowledge(r: Rig) -> None:
    """From now on the broker sees no acknowledgement of this bridge."""
    peer = r.bridge.link._peer
    received = peer.received

    class Mute:
        def acknowledge(self, _message: object) -> None:
            """Lost on the way."""

    peer.received = lambda _connection, message: received(Mute(), message)  # type: ignore[method-assign,arg-type]


async def _one_of_many(r: Rig, name: str, done: asyncio.Event) -> bytes:
    async with r.device(name) as device:
        reply = await device.ask(ASSIGN, wait_s=LONG_S)
        await done.wait()
        return reply


async def _failure(device: Device, message: Message, *, wait_s: float) -> str:
    try:
        return repr(await device.ask(message, wait_s=wait_s))
    except UnreachableError as error:
        return str(error)


async def test_what_a_bridge_says_after_an_outage_is_true_then(
    mosquitto: Broker, mosquitto_place: Place
) -> None:
    anna = identity("anna").id
    async with rig(mosquitto_place) as r:
        await mosquitto.kill()
        await eventually(lambda: not r.bridge.link.is_up)
        r.bridge.uplink.is_up = False
        r.bridge.state.turned()
        await eventually(lambda: not r.bridge.state._has_news.is_set())  # it waits for the broker
        r.bridge.uplink.is_up = True
        await mosquitto.start()
        await eventually(lambda: r.bridge.link.is_up)
        r.bridge.state.turned()
        async with wire(mosquitto_place, anna, f"{TOPICS.prefix}/gw/+/state") as at_anna:
            said = await at_anna.next_json()
            assert (said["uplink"], said["conn"]) == ("up", r.bridge.link.connects)
