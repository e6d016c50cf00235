"""Requests and replies over a real broker: the behaviours that devices rely on."""

import asyncio
import json

import pytest

from colonist_client.transport import UnreachableError
from colonist_protocol import envelope
from colonist_protocol.claims import Enrol
from colonist_protocol.process import AssignProcess, GetProcess
from colonist_protocol.seal import VERSION, EpochSeal
from tests.bridge.rig import TOPICS, WAIT_S, Place, eventually, identity, rig, wire

ASSIGN = AssignProcess(colonyname="c", timeout=30)


def read(number: int = 0) -> GetProcess:
    return GetProcess(processid=f"p{number}")


async def test_reply_is_byte_for_byte_what_the_server_sent(place: Place) -> None:
    async with rig(place) as r, r.device("anna") as anna:
        body = anna.pack(read())
        expected = envelope.pack_reply("getprocessmsg", envelope.codec.encode(read()))
        assert await anna.transport.exchange(body, wait_s=WAIT_S) == expected


async def test_failure_of_the_server_reaches_the_device_as_it_is(place: Place) -> None:
    async with rig(place) as r, r.device("anna") as anna:
        body = anna.pack(AssignProcess(colonyname="c", timeout=1))
        failure = envelope.parse_reply(await anna.transport.exchange(body, wait_s=WAIT_S))
        assert isinstance(failure, envelope.Failure)
        assert failure.code == "no_process"


async def test_two_devices_at_once_get_each_their_own(place: Place) -> None:
    async with rig(place) as r, r.device("anna") as anna, r.device("berta") as berta:
        async with asyncio.TaskGroup() as group:
            polls = {d.id: group.create_task(d.ask(ASSIGN)) for d in (anna, berta)}
            await r.colony.until(lambda: r.colony.parked == 2)
            r.colony.give(berta.id, b'{"for":"berta"}')
            r.colony.give(anna.id, b'{"for":"anna"}')
        assert polls[anna.id].result() == b'{"for":"anna"}'
        assert polls[berta.id].result() == b'{"for":"berta"}'


async def test_a_held_poll_does_not_stop_other_requests_of_its_device(place: Place) -> None:
    async with rig(place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        poll = group.create_task(anna.ask(ASSIGN))
        await r.colony.until(lambda: r.colony.parked == 1)
        assert json.loads(await anna.ask(read(7)))["processid"] == "p7"
        r.colony.give(anna.id, b"{}")
        assert await poll == b"{}"


async def test_equal_requests_at_once_are_answered_one_after_the_other(place: Place) -> None:
    async with rig(place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        polls = [group.create_task(anna.ask(ASSIGN)) for _ in range(3)]
        for number in range(3):
            await r.colony.until(lambda: r.colony.parked == 1)
            r.colony.give(anna.id, b'{"n":%d}' % number)
            assert await polls[number] == b'{"n":%d}' % number


async def test_captured_request_on_another_topic_gets_only_a_hint(place: Place) -> None:
    anna, thief = identity("anna"), identity("thief").id
    captured = envelope.pack_request(read(), anna)
    async with (
        rig(place) as r,
        wire(place, anna.id, TOPICS.device(anna.id, "rep")) as at_anna,
        wire(place, thief, TOPICS.device(thief, "rep")) as at_thief,
    ):
        await at_thief.connection.publish(TOPICS.device(thief, "req"), captured)
        said = (await at_thief.next_json())["hint"]
        assert isinstance(said, dict)
        signature = json.loads(captured)["signature"]
        assert (said["code"], said["req"]) == ("not_yours", signature[:16])
        assert r.bridge.counts.of("refused_not_yours") == 1
        assert not r.colony.seen[anna.id, "getprocessmsg"]
        assert at_anna.messages.empty()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b"[]", "wrong_type"),
        (b'{"payloadtype":"a","payload":"e30=","signature":""}', "signature_length"),
        (b'{"payloadtype":"a","payloadtype":"b","payload":""}', "duplicate_member"),
        (b"[" * 5000, "too_deep"),
        (b"x" * 2_000_000, "too_large"),
    ],
)
async def test_garbage_gets_a_hint_and_is_counted(
    mosquitto_place: Place, message: bytes, code: str
) -> None:
    anna = identity("anna").id
    async with (
        rig(mosquitto_place) as r,
        wire(mosquitto_place, anna, TOPICS.device(anna, "rep")) as at_anna,
    ):
        await at_anna.connection.publish(TOPICS.device(anna, "req"), message)
        said = (await at_anna.next_json())["hint"]
        assert isinstance(said, dict)
        assert said["code"] == code
        assert r.bridge.counts.of(f"refused_{code}") == 1


