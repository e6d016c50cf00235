"""Envelopes over MQTT: the device's side of docs/reference/mqtt.md.

    async with running(MqttTransport("mqtts://broker:8883", identity.id)) as transport:
        client = Client(transport, identity)

Rules. Client id and user name are the device's id, the session persists. After every connect the
device announces itself, subscribes, and sends the same bytes of each open request again, as it does
when a bridge comes back. A plain request that must not take effect twice is sent once: if its reply
does not come, the outcome is unknown and `exchange` says so; it is sent again only where the bridge
says that it did not forward it. Hints and gateway states delay or hasten; they end nothing, and
whatever they say, an open request is sent at least once an hour. A sealed request may be sent as
often as it takes. What is said to be its reply is checked, cheapest first: size, retain flag, `to`,
`re`, `index`, and with a pinned server the signature; all else is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from colonist_agent.gateways import Gateways
from colonist_agent.open_requests import OpenRequest, OpenRequests
from colonist_agent.rep import Hint, Rep, SealedReply, read_rep, request_tag
from colonist_client.mqtt_connection import (
    BrokerAddress,
    Connection,
    Incoming,
    LinkError,
    Retained,
)
from colonist_client.mqtt_link import Link
from colonist_client.retry import Backoff, Uniform
from colonist_client.sealer import Pin
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.digests import REQUEST, tagged_digest
from colonist_protocol.envelope import open_sealed_reply, parse_request
from colonist_protocol.errors import ColonistError, InvalidValueError, TooLargeError
from colonist_protocol.identity import is_id, parse_signature
from colonist_protocol.topics import DEFAULT_PREFIX, Topics

AGAIN_S: Final = 3600.0
NOT_FORWARDED: Final = frozenset({"busy", "try_later"})
PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class _Name(NamedTuple):
    """What a request is called by those who answer it."""

    kind: str
    tag: str
    re: str
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What the device tells of itself on `state`. `queue`: results that wait to be delivered."""

    colony: str = ""
    name: str = ""
    version: str = ""
    heap: Callable[[], int] = int
    queue: Callable[[], int] = int


