"""The whole way: the real server, the bridge, a real mosquitto, a device with a client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colonist_agent.transport_mqtt import MqttTransport, running
from colonist_bridge.config import BridgeConfig
from colonist_bridge.main import Bridge
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_protocol.process import State
from tests.agent.test_real_server import DEVICE, House, _house
from tests.bridge.rig import Place, eventually

pytestmark = pytest.mark.mosquitto


@contextlib.asynccontextmanager
async def bridged(place: Place, folder: Path) -> AsyncIterator[tuple[House, Client, Bridge]]:
    """A colony, its device behind a bridge, and the bridge."""
    async with _house(folder) as house, asyncio.TaskGroup() as group:
        config = BridgeConfig(name="edge", server_url=house.url, broker_url=place.url)
        async with HttpTransport(house.url) as http:
            bridge = Bridge(config, http)
            task = group.create_task(bridge.run())
            await eventually(lambda: bridge.link.is_up)
            async with running(MqttTransport(place.url, DEVICE.id)) as transport:
                yield house, Client(transport, DEVICE), bridge
            task.cancel()


async def test_work_submitted_over_http_is_done_over_mqtt(
    mosquitto_place: Place, tmp_path: Path
) -> None:
    async with (
        bridged(mosquitto_place, tmp_path) as (house, device, bridge),
        asyncio.TaskGroup() as group,
    ):
        asked = group.create_task(device.assign("home", timeout_s=30))
        await eventually(lambda: bridge.forwarder.held_polls == 1)
        submitted = await house.submit("blink", 3)
        process = await asked
        assert process is not None
        assert process.processid == submitted
        await device.close(submitted, ["done"])
        done = await house.person.get(submitted)
        assert (done.state, done.output()) == (State.SUCCESS, ["done"])


async def test_work_does_not_go_to_a_device_that_has_gone(
    mosquitto_place: Place, tmp_path: Path
) -> None:
    async with bridged(mosquitto_place, tmp_path) as (house, device, bridge):
        async with asyncio.TaskGroup() as group:
            group.create_task(_ended(device))
            await eventually(lambda: bridge.forwarder.held_polls == 1)
            await device.aclose()
        await eventually(lambda: bridge.forwarder.open_requests == 0)
        submitted = await house.submit("blink")
        found = await house.device.assign("home", timeout_s=10)  # the same executor, over HTTP
        assert found is not None
        assert found.processid == submitted


async def _ended(device: Client) -> None:
    with contextlib.suppress(Exception):
        await device.assign("home", timeout_s=30)