@pytest.mark.mosquitto
async def test_retained_request_is_counted_and_not_forwarded(mosquitto_place: Place) -> None:
    anna = identity("anna")
    async with wire(mosquitto_place, anna.id) as at_anna:
        body = envelope.pack_request(read(), anna)
        await at_anna.connection.publish(TOPICS.device(anna.id, "req"), body, retain=True)
    async with rig(mosquitto_place) as r:
        await r.counted("retained_request")
        assert not r.colony.seen[anna.id, "getprocessmsg"]


@pytest.mark.mosquitto
async def test_request_on_a_topic_of_no_device_is_counted(mosquitto_place: Place) -> None:
    async with rig(mosquitto_place) as r, wire(mosquitto_place, "enrol") as stranger:
        await stranger.connection.publish(f"{TOPICS.prefix}/stranger/req", b"{}")
        await r.counted("foreign_topic")


@pytest.mark.mosquitto
async def test_who_has_no_account_may_enrol_and_do_nothing_else(mosquitto_place: Place) -> None:
    key = identity("new device")
    given = EpochSeal(VERSION, "ab" * 32, "", "0" * 32, 60)
    body = envelope.pack_sealed_request(Enrol(colonyname="c"), key, given)
    topic = TOPICS.enrolment("req")
    async with (
        rig(mosquitto_place) as r,
        wire(mosquitto_place, "enrol", TOPICS.enrolment("rep")) as stranger,
    ):
        await stranger.connection.publish(topic, body)
        await r.colony.until(lambda: bool(r.colony.seen))
        assert b'"payloadtype":"enrolmsg"' in (await stranger.next()).payload
        await stranger.connection.publish(topic, envelope.pack_request(read(), key))
        assert b"not_yours" in (await stranger.next()).payload
        for _ in range(20):
            await stranger.connection.publish(topic, b"{}")
        await r.counted("refused_busy")


async def test_same_bytes_twice_in_flight_are_forwarded_once(place: Place) -> None:
    anna = identity("anna")
    body = envelope.pack_request(ASSIGN, anna)
    async with rig(place) as r, wire(place, anna.id, TOPICS.device(anna.id, "rep")) as at_anna:
        await at_anna.connection.publish(TOPICS.device(anna.id, "req"), body)
        await r.colony.until(lambda: r.colony.parked == 1)
        await at_anna.connection.publish(TOPICS.device(anna.id, "req"), body)
        await r.counted("joined")
        r.colony.give(anna.id, b"{}")
        assert b'"payload":"e30="' in (await at_anna.next()).payload
        assert r.colony.seen[anna.id, "assignprocessmsg"] == 1


async def test_plain_reply_names_its_request(place: Place) -> None:
    anna = identity("anna")
    body = envelope.pack_request(read(), anna)
    async with rig(place), wire(place, anna.id, TOPICS.device(anna.id, "rep")) as at_anna:
        await at_anna.connection.publish(TOPICS.device(anna.id, "req"), body)
        assert (await at_anna.next_json())["req"] == json.loads(body)["signature"][:16]


async def test_reply_over_the_limit_is_not_sent_on(place: Place) -> None:
    async with rig(place, max_reply_bytes=500) as r, r.device("anna") as anna:
        r.colony.answer = lambda _caller, _asked: b'"' + b"x" * 1000 + b'"'
        with pytest.raises(UnreachableError, match="reply_too_large"):
            await anna.ask(read(), wait_s=0.3)
        assert r.bridge.counts.of("told_reply_too_large") >= 1


