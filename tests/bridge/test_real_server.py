"""The whole way: the real server, the bridge, a real mosquitto, a device with a client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colonist_agent.context import Context
from colonist_agent.function import Registry
from colonist_agent.transport_mqtt import MqttTransport, running
from colonist_bridge.config import BridgeConfig
from colonist_bridge.main import Bridge
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_client.transport import Transport
from colonist_protocol.envelope import parse_request
from colonist_protocol.process import State
from colonist_protocol.workflow import WorkflowSpec
from tests.agent.test_real_server import DEVICE, SECOND, House, _house, at_work, call
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


async def test_a_read_that_waits_comes_back_over_mqtt_at_the_change(
    mosquitto_place: Place, tmp_path: Path
) -> None:
    async with (
        bridged(mosquitto_place, tmp_path) as (house, device, bridge),
        asyncio.TaskGroup() as group,
    ):
        id = await house.submit("blink")
        held = group.create_task(device.get(id, while_state=State.WAITING, timeout_s=30))
        await eventually(lambda: bridge.forwarder.open_requests == 1)
        assert bridge.forwarder.held_polls == 0
        await house.person.cancel(id)
        assert (await held).state == State.CANCELLED


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


async def test_cancelled_workflow_stops_within_a_second_over_http_and_over_mqtt(
    mosquitto_place: Place, tmp_path: Path
) -> None:
    registry, stopped = Registry(), list[float]()
    started = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    @registry.function("work")
    async def work(context: Context) -> None:
        started.release()
        try:
            await asyncio.sleep(1000)
        finally:
            assert context.cancelled.is_set()
            stopped.append(loop.time())

    nodes = [call("work", nodename=name) for name in ("a", "b", "c")]
    async with bridged(mosquitto_place, tmp_path) as (house, device, bridge):
        second = _Noted(HttpTransport(house.url))
        noted = _Noted(device.transport)
        async with (
            Client(second, SECOND) as valve,
            at_work(Client(noted, DEVICE), registry, slots=2) as over_mqtt,
        ):
            graph = await house.person.submit_workflow(
                WorkflowSpec(colonyname="home", functionspecs=nodes)
            )
            await _acquired(started, 2)
            async with at_work(valve, registry) as over_http:
                await _acquired(started, 1)
                await eventually(lambda: bridge.forwarder.open_requests == 2)  # both are followed
                cancelled_at = loop.time()
                await house.person.cancel_workflow(graph.processgraphid)
                await eventually(lambda: len(stopped) == 3)
                assert max(stopped) - cancelled_at < 1.0
                await eventually(lambda: over_mqtt.counters.abandoned == 2)
                await eventually(lambda: over_http.counters.abandoned == 1)
        assert not {kind for kind in noted.kinds + second.kinds if kind.startswith("close")}
        assert bridge.counts.of("refused_busy") == 0


async def test_agent_with_many_slots_behind_a_bridge_follows_all_that_it_runs(
    mosquitto_place: Place, tmp_path: Path
) -> None:
    registry = Registry()

    @registry.function("work")
    async def work() -> None:
        await asyncio.sleep(1000)

    async with (
        bridged(mosquitto_place, tmp_path) as (house, device, bridge),
        at_work(device, registry, slots=16) as agent,
    ):
        ids = [await house.submit("work") for _ in range(16)]
        await eventually(lambda: bridge.forwarder.open_requests == 16)
        quick = await house.submit("work")
        assert (await house.person.get(quick)).state == State.WAITING  # no slot is free
        for each in ids[:15]:
            await house.person.cancel(each)
        await eventually(lambda: agent.counters.abandoned == 15)
        await house.until(quick, State.RUNNING)
        # The one that goes on, the new one, and the question for more work.
        await eventually(lambda: bridge.forwarder.open_requests == 3)
        assert bridge.counts.of("refused_busy") == 0


class _Noted:
    """A transport that notes the types of what is sent."""

    way = "noted"

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.kinds: list[str] = []

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        self.kinds.append(parse_request(body).payloadtype)
        return await self._inner.exchange(body, wait_s=wait_s)

    async def close(self) -> None:
        await self._inner.close()


async def _acquired(semaphore: asyncio.Semaphore, times: int) -> None:
    async with asyncio.timeout(20):
        for _ in range(times):
            await semaphore.acquire()
