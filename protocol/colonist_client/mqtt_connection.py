"""One connection to an MQTT broker: the only module that imports an MQTT library (paho-mqtt).

MQTT 3.1.1, QoS 1, persistent session, acknowledgement by hand. An object lives for one connection
and is then thrown away: what paho keeps in memory for a session (packet ids, a queue of unsent
messages) is not durable, so it must not outlive what it describes. Who wants a message to survive
sends it again on the next connection; `mqtt_link` makes that connection.

paho is used without its threads: the event loop says when the socket is ready. Only the connect
itself (names, TCP, TLS), which paho does in one blocking call, runs on a thread.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

QOS: Final = 1
_TICK_S: Final = 1.0
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


class LinkError(Exception):
    """The broker cannot be reached, refuses, or is gone. The text is for an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where the broker is, and who we are there."""

    host: str
    port: int
    client_id: str
    username: str
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    connect_s: float = 10.0
    answer_s: float = 10.0
    keepalive_s: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """A message that the broker keeps: a birth or a last will."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A message as it came. `is_again`: the broker says that it may have come before."""

    topic: str
    payload: bytes
    is_retained: bool
    is_again: bool
    packet: int
    qos: int


class _Client(paho.Client):
    """paho, except that we dial: its own way leaves the socket open when TLS fails."""

    def __init__(self, address: BrokerAddress) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._address = address

    def _create_socket(self) -> Any:
        address = self._address
        sock = socket.create_connection((address.host, address.port), timeout=address.connect_s)
        # Small packets both ways: with Nagle's algorithm each waits 40 ms for the last one's ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls is None:
            return sock
        return address.tls.wrap_socket(sock, server_hostname=address.host)