async def test_over_its_limit_a_device_is_told_busy_and_served_later(place: Place) -> None:
    async with rig(place, max_requests_per_device=1) as r, r.device("anna") as anna:
        async with asyncio.TaskGroup() as group:
            poll = group.create_task(anna.ask(ASSIGN))
            await r.colony.until(lambda: r.colony.parked == 1)
            late = group.create_task(anna.ask(read(1)))
            await r.counted("refused_busy")
            r.colony.give(anna.id, b"{}")
            await poll
        assert json.loads(late.result())["processid"] == "p1"


async def test_a_fresh_poll_replaces_the_held_one_at_the_server(place: Place) -> None:
    anna = identity("anna")
    other = AssignProcess(colonyname="c", timeout=31)
    async with rig(place) as r, wire(place, anna.id, TOPICS.device(anna.id, "rep")) as at_anna:
        for message in (ASSIGN, other):
            body = envelope.pack_request(message, anna)
            await at_anna.connection.publish(TOPICS.device(anna.id, "req"), body)
            await r.colony.until(lambda: r.colony.parked == 1)
        await r.colony.until(lambda: r.colony.seen[anna.id, "assignprocessmsg"] == 2)
        await r.colony.until(lambda: r.colony.parked == 1)
        r.colony.give(anna.id, b'{"to":"other"}')
        assert (await at_anna.next_json())["req"] == json.loads(body)["signature"][:16]
        assert r.bridge.counts.of("poll_replaced") == 1


async def test_polls_of_a_lost_device_are_withdrawn_from_the_server(place: Place) -> None:
    anna = identity("anna")
    async with rig(place) as r, wire(place, anna.id) as at_anna:
        connection = at_anna.connection
        await connection.publish(TOPICS.device(anna.id, "state"), b'{"boot":"b","conn":2}')
        await connection.publish(TOPICS.device(anna.id, "req"), envelope.pack_request(ASSIGN, anna))
        await r.colony.until(lambda: r.colony.parked == 1)
        await connection.publish(TOPICS.device(anna.id, "lost"), b'{"boot":"b","conn":1}')
        await connection.publish(TOPICS.device(anna.id, "req"), b"after the late will")
        await r.counted("refused_not_json")
        assert r.colony.parked == 1
        await connection.publish(TOPICS.device(anna.id, "lost"), b'{"boot":"b","conn":2}')
        await r.colony.until(lambda: r.colony.parked == 0)


async def test_a_device_that_goes_in_order_leaves_no_poll_behind(place: Place) -> None:
    async with rig(place) as r:
        async with asyncio.TaskGroup() as group, r.device("anna") as anna:
            poll = group.create_task(_outcome(anna.ask(ASSIGN)))
            await r.colony.until(lambda: r.colony.parked == 1)
        assert "closed by this program" in poll.result()
        await r.colony.until(lambda: r.colony.parked == 0)


async def test_bridge_announces_itself_and_its_uplink(place: Place) -> None:
    anna = identity("anna").id
    async with rig(place) as r, wire(place, anna, f"{TOPICS.prefix}/gw/+/#") as at_anna:
        message = await at_anna.next()
        state = json.loads(message.payload)
        assert message.topic == f"{TOPICS.prefix}/gw/edge/state"
        assert message.is_retained
        assert state["uplink"] == "up"
        await r.colony.stop()
        async with r.device("berta") as berta, asyncio.TaskGroup() as group:
            poll = group.create_task(_outcome(berta.ask(read(), wait_s=1)))
            while state["uplink"] == "up":
                state = await at_anna.next_json()
        assert "try_later" in poll.result()


async def test_requests_go_out_again_when_the_uplink_is_back(place: Place) -> None:
    async with rig(place) as r, r.device("anna") as anna, asyncio.TaskGroup() as group:
        port = r.colony.port
        await r.colony.stop()
        asked = group.create_task(anna.ask(read(5)))
        await eventually(lambda: not r.bridge.uplink.is_up)
        await r.colony.start(port)
        assert json.loads(await asked)["processid"] == "p5"


async def _outcome(asking: object) -> str:
    try:
        return repr(await asking)  # type: ignore[misc]
    except UnreachableError as error:
        return str(error)
