"""The real broker of the tests: starts, keeps what it should, and can be mistreated."""

import asyncio
import socket

import pytest

from tests.support import parts
from tests.support.broker import Broker, BrokerError, running_broker

pytestmark = pytest.mark.mosquitto


async def tool(name: str, broker: Broker, *arguments: str) -> bytes:
    """Run one of mosquitto's own clients to its end and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        parts.program("mosquitto", name),
        *("-h", broker.host, "-p", str(broker.port), "-q", "1", "-t", "a/b", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.strip()


async def publish(broker: Broker, payload: str) -> None:
    await tool("mosquitto_pub", broker, "-r", "-m", payload)


async def retained(broker: Broker) -> bytes:
    return await tool("mosquitto_sub", broker, "-C", "1", "-W", "10")


async def test_it_carries_a_message() -> None:
    async with running_broker() as broker:
        await publish(broker, "hello")
        assert await retained(broker) == b"hello"


async def test_a_restart_keeps_port_and_persistence() -> None:
    async with running_broker() as broker:
        await publish(broker, "kept")
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
        await publish(broker, "back")


async def test_a_paused_broker_answers_after_it_is_resumed() -> None:
    async with running_broker() as broker:
        broker.pause()
        publishing = asyncio.ensure_future(publish(broker, "patience"))
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
