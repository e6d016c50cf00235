"""MQTT keeps the laws of transports: device, broker, bridge and an HTTP server in a row."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from colonist_agent.transport_mqtt import MqttTransport, running
from colonist_bridge.config import BridgeConfig
from colonist_bridge.main import Bridge
from colonist_cli.embedded_broker import embedded_broker
from colonist_client.http import HttpTransport
from tests.laws.transport import laws
from tests.laws.transport.test_http import HttpLink
from tests.support.broker import running_broker


class MqttLink(HttpLink):
    """As over HTTP, with a bridge in between, whose own probes the far end does not see."""

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        is_probe = b'"versionmsg"' in body
        return web.Response(body=await (laws.echo if is_probe else self.answer)(body))


@contextlib.asynccontextmanager
async def mosquitto() -> AsyncIterator[tuple[str, str, str]]:
    """A broker's address, and the passwords of bridge and device."""
    async with running_broker() as broker:
        yield f"mqtt://127.0.0.1:{broker.port}", "", ""


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[tuple[str, str, str]]:
    """The same of the broker inside the process."""
    async with embedded_broker() as broker:
        _, password = broker.add_bridge("edge")
        yield broker.url, password, broker.add_device(laws.KEY.id)


@contextlib.asynccontextmanager
async def chain(kind: str) -> AsyncIterator[MqttLink]:
    """All of it, running."""
    link = MqttLink()
    await link.bring_back()
    broker = mosquitto() if kind == "mosquitto" else embedded()
    async with broker as (url, bridge_password, password), asyncio.TaskGroup() as group:
        config = BridgeConfig(
            name="edge",
            server_url=link.url,
            broker_url=url,
            password=bridge_password,
            retry_after_s=0.5,
            reconnect_base_s=0.05,
            reconnect_cap_s=0.2,
        )
        async with HttpTransport(link.url) as http:
            bridge = group.create_task(Bridge(config, http).run())
            device = MqttTransport(
                url, laws.KEY.id, password=password, reconnect_base_s=0.05, reconnect_cap_s=0.2
            )
            async with running(device) as link.transport:
                yield link
            bridge.cancel()
    await link.take_away()


async def hold(kind: str, ready: asyncio.Future[MqttLink], done: asyncio.Event) -> None:
    """Keep the chain in one task from the start of a test to its end."""
    async with chain(kind) as link:
        ready.set_result(link)
        await done.wait()


@pytest.mark.usefixtures("link")
class TestMqttTransport(laws.TransportLaws):
    """All laws, over both brokers."""

    @pytest_asyncio.fixture(
        params=[pytest.param("mosquitto", marks=pytest.mark.mosquitto), "embedded"]
    )
    async def link(self, request: pytest.FixtureRequest) -> AsyncGenerator[MqttLink]:
        ready: asyncio.Future[MqttLink] = asyncio.get_running_loop().create_future()
        done = asyncio.Event()
        held = asyncio.create_task(hold(request.param, ready, done))
        await asyncio.wait({held, ready}, return_when=asyncio.FIRST_COMPLETED)
        if held.done():
            await held
        yield await ready
        done.set()
        await held