class MqttTransport:
    """One device at one broker. `run` keeps the connection and must be running."""

    way: str = "mqtt"

    def __init__(
        self,
        url: str,
        identity_id: str,
        *,
        password: str = "",
        birth: Birth | None = None,
        prefix: str = DEFAULT_PREFIX,
        tls: ssl.SSLContext | None = None,
        boot: str = "",
        uniform: Uniform | None = None,
        reconnect_base_s: float = 0.5,
        reconnect_cap_s: float = 60.0,
        spread_s: float = 2.0,
        max_request_bytes: int = 1_500_000,
        max_reply_bytes: int = 4_000_000,
        pin: Pin | None = None,
        on_epoch: Callable[[str], None] | None = None,
    ) -> None:
        """`url`: `mqtt[s]://host[:port]`. `boot`: random per boot, made here if not given.

        `pin`: the server whose sealed replies are taken; without it that is up to the caller.
        `on_epoch` is told of tokens that bridges announce, which nobody vouches for.

        `spread_s`: after a bridge comes back, requests go out again spread over this time. Raises
        `InvalidValueError`.
        """
        if not is_id(identity_id):
            raise InvalidValueError("an MQTT transport needs the id of the device's key")
        self._id = identity_id
        self._birth = birth or Birth()
        self._topics = Topics(prefix)
        self._boot = boot or secrets.token_hex(8)
        self._uniform = uniform or secrets.SystemRandom().uniform
        self._spread_s = spread_s
        self._max_request_bytes = max_request_bytes
        self._max_reply_bytes = max_reply_bytes
        self._requests = OpenRequests()
        self._gateways = Gateways()
        self._deadlines: set[asyncio.Timeout] = set()
        self._runner: asyncio.Task[None] | None = None
        self._is_closed = False
        self._pin = pin
        self.on_epoch = on_epoch
        self.counts: Counter[str] = Counter()
        backoff = Backoff(uniform=self._uniform, base_s=reconnect_base_s, cap_s=reconnect_cap_s)
        self._link = Link(_address(url, identity_id, password, tls), self, backoff)

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there as far as we know."""
        return self._link.is_up

    async def run(self) -> None:
        """Keep the connection; ends on `close` or when cancelled."""
        if self._is_closed:
            return
        async with asyncio.TaskGroup() as group:
            self._runner = group.create_task(self._link.run())

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        """Send one signed request and return its reply's body, within `wait_s`.

        Raises `NotSentError` where it never left, else `UnreachableError`; `TooLargeError` and
        the codec's errors for what is no signed request.
        """
        if self._is_closed:
            raise NotSentError("mqtt: the connection was closed by this program")
        name = self._checked(body)
        request: OpenRequest | None = None
        try:
            async with asyncio.timeout(wait_s) as deadline:
                self._deadlines.add(deadline)
                try:
                    opening = self._requests.opened(
                        body, kind=name.kind, tag=name.tag, re=name.re, index=name.turn
                    )
                    async with opening as request:
                        return await self._carried(request)
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError:
            raise self._ended(request, wait_s) from None

    async def close(self) -> None:
        """Say goodbye to the broker; open exchanges end with `UnreachableError`. Idempotent."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for deadline in tuple(self._deadlines):
            deadline.reschedule(now)
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({self._runner})

    def will(self, conn: int) -> Retained:
        """`lost` of this connection."""
        payload = msgspec.json.encode({"boot": self._boot, "conn": conn})
        return Retained(topic=self._topics.device(self._id, "lost"), payload=payload)

    async def connected(self, connection: Connection, conn: int) -> None:
        """Announce, subscribe, and send what is open again."""
        state = self._topics.device(self._id, "state")
        await connection.publish(state, self._born(conn), retain=True)
        await connection.subscribe(
            [self._topics.device(self._id, "rep"), f"{self._topics.prefix}/gw/+/#"]
        )
        self._send_again(0.0)

    def disconnected(self) -> None:
        """Nothing to do: open requests wait for the next connection."""

    def received(self, connection: Connection, message: Incoming) -> None:
        """Take one message; all are acknowledged, since nothing better would come of it later."""
        connection.acknowledge(message)
        if message.topic == self._topics.device(self._id, "rep"):
            self._rep(message)
            return
        if self._gateways.has_come_back(message.topic, message.payload, message.is_retained):
            self._send_again(self._spread_s)
        if self.on_epoch is not None and self._gateways.epoch:
            self.on_epoch(self._gateways.epoch)

    async def _carried(self, request: OpenRequest) -> bytes:
        loop = asyncio.get_running_loop()
        while request.reply is None:
            connection = await self._link.connection()
            request.wake.clear()
            if request.is_due and loop.time() >= request.not_before:
                self._send(connection, request)
            again_at = request.not_before if request.is_due else loop.time() + AGAIN_S
            await _until(request.wake, max(0.0, again_at - loop.time()))
            if not request.wake.is_set() and request.is_repeatable:
                request.is_due = True
        return request.reply

    def _send(self, connection: Connection, request: OpenRequest) -> None:
        """Hand it to the connection. Its loss makes `connected` send it again, if it may be."""
        try:
            connection.send(self._topics.device(self._id, "req"), request.body)
        except LinkError:
            return
        request.is_due = False
        request.is_sent = True

    def _send_again(self, spread_s: float) -> None:
        now = asyncio.get_running_loop().time()
        for request in self._requests.all():
            if request.is_repeatable or not request.is_sent:
                request.send_at(now + self._uniform(0.0, spread_s))

    def _rep(self, message: Incoming) -> None:
        if len(message.payload) > self._max_reply_bytes:
            self.counts["oversize"] += 1
        elif message.is_retained:
            self.counts["retained"] += 1
        else:
            self._sort(read_rep(message.payload))

    def _sort(self, rep: Rep | None) -> None:
        if rep is None:
            self.counts["no_reply"] += 1
            return
        if isinstance(rep, SealedReply):
            self._sealed(rep)
            return
        request = self._requests.named(rep.req)
        if request is None or request.reply is not None:
            self.counts["unknown_req"] += 1
        elif isinstance(rep, Hint):
            self._hinted(request, rep)
        elif request.re:
            self.counts["unsealed"] += 1
            request.said = rep.code
        elif self._requests.is_second_copy(request, rep.body):
            self.counts["second_copy"] += 1
            request.send_at(asyncio.get_running_loop().time())  # so that the bridge knows
        else:
            request.answer(rep.body)

    def _sealed(self, rep: SealedReply) -> None:
        request = self._requests.sealed(rep.re, rep.index) if rep.to == self._id else None
        if request is None or request.reply is not None:
            self.counts["unknown_req"] += 1
        elif self._pin is not None and not self._is_genuine(self._pin, rep):
            self.counts["not_genuine"] += 1
        else:
            request.answer(rep.body)

    def _is_genuine(self, pin: Pin, rep: SealedReply) -> bool:
        try:
            open_sealed_reply(rep.body, server=pin.id, caller=self._id, re=rep.re, index=rep.index)
        except ColonistError:
            return False
        return True

    def _hinted(self, request: OpenRequest, hint: Hint) -> None:
        self.counts["hints"] += 1
        if request.is_repeatable or hint.code in NOT_FORWARDED:
            now = asyncio.get_running_loop().time()
            request.postpone(now + hint.delay_s, hint.code)
        else:
            request.last_hint = hint.code

    def _checked(self, body: bytes) -> _Name:
        if len(body) > self._max_request_bytes:
            raise TooLargeError(f"{len(body)} bytes are over {self._max_request_bytes}")
        envelope = parse_request(body)
        parse_signature(envelope.signature)  # over MQTT every request is signed
        re = ""
        if envelope.seal:
            re = tagged_digest(REQUEST, envelope.payload, envelope.seal).hex()
        return _Name(envelope.payloadtype, request_tag(envelope.signature), re, envelope.index)

    def _ended(self, request: OpenRequest | None, wait_s: float) -> UnreachableError:
        why = f"no reply within {wait_s:g} s"
        if self._is_closed:
            why = "the connection was closed by this program"
        if request is None or not request.is_sent:
            where = "waiting for the broker" if not self.is_connected else "waiting for its turn"
            return NotSentError(f"mqtt: {why}; the request was still {where}")
        hint = f"; the bridge says {request.last_hint}" if request.last_hint else ""
        hint += f"; unverified, something answered: {request.said}" if request.said else ""
        unknown = "" if request.is_repeatable else "; the outcome is unknown"
        error = UnreachableError(f"mqtt: {why}{hint}{unknown}")
        error.said_code = request.said
        return error

    def _born(self, conn: int) -> bytes:
        birth = self._birth
        return msgspec.json.encode(
            {
                "boot": self._boot,
                "conn": conn,
                "colony": birth.colony,
                "name": birth.name,
                "version": birth.version,
                "heap": birth.heap(),
                "queue": birth.queue(),
            }
        )


@contextlib.asynccontextmanager
async def running(transport: MqttTransport) -> AsyncGenerator[MqttTransport]:
    """Run a transport for the length of the block, and close it."""
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run())
        await asyncio.sleep(0)  # so that a close right away finds what it has to end
        try:
            yield transport
        finally:
            await transport.close()


async def _until(event: asyncio.Event, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        pass


def _address(
    url: str, identity_id: str, password: str, tls: ssl.SSLContext | None
) -> BrokerAddress:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidValueError("the broker's URL cannot be read") from None
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise InvalidValueError("the broker's URL is not mqtt[s]://host[:port]")
    if parts.username or parts.password:
        raise InvalidValueError("the broker's URL holds a password: give it apart")
    context = (tls or ssl.create_default_context()) if parts.scheme == "mqtts" else None
    return BrokerAddress(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        client_id=identity_id,
        username=identity_id,
        password=password,
        tls=context,
    )
