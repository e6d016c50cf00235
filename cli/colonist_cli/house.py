"""Everything in one process: server, broker and bridge, and two agents in a colony.

This is `colonist up`. Nothing in it is special: the same parts run apart with `colonist server`,
`colonist bridge run` and `colonist agent run`. With several nodes the servers share an etcd that is
started here, and agents and bridge are spread over them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from colonist_agent.agent import Agent
from colonist_agent.config import AgentConfig
from colonist_agent.config import load as load_agent
from colonist_agent.function import Registry
from colonist_agent.main import client_of, fill, limits, pin_of
from colonist_agent.transport_mqtt import Birth, MqttTransport, running
from colonist_bridge.config import BridgeConfig
from colonist_bridge.main import Bridge
from colonist_cli.colony import Founding, found, key_of
from colonist_cli.embedded_broker import EmbeddedBroker, embedded_broker
from colonist_cli.local_etcd import find, local_etcd
from colonist_cli.place import Notes, Place
from colonist_cli.ports import HOST, check_free
from colonist_client.http import HttpTransport
from colonist_client.retry import Backoff
from colonist_client.sealer import Pin
from colonist_client.transport import Transport
from colonist_server.config import ServerConfig
from colonist_server.keyring import OWNER_KEY
from colonist_server.main import Server, serve

COLONY: Final = "home"
EXECUTOR_TYPE: Final = "machine"
HTTP_AGENT: Final = "http-agent"
MQTT_AGENT: Final = "mqtt-agent"
BRIDGE: Final = "bridge"
SLOTS: Final = 4
STOP_S: Final = 1.0

AGENT_FILE: Final = """\
# What the two agents of `colonist up` may do. Read when they start.
# Everything here is an allow-list: what is not named cannot be called.

checksum_roots = ["/usr/bin", "/usr/share"]

[commands.kernel]
argv = ["/bin/uname", "-srm"]
description = "the kernel of this machine"

[commands.disk]
argv = ["/bin/df", "-h", "{path}"]
description = "how full a file system is"
[commands.disk.parameters.path]
default = "/"
pattern = "/[A-Za-z0-9/_.-]*"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How `up` was asked to run; port 0 takes a free one."""

    port: int = 50080
    broker_port: int = 50883
    colony: str = COLONY
    nodes: int = 1
    search: str = ""
    """Where programs are, as in PATH."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """All that runs."""

    servers: tuple[Server, ...]
    broker: EmbeddedBroker
    founding: Founding
    agents: tuple[Agent, ...]

    @property
    def server(self) -> Server:
        """The first of them, which the other commands are told of."""
        return self.servers[0]


@asynccontextmanager
async def house(place: Place, plan: Plan) -> AsyncGenerator[House]:
    """Start everything, and stop everything at the end of the block. Raises `CliError`."""
    check_free(plan.port, "--port")
    check_free(plan.broker_port, "--broker-port")
    place.make()
    if not place.agent_file.exists():
        place.agent_file.write_text(AGENT_FILE)
    async with AsyncExitStack() as stack:
        store = await _store(stack, place, plan)
        servers = tuple(
            [await stack.enter_async_context(serve(each)) for each in _nodes(place, plan, store)]
        )
        server_id = servers[0].rooms.server_keys.id
        for_agent, for_bridge = servers[1 % plan.nodes].url, servers[2 % plan.nodes].url
        founding = await found(
            servers[0].url,
            place,
            colony=plan.colony,
            executors=(HTTP_AGENT, MQTT_AGENT),
            executor_type=EXECUTOR_TYPE,
            server_id=server_id,
        )
        broker = await stack.enter_async_context(embedded_broker(port=plan.broker_port))
        await stack.enter_async_context(bridge_for(for_bridge, broker, server_id))
        over_http = await stack.enter_async_context(_over_http(for_agent, place, plan, server_id))
        over_mqtt = await stack.enter_async_context(_over_mqtt(broker, place, plan, server_id))
        place.write(notes(servers[0].url, broker.url, plan.colony, server_id))
        yield House(
            servers=servers, broker=broker, founding=founding, agents=(over_http, over_mqtt)
        )


async def _store(stack: AsyncExitStack, place: Place, plan: Plan) -> str:
    """The URL of the store: a file for one node; several share an etcd."""
    if plan.nodes == 1:
        return f"sqlite:{place.store}"
    return await stack.enter_async_context(local_etcd(find(plan.search), place.etcd))


def _nodes(place: Place, plan: Plan, store: str) -> list[ServerConfig]:
    """The servers' settings; the first has the port that was asked for, the others free ones."""
    return [
        ServerConfig(
            host=HOST,
            port=0 if number else plan.port,
            store=store,
            keys=place.keys,
            node=f"node-{number + 1}",
        )
        for number in range(plan.nodes)
    ]


