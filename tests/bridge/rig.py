"""A bridge between a real broker and a small honest server, and devices at the broker.

    async with rig(address) as r:
        async with r.device("anna") as anna:
            reply = await anna.ask(GetProcess(processid="p1"))

`Wire` is a bare MQTT client that may do what no honest device does.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from colonist_agent.transport_mqtt import Birth, MqttTransport, running
from colonist_bridge.config import BridgeConfig
from colonist_bridge.main import Bridge
from colonist_client.http import HttpTransport
from colonist_client.mqtt_connection import BrokerAddress, Connection, Incoming, Retained
from colonist_protocol import envelope
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.topics import Topics
from tests.bridge.colony import Colony, running_colony

WAIT_S = 20.0
TOPICS = Topics()


@dataclass(frozen=True)
class Place:
    """A broker, and how it wants to be logged in to."""

    url: str
    password_of: Callable[[str], str] = lambda _name: ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def identity(name: str) -> Identity:
    return Identity.from_entropy(hashlib.sha256(name.encode()).digest())


class Device:
    """An honest device: a key and a transport."""

    def __init__(self, key: Identity, transport: MqttTransport) -> None:
        self.key = key
        self.id = key.id
        self.transport = transport

    def pack(self, message: Message) -> bytes:
        return envelope.pack_request(message, self.key)

    async def ask(self, message: Message, *, wait_s: float = WAIT_S) -> bytes:
        """The payload of a success; the text of a failure as `Failure`."""
        reply = envelope.parse_reply(
            await self.transport.exchange(self.pack(message), wait_s=wait_s)
        )
        assert isinstance(reply, bytes), reply
        return reply


@dataclass
class Rig:
    place: Place
    colony: Colony
    config: BridgeConfig
    bridge: Bridge
    group: asyncio.TaskGroup
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start_bridge(self) -> None:
        self.tasks.append(self.group.create_task(self._run()))

    async def _run(self) -> None:
        async with HttpTransport(self.colony.url, max_connections=2000) as http:
            self.bridge = Bridge(self.config, http)
            await self.bridge.run()

    async def stop_bridge(self, *, abruptly: bool = False) -> None:
        """End the bridge; `abruptly`: without a goodbye, as a power cut would."""
        if abruptly:
            self.bridge.link.cut()
        task = self.tasks.pop()
        task.cancel()
        await asyncio.wait({task})

    @contextlib.asynccontextmanager
    async def device(self, name: str, **options: object) -> AsyncIterator[Device]:
        key = identity(name)
        made = MqttTransport(
            self.place.url,
            key.id,
            password=self.place.password_of(key.id),
            birth=Birth(colony="c", name=name, version="1"),
            reconnect_base_s=0.05,
            reconnect_cap_s=0.2,
            spread_s=0.1,
            **options,  # type: ignore[arg-type]
        )
        async with running(made) as transport:
            await eventually(lambda: made.is_connected)
            yield Device(key, transport)

    async def counted(self, name: str, at_least: int = 1) -> None:
        """Wait until the bridge has counted this."""
        await eventually(lambda: self.bridge.counts.of(name) >= at_least)


async def eventually(is_true: Callable[[], bool]) -> None:
    """Wait for something that no event announces, a turn of the loop at a time."""
    async with asyncio.timeout(WAIT_S):
        while not is_true():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def rig(place: Place, **settings: object) -> AsyncIterator[Rig]:
    async with running_colony() as colony, asyncio.TaskGroup() as group:
        config = BridgeConfig(
            name="edge",
            server_url=colony.url,
            broker_url=place.url,
            password=place.password_of("gw-edge"),
            reconnect_base_s=0.05,
            reconnect_cap_s=0.2,
            retry_after_s=0.2,
        )
        config = replace(config, **settings)  # type: ignore[arg-type]
        made = Rig(place, colony, config, None, group)  # type: ignore[arg-type]
        made.start_bridge()
        await eventually(lambda: made.bridge is not None and made.bridge.link.is_up)
        try:
            yield made
        finally:
            while made.tasks:
                await made.stop_bridge()


class Wire:
    """A bare client: everything that comes, in order."""

    def __init__(self) -> None:
        self.connection: Connection
        self.messages: asyncio.Queue[Incoming] = asyncio.Queue()
        self.acknowledges = True

    def take(self, message: Incoming) -> None:
        if self.acknowledges:
            self.connection.acknowledge(message)
        self.messages.put_nowait(message)

    async def next(self) -> Incoming:
        async with asyncio.timeout(WAIT_S):
            return await self.messages.get()

    async def next_json(self) -> dict[str, object]:
        return json.loads((await self.next()).payload)


@contextlib.asynccontextmanager
async def wire(
    place: Place, name: str, *topics: str, will: Retained | None = None
) -> AsyncIterator[Wire]:
    made = Wire()
    address = BrokerAddress(
        host="127.0.0.1",
        port=place.port,
        client_id=name,
        username=name,
        password=place.password_of(name),
        answer_s=5.0,
    )
    last = will or Retained(topic=f"{TOPICS.prefix}/{name}/lost", payload=b"")
    made.connection = Connection(address, will=last, on_message=made.take)
    try:
        await made.connection.open()
        if topics:
            await made.connection.subscribe(topics)
        yield made
    finally:
        await made.connection.close()
