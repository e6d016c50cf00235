"""The real broker of the tests: starts, keeps what it should, and can be mistreated."""

import asyncio
import socket

import aiomqtt
import pytest

from tests.support import parts
from tests.support.broker import Broker, BrokerError, running_broker

pytestmark = pytest.mark.mosquitto
TOPIC = "a/b"


async def publish(broker: Broker, payload: bytes, *, retain: bool = False) -> None:
    async with aiomqtt.Client(broker.host, broker.port) as client:
        await client.publish(TOPIC, payload, qos=1, retain=retain)


async def retained(broker: Broker) -> bytes:
    async with aiomqtt.Client(broker.host, broker.port) as client, asyncio.timeout(10):
        await client.subscribe(TOPIC, qos=1)
        message = await anext(aiter(client.messages))
        assert isinstance(message.payload, bytes)
        return message.payload


async def test_it_carries_a_message() -> None:
    async with running_broker() as broker:
        await publish(broker, b"hello", retain=True)
        assert await retained(broker) == b"hello"


async def test_a_restart_keeps_port_and_persistence() -> None:
    async with running_broker() as broker:
        await publish(broker, b"kept", retain=True)
        port, pid = broker.port, broker.pid
        await broker.restart()
        assert broker.port == port
        assert broker.pid != pid
        assert await retained(broker) == b"kept"


async def test_a_killed_broker_refuses_until_it_is_started() -> None:
    async with running_broker() as broker:
        await broker.kill()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(broker.host, broker.port)
        await broker.start()
        await publish(broker, b"back")


async def test_a_paused_broker_answers_after_it_is_resumed() -> None:
    async with running_broker() as broker:
        broker.pause()
        publishing = asyncio.ensure_future(publish(broker, b"patience", retain=True))
        done, _ = await asyncio.wait([publishing], timeout=0.3)
        broker.resume()
        await publishing
        assert not done
        assert await retained(broker) == b"patience"


async def test_it_listens_on_the_loopback_interface_only() -> None:
    async with running_broker() as broker:
        with socket.socket() as other:
            other.bind(
                ("127.0.0.2", broker.port)
            )  # free, so the broker does not hold every address


async def test_a_wrong_configuration_is_told_with_the_log() -> None:
    with pytest.raises(BrokerError, match="ended at its start"):
        async with running_broker("nonsense true\n"):
            pass


async def test_it_is_gone_after_the_block() -> None:
    async with running_broker() as broker:
        host, port = broker.host, broker.port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


def test_its_client_tools_are_there() -> None:
    assert parts.program("mosquitto", "mosquitto_sub").exists()