class Connection:
    """Open once, use until `lost` returns, close. Not to be used again."""

    def __init__(
        self, address: BrokerAddress, *, will: Retained, on_message: Callable[[Incoming], None]
    ) -> None:
        """`on_message` is called on the event loop; it must not wait and must not raise."""
        self._address = address
        self._on_incoming = on_message
        self._loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._client = self._made(will)

    @property
    def is_open(self) -> bool:
        """Whether the broker has accepted us and is not known to be gone."""
        return _is_done(self._accepted) and not self._lost.done()

    async def open(self) -> None:
        """Connect, and return once the broker has accepted. Raises `LinkError`."""
        address = self._address
        dialling = self._loop.run_in_executor(
            None, self._client.connect, address.host, address.port, address.keepalive_s
        )
        try:
            await asyncio.shield(dialling)
        except asyncio.CancelledError:
            dialling.add_done_callback(self._hang_up)
            raise
        except (OSError, ValueError) as error:
            raise LinkError(f"{address.host}:{address.port}: {_short(error)}") from None
        self._attach()
        await self._within(self._accepted, "the broker did not answer the connect")

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe at QoS 1. Raises `LinkError`, also when the broker refuses one of them."""
        code, packet = self._client.subscribe([(topic, QOS) for topic in topics])
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or packet is None:
            raise LinkError("the connection is gone")
        await self._answer(packet, "the broker did not acknowledge the subscription")

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish and wait for the broker's PUBACK. Raises `LinkError`."""
        packet = self.send(topic, payload, retain=retain)
        await self._answer(packet, "the broker did not acknowledge a message")

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Hand a message to the connection without waiting. Raises `LinkError`."""
        info = self._client.publish(topic, payload, qos=QOS, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or not self.is_open:
            raise LinkError("the connection is gone")
        return info.mid

    def acknowledge(self, message: Incoming) -> None:
        """PUBACK. Without it the broker soon sends nothing more, to nobody behind us."""
        if message.qos and not self._lost.done():
            self._client.ack(message.packet, message.qos)

    async def lost(self) -> str:
        """Wait until the connection is gone; why."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Say goodbye, which also takes back the last will. Idempotent."""
        if self.is_open:
            self._client.disconnect()
            try:
                async with asyncio.timeout(self._address.answer_s):
                    await self.lost()
            except TimeoutError:
                pass
        self.cut("closed")

    def cut(self, why: str) -> None:
        """Break the connection without a goodbye: the broker will publish the last will."""
        sock = self._client.socket()
        self._detach(sock)
        if sock is not None:
            sock.close()
        self._gone(why)

    def _made(self, will: Retained) -> paho.Client:
        address = self._address
        client = _Client(address)
        client.username_pw_set(address.username, address.password)
        client.will_set(will.topic, will.payload, qos=QOS, retain=True)
        client.max_inflight_messages_set(0)  # 0: no limit of paho's own; callers have theirs
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    def _attach(self) -> None:
        client, sock = self._client, self._client.socket()
        if sock is None:
            raise LinkError("the broker closed the connection at once")
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_socket_full
        client.on_socket_unregister_write = self._on_socket_empty
        self._loop.add_reader(sock.fileno(), self._readable)
        if client.want_write():
            self._loop.add_writer(sock.fileno(), self._writable)
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _detach(self, sock: Any) -> None:
        if sock is not None and sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def _hang_up(self, dialled: asyncio.Future[Any]) -> None:
        if not dialled.cancelled():
            dialled.exception()  # nobody waits for it any more
        self.cut("abandoned while connecting")

    def _readable(self) -> None:
        try:
            self._client.loop_read()
            _acknowledge_at_once(self._client.socket())
            while _has_more(self._client.socket()):
                self._client.loop_read()
        except OSError as error:
            self.cut(_short(error))

    def _writable(self) -> None:
        try:
            self._client.loop_write()
        except OSError as error:
            self.cut(_short(error))

    def _tick(self) -> None:
        """Let paho send its pings and notice that none is answered."""
        try:
            self._client.loop_misc()
        except OSError as error:
            self.cut(_short(error))
        if not self._lost.done():
            self._timer = self._loop.call_later(_TICK_S, self._tick)

    async def _answer(self, packet: int, complaint: str) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting[packet] = waiter
        if self._lost.done():
            waiter.set_exception(LinkError(self._lost.result()))
        try:
            await self._within(waiter, complaint)
        finally:
            self._waiting.pop(packet, None)

    async def _within(self, waiter: asyncio.Future[None], complaint: str) -> None:
        try:
            async with asyncio.timeout(self._address.answer_s):
                await waiter
        except TimeoutError:
            self.cut(complaint)
            raise LinkError(complaint) from None

    def _gone(self, why: str) -> None:
        if self._lost.done():
            return
        self._lost.set_result(why)
        if not self._accepted.done():
            self._accepted.set_exception(LinkError(why))
            self._accepted.exception()  # nobody may be waiting for it
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(LinkError(why))

    def _on_connect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if self._accepted.done():
            return
        if code.is_failure:
            self._accepted.set_exception(LinkError(f"the broker refuses us: {code}"))
        else:
            self._accepted.set_result(None)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        self._gone(f"connection lost: {code}")

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no topic of ours; still to be acknowledged
        self._on_incoming(
            Incoming(
                topic=topic,
                payload=bytes(message.payload),
                is_retained=message.retain,
                is_again=message.dup,
                packet=message.mid,
                qos=message.qos,
            )
        )

    def _on_publish(
        self, _client: paho.Client, _data: Any, packet: int, _code: Any, _properties: Any
    ) -> None:
        waiter = self._waiting.get(packet)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _on_subscribe(
        self,
        _client: paho.Client,
        _data: Any,
        packet: int,
        codes: Sequence[ReasonCode],
        _properties: Any,
    ) -> None:
        waiter = self._waiting.get(packet)
        if waiter is None or waiter.done():
            return
        if any(code.is_failure for code in codes):
            waiter.set_exception(LinkError("the broker refuses a subscription: check its ACL"))
        else:
            waiter.set_result(None)

    def _on_socket_close(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        self._detach(sock)

    def _on_socket_full(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        self._loop.add_writer(sock.fileno(), self._writable)

    def _on_socket_empty(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())


def _is_done(future: asyncio.Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _acknowledge_at_once(sock: Any) -> None:
    # A broker that leaves Nagle's algorithm on (mosquitto's default) waits for our ACK. Linux falls
    # back to delayed ones by itself, so it is asked each time.
    if _QUICKACK is not None and isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def _has_more(sock: Any) -> bool:
    # TLS may hold decoded bytes that no readiness of the socket will announce.
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:160]
