"""The device's side, with a bridge that a test plays by hand on a real broker."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from colonist_agent.rep import Hint
from colonist_agent.transport_mqtt import MqttTransport, running
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.envelope import pack_reply, pack_request
from colonist_protocol.errors import InvalidValueError, SignatureError, TooLargeError
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import AssignProcess, GetProcess, SubmitFunctionSpec
from tests.bridge.rig import TOPICS, WAIT_S, Place, Wire, eventually, identity, wire
from tests.support.broker import Broker

ANNA = identity("anna")
READ = pack_request(GetProcess(processid="p"), ANNA)
OTHER = pack_request(GetProcess(processid="other"), ANNA)
POLL = pack_request(AssignProcess(colonyname="c", timeout=60), ANNA)
SUBMIT = pack_request(SubmitFunctionSpec(spec=FunctionSpec(funcname="f")), ANNA)
REP = TOPICS.device(ANNA.id, "rep")

pytestmark = pytest.mark.mosquitto


def tag(body: bytes) -> str:
    return json.loads(body)["signature"][:16]


def reply(body: bytes, payload: bytes = b"{}") -> bytes:
    return pack_reply("x", payload)[:-1] + b',"req":"%b"}' % tag(body).encode()


def hint(body: bytes, code: str, retry_after_s: float = 0.0) -> bytes:
    return json.dumps(
        {"hint": {"code": code, "retry_after_s": retry_after_s, "req": tag(body)}}
    ).encode()


def state(conn: int, uplink: str = "up") -> bytes:
    return json.dumps({"boot": "b", "conn": conn, "uplink": uplink}).encode()


class Bridge:
    """A bridge by hand: sees the requests, publishes what the test says."""

    def __init__(self, by_hand: Wire) -> None:
        self._wire = by_hand

    async def asked(self) -> bytes:
        return (await self._wire.next()).payload

    @property
    def was_asked_more(self) -> bool:
        return not self._wire.messages.empty()

    async def say(self, message: bytes, *, retain: bool = False) -> None:
        await self._wire.connection.publish(REP, message, retain=retain)

    async def announce(self, message: bytes, *, retain: bool = True) -> None:
        topic = TOPICS.gateway("edge", "state")
        await self._wire.connection.publish(topic, message, retain=retain)


@contextlib.asynccontextmanager
async def pair(place: Place, **options: object) -> AsyncIterator[tuple[MqttTransport, Bridge]]:
    async with wire(place, "gw-edge", TOPICS.every_device("req")) as by_hand:
        made = MqttTransport(
            place.url,
            ANNA.id,
            reconnect_base_s=0.02,
            reconnect_cap_s=0.1,
            spread_s=0.05,
            **options,  # type: ignore[arg-type]
        )
        async with running(made) as transport:
            await eventually(lambda: made.is_connected)
            yield transport, Bridge(by_hand)


async def test_reply_comes_without_the_name_that_the_bridge_added(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = group.create_task(anna.exchange(READ, wait_s=WAIT_S))
        assert await bridge.asked() == READ
        await bridge.say(reply(READ, b'{"a":1}'))
        assert await asked == pack_reply("x", b'{"a":1}')


async def test_two_requests_at_once_get_each_their_own_reply(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        first = group.create_task(anna.exchange(READ, wait_s=WAIT_S))
        second = group.create_task(anna.exchange(OTHER, wait_s=WAIT_S))
        assert {await bridge.asked(), await bridge.asked()} == {READ, OTHER}
        await bridge.say(reply(OTHER, b"2"))
        await bridge.say(reply(READ, b"1"))
        assert (await first, await second) == (pack_reply("x", b"1"), pack_reply("x", b"2"))


async def test_equal_requests_are_answered_in_the_order_they_were_asked(
    mosquitto_place: Place,
) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = [group.create_task(anna.exchange(POLL, wait_s=WAIT_S)) for _ in range(3)]
        for number in range(3):
            assert await bridge.asked() == POLL
            assert not bridge.was_asked_more
            await bridge.say(reply(POLL, b"%d" % number))
            assert await asked[number] == pack_reply("x", b"%d" % number)


async def test_what_is_no_reply_of_an_open_request_is_dropped_and_counted(
    mosquitto_place: Place,
) -> None:
    async with (
        pair(mosquitto_place, max_reply_bytes=500) as (anna, bridge),
        asyncio.TaskGroup() as group,
    ):
        asked = group.create_task(anna.exchange(READ, wait_s=WAIT_S))
        await bridge.asked()
        for message in (b"", b"{}", b"\xff", b'{"req":1}', b'{"hint":{"code":1}}'):
            await bridge.say(message)
        await bridge.say(reply(OTHER))
        await bridge.say(reply(READ, b"x" * 1000))
        await bridge.say(reply(READ, b"1"))
        assert await asked == pack_reply("x", b"1")
        await bridge.say(reply(READ, b"2"))
        await eventually(lambda: anna.counts["unknown_req"] == 2)
        assert (anna.counts["no_reply"], anna.counts["oversize"]) == (5, 1)


async def test_a_retained_reply_is_dropped(mosquitto_place: Place) -> None:
    async with wire(mosquitto_place, "gw-edge") as by_hand:
        await by_hand.connection.publish(REP, reply(READ), retain=True)
    async with pair(mosquitto_place) as (anna, _):
        await eventually(lambda: anna.counts["retained"] == 1)


async def test_a_second_copy_of_a_grant_is_nobodys_work(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge):
        for number in (1, 2):
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(anna.exchange(POLL, wait_s=WAIT_S))
                await bridge.asked()
                if number == 2:
                    await bridge.say(reply(POLL, b"1"))
                    assert await bridge.asked() == POLL  # it asks again for other work
                await bridge.say(reply(POLL, b"%d" % number))
            assert asked.result() == pack_reply("x", b"%d" % number)
        assert anna.counts["second_copy"] == 1


async def test_a_hint_delays_and_ends_nothing(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = group.create_task(anna.exchange(READ, wait_s=WAIT_S))
        await bridge.asked()
        began = asyncio.get_running_loop().time()
        await bridge.say(hint(READ, "gone_for_ever", 0.6))
        assert await bridge.asked() == READ
        assert asyncio.get_running_loop().time() - began >= 0.59
        await bridge.say(hint(READ, "busy", 1e9))
        await bridge.say(reply(READ))
        assert await asked == pack_reply("x", b"{}")


@pytest.mark.parametrize(("asked", "expected"), [(1e9, 3600.0), (-5, 0.5), (0, 0.5), (7, 7.0)])
def test_a_hint_asks_for_an_hour_at_most(asked: float, expected: float) -> None:
    assert Hint(code="x", retry_after_s=asked).delay_s == expected


async def test_a_submit_goes_out_again_only_if_the_bridge_did_not_forward_it(
    mosquitto_place: Place,
) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = group.create_task(_failed(anna, SUBMIT, wait_s=2.5))
        await bridge.asked()
        await bridge.say(hint(SUBMIT, "try_later"))
        assert await bridge.asked() == SUBMIT
        await bridge.say(hint(SUBMIT, "unknown"))
        await bridge.announce(state(1), retain=False)
        anna._link.cut()
        error = await asked
        assert type(error) is UnreachableError
        assert "the outcome is unknown" in str(error)
        assert "unknown" in str(error)
        assert not bridge.was_asked_more


async def test_open_requests_go_out_again_when_a_bridge_comes_back(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        await bridge.announce(state(1))
        asked = group.create_task(anna.exchange(READ, wait_s=WAIT_S))
        await bridge.asked()
        for message in (state(2), state(2, "down"), state(2)):
            await bridge.announce(message)
            if json.loads(message)["uplink"] == "up":
                assert await bridge.asked() == READ
        await bridge.announce(state(2))
        await bridge.announce(b"garbage")
        await bridge.say(reply(READ))
        await asked
        assert not bridge.was_asked_more


async def test_same_bytes_go_out_again_after_every_reconnect(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = group.create_task(anna.exchange(READ, wait_s=WAIT_S))
        for _ in range(3):
            assert await bridge.asked() == READ
            anna._link.cut()
        assert await bridge.asked() == READ
        await bridge.say(reply(READ))
        await asked


async def test_reply_that_waited_at_the_broker_is_taken_after_the_reconnect(
    mosquitto: Broker, mosquitto_place: Place
) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = group.create_task(anna.exchange(SUBMIT, wait_s=WAIT_S))
        await bridge.asked()
        anna._link.cut()
        await bridge.say(reply(SUBMIT))
        assert await asked == pack_reply("x", b"{}")
    assert mosquitto.pid


async def test_birth_and_will_bear_the_marks_of_their_connection(mosquitto_place: Place) -> None:
    device = f"{TOPICS.prefix}/{ANNA.id}"
    async with (
        wire(mosquitto_place, "watcher", f"{device}/state", f"{device}/lost") as watcher,
        pair(mosquitto_place, boot="0123") as (anna, _),
    ):
        births = [await watcher.next_json()]
        anna._link.cut()
        lost = await watcher.next_json()
        births.append(await watcher.next_json())
        await anna.close()
        goodbye = await watcher.next_json()
    assert [(b["boot"], b["conn"]) for b in births] == [("0123", 1), ("0123", 2)]
    assert set(births[0]) == {"boot", "conn", "colony", "name", "version", "heap", "queue"}
    assert (lost, goodbye) == ({"boot": "0123", "conn": 1}, {"boot": "0123", "conn": 2})


async def test_without_a_broker_nothing_was_sent_and_it_says_so() -> None:
    transport = MqttTransport("mqtt://127.0.0.1:1", ANNA.id)
    async with running(transport):
        with pytest.raises(NotSentError, match="broker"):
            await transport.exchange(SUBMIT, wait_s=0.2)


async def test_close_ends_open_exchanges_and_later_ones(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = group.create_task(_failed(anna, READ, wait_s=WAIT_S))
        await bridge.asked()
        await anna.close()
        await anna.close()
        assert "closed by this program" in str(await asked)
        assert isinstance(await _failed(anna, READ, wait_s=1), NotSentError)


async def test_cancelling_an_exchange_lets_the_next_one_go(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place) as (anna, bridge), asyncio.TaskGroup() as group:
        asked = group.create_task(anna.exchange(POLL, wait_s=WAIT_S))
        await bridge.asked()
        asked.cancel()
        following = group.create_task(anna.exchange(POLL, wait_s=WAIT_S))
        await bridge.asked()
        await bridge.say(reply(POLL))
        assert await following == pack_reply("x", b"{}")


async def test_what_no_bridge_would_forward_is_refused_here(mosquitto_place: Place) -> None:
    async with pair(mosquitto_place, max_request_bytes=1000) as (anna, bridge):
        with pytest.raises(TooLargeError):
            await anna.exchange(b"x" * 1001, wait_s=1)
        with pytest.raises(SignatureError):
            await anna.exchange(b'{"payloadtype":"versionmsg","payload":"e30="}', wait_s=1)
        assert not bridge.was_asked_more


@pytest.mark.parametrize(
    "url", ["http://h", "mqtt://", "mqtt://user:secret@h", "mqtt://h:99999", "mqtt://h/path"]
)
def test_a_url_that_is_no_broker_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        MqttTransport(url, ANNA.id)
    assert "secret" not in str(caught.value)


async def _failed(anna: MqttTransport, body: bytes, *, wait_s: float) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        await anna.exchange(body, wait_s=wait_s)
    return caught.value