def notes(server: str, broker: str, colony: str, server_id: str = "") -> Notes:
    """What the other commands need to know."""
    return Notes(
        server=server,
        broker=broker,
        colony=colony,
        executor_type=EXECUTOR_TYPE,
        key="keys/user.key",
        colony_key="keys/colony.key",
        server_key=f"keys/{OWNER_KEY}",
        server_id=server_id,
    )


@asynccontextmanager
async def bridge_for(
    server: str, broker: EmbeddedBroker, server_id: str = ""
) -> AsyncGenerator[Bridge]:
    """A bridge with an account at the broker, for the length of the block."""
    account, password = broker.add_bridge(BRIDGE)
    config = BridgeConfig(
        name=BRIDGE,
        server_url=server,
        broker_url=broker.url,
        server_id=server_id,
        username=account,
        password=password,
        retry_after_s=0.5,
        reconnect_cap_s=2.0,
    )
    async with HttpTransport(server, max_connections=1000) as transport:
        bridge = Bridge(config, transport)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(bridge.run())
            try:
                yield bridge
            finally:
                task.cancel()


@asynccontextmanager
async def _over_http(
    server: str, place: Place, plan: Plan, server_id: str
) -> AsyncGenerator[Agent]:
    config = _agent_config(server, place, plan, HTTP_AGENT, server_id)
    pin = pin_of(config)
    async with HttpTransport(server) as transport, _agent(config, transport, pin) as agent:
        yield agent


@asynccontextmanager
async def _over_mqtt(
    broker: EmbeddedBroker, place: Place, plan: Plan, server_id: str
) -> AsyncGenerator[Agent]:
    config = _agent_config(broker.url, place, plan, MQTT_AGENT, server_id)
    pin = pin_of(config)
    made = MqttTransport(
        broker.url,
        config.identity.id,
        password=broker.add_device(config.identity.id),
        birth=Birth(colony=config.colony, name=config.name, version=version("colonist")),
        pin=pin,
    )
    async with running(made) as transport, _agent(config, transport, pin) as agent:
        yield agent


def _agent_config(url: str, place: Place, plan: Plan, name: str, server_id: str) -> AgentConfig:
    key_of(place, name)
    flags = {
        "url": url,
        "colony": plan.colony,
        "name": name,
        "key_file": str(place.key(name)),
        "server_id": server_id,
        "slots": str(SLOTS),
        "stop_grace_s": str(STOP_S),
    }
    return load_agent(place.agent_file, {}, flags, place.custody)


@asynccontextmanager
async def _agent(
    config: AgentConfig, transport: Transport, pin: Pin | None
) -> AsyncGenerator[Agent]:
    agent = Agent(
        client_of(transport, config, pin),
        config.colony,
        backoff=Backoff(uniform=secrets.SystemRandom().uniform),
        name=config.name,
        registry=fill(Registry(), config, {"PATH": "/usr/bin:/bin", "HOME": str(Path.home())}),
        limits=limits(config),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.run())
        try:
            yield agent
        finally:
            agent.stop()
