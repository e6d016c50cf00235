"""`GET /pubsub`: subscriptions on a WebSocket (COLONIES-RPC section 1.8).

Each text frame of a client is the signed envelope of `POST /api`; each frame of the server is a
reply, an event or an error. Any origin may connect: what counts is the signature, and there are no
cookies that a browser could add to it. A connection ends by a close frame that says why.

Every connection has a bounded outbox (`outbox.py`), and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import WSMsgType, web

from colonist_protocol.envelope import pack_failure
from colonist_protocol.errors import BusyError, InvalidMessageError
from colonist_protocol.subscription import MAX_FRAME_BYTES
from colonist_server.http.farewells import FAREWELLS, NO_ORDER, REFUSED, TOO_SLOW, Farewell
from colonist_server.http.outbox import Outbox, Shelf
from colonist_server.http.visitors import MAX_REFUSALS, Visitor
from colonist_server.repo.topics import Ending, Subscription
from colonist_server.rpc.dispatch import Dispatch, Refusal
from colonist_server.rpc.sealed_sink import SealedSink

MAX_CONNECTIONS: Final = 20_000
MAX_CONNECTIONS_OF_CALLER: Final = 4_096
"""As many as subscriptions: all waiting SDK calls of a machine may share one key."""
MAX_SUBSCRIPTIONS: Final = 64
FIRST_FRAME_S: Final = 30.0
HEARTBEAT_S: Final = 30.0
LINGER_S: Final = 1.0
"""How long a connection stays open for another order after its last subscription."""
GRACE_S: Final = 5.0
"""How long whoever is told goodbye may take to read it."""


Judge = Callable[[bytes, Visitor], Refusal | None]
"""The refusal of a frame whose sender is not to be listened to; else None."""


class PubSub:
    """All WebSocket connections."""

    __slots__ = ("_connections", "_dispatch", "_of_caller", "_orderless", "judge", "shelf")

    def __init__(self, dispatch: Dispatch, judge: Judge) -> None:
        self._dispatch = dispatch
        self.judge = judge
        self._connections: set[Connection] = set()
        self._orderless: dict[Connection, None] = {}
        self._of_caller: dict[str, int] = {}
        self.shelf = Shelf()
        dispatch.rooms.subscriptions.at_close(self.close)

    async def handle(self, request: web.BaseRequest, visitor: Visitor) -> web.StreamResponse:
        """Serve one connection to its end."""
        socket = web.WebSocketResponse(
            timeout=GRACE_S,
            heartbeat=HEARTBEAT_S,
            compress=False,
            max_msg_size=MAX_FRAME_BYTES,
            writer_limit=0,
        )
        if not socket.can_prepare(request):
            text = "426: Upgrade Required: this is a WebSocket"
            return web.Response(status=426, text=text, headers={"Upgrade": "websocket"})
        if not self._has_room():
            return web.Response(status=503, text="503: Service Unavailable: no room")
        await socket.prepare(request)
        if request.transport is None:
            return socket
        connection = Connection(self, self._dispatch, socket, request.transport, visitor)
        self._connections.add(connection)
        self._orderless[connection] = None
        if self._dispatch.rooms.subscriptions.is_closing:
            self.close()
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            self._orderless.pop(connection, None)
            connection.leave()
        return socket

    def _has_room(self) -> bool:
        """Whether one more may come: who has waited longest without an order makes room."""
        if self._dispatch.rooms.subscriptions.is_closing:
            return False
        if len(self._connections) >= MAX_CONNECTIONS and self._orderless:
            oldest = next(iter(self._orderless))
            del self._orderless[oldest]
            self._connections.discard(oldest)
            oldest.cut()
        return len(self._connections) < MAX_CONNECTIONS

    def ordered(self, connection: Connection) -> None:
        """A subscription stands: it keeps its place."""
        self._orderless.pop(connection, None)

    def admit(self, who: str) -> None:
        """Count one more connection of a caller. Raises `BusyError`."""
        count = self._of_caller.get(who, 0)
        if count >= MAX_CONNECTIONS_OF_CALLER:
            raise BusyError(f"more than {MAX_CONNECTIONS_OF_CALLER} connections of one caller")
        self._of_caller[who] = count + 1

    def dismiss(self, who: str) -> None:
        """Count one less."""
        self._of_caller[who] -= 1
        if not self._of_caller[who]:
            del self._of_caller[who]

    def close(self) -> None:
        """The server stops."""
        for connection in list(self._connections):
            connection.finish(FAREWELLS[Ending.CLOSING])


class Connection:
    """One client and its subscriptions."""

    __slots__ = (
        "_callers",
        "_closer",
        "_dispatch",
        "_lingering",
        "_outbox",
        "_pubsub",
        "_socket",
        "_subscriptions",
        "_transport",
        "_visitor",
    )

    def __init__(
        self,
        pubsub: PubSub,
        dispatch: Dispatch,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        visitor: Visitor,
    ) -> None:
        self._pubsub = pubsub
        self._dispatch = dispatch
        self._socket = socket
        self._transport = transport
        self._visitor = visitor
        self._subscriptions: set[Subscription] = set()
        self._callers: set[str] = set()
        self._outbox = Outbox(pubsub.shelf, transport, self._send, self._lose)
        self._closer: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None

    # -- what comes in

    async def serve(self) -> None:
        """Take orders until the connection ends."""
        try:
            async with asyncio.timeout(FIRST_FRAME_S):
                goes_on = await self._take()
        except TimeoutError:
            self.finish(NO_ORDER)
            goes_on = False
        while goes_on:
            goes_on = await self._take()
        if self._closer is not None:
            await self._closer

    async def _take(self) -> bool:
        """One message; False when there will be no more."""
        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT:
            await self._subscribe(message.data.encode())
            return True
        if message.type is WSMsgType.BINARY:
            error = InvalidMessageError("only text frames are understood")
            self._refuse(Refusal(pack_failure(error), is_fatal=True))
            return True
        return False

    async def _subscribe(self, body: bytes) -> None:
        if self._closer is not None:
            return
        refused = self._pubsub.judge(body, self._visitor)
        opened = refused or await self._dispatch.subscribe(body, self, self._admit)
        if isinstance(opened, Refusal):
            self._visitor.refusals += not self._visitor.is_proven
            self._refuse(opened)
            return
        self._visitor.is_proven = True
        self._pubsub.ordered(self)
        if opened.is_over:  # told already
            return
        self._subscriptions.add(opened)
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _admit(self, who: str) -> None:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise BusyError(f"more than {MAX_SUBSCRIPTIONS} subscriptions on one connection")
        if who not in self._callers:
            self._pubsub.admit(who)
            self._callers.add(who)

    def _refuse(self, refusal: Refusal) -> None:
        self.deliver(refusal.body)
        is_enough = self._visitor.refusals >= MAX_REFUSALS and not self._subscriptions
        if refusal.is_fatal or is_enough:
            self.finish(REFUSED)
        elif not self._subscriptions:
            self._linger(REFUSED, is_anew=False)

    # -- what goes out

    def deliver(self, frame: bytes) -> None:
        """Send a reply; never waits. Too many unread ones, and the connection is dropped."""
        if self._closer is None:
            self._outbox.put(frame)

    def over(self, subscription: Subscription, ending: Ending) -> None:
        """A subscription has ended; with the last one the connection ends."""
        self._subscriptions.discard(subscription)
        farewell = FAREWELLS[ending]
        if farewell.error is not None and isinstance(subscription.sink, SealedSink):
            subscription.sink.refuse(farewell.error)
            farewell = farewell._replace(error=None)
        if self._subscriptions:
            if farewell.error is not None:
                self.deliver(pack_failure(farewell.error))
        elif ending is Ending.DONE:
            self._linger(farewell, is_anew=True)
        else:
            self.finish(farewell)

    def finish(self, farewell: Farewell) -> None:
        """Say goodbye, after what is on its way, and end. The first goodbye counts."""
        if self._closer is None:
            self._closer = asyncio.create_task(self._close(farewell))
            self._forget()

    def cut(self) -> None:
        """Make room, without a goodbye that nobody may read."""
        self._transport.abort()

    def leave(self) -> None:
        """The connection is gone."""
        self._forget()
        self._outbox.stop()
        if self._closer is not None:
            self._closer.cancel()
        for who in self._callers:
            self._pubsub.dismiss(who)
        self._callers.clear()

    def _forget(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        for subscription in self._subscriptions:
            self._dispatch.rooms.subscriptions.cancel(subscription)
        self._subscriptions.clear()

    def _linger(self, farewell: Farewell, *, is_anew: bool) -> None:
        """Stay open for another order. One that is refused wins no time: strangers send many."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LINGER_S
        if self._lingering is not None:
            until = until if is_anew else self._lingering.when()
            self._lingering.cancel()
        self._lingering = loop.call_at(until, self.finish, farewell)

    def _lose(self) -> None:
        """Events are lost to a client that is too slow: no other goodbye may hide that."""
        if self._closer is None:
            self.finish(TOO_SLOW)
        else:
            self._transport.abort()

    async def _send(self, frame: bytes) -> None:
        await self._socket.send_frame(frame, WSMsgType.TEXT)

    async def _close(self, farewell: Farewell) -> None:
        try:
            async with asyncio.timeout(GRACE_S):
                if farewell is not TOO_SLOW:
                    await self._outbox.drained()
                if farewell.error is not None:
                    await self._send(pack_failure(farewell.error))
                await self._socket.close(code=farewell.code, message=farewell.reason.encode())
        except (ConnectionError, TimeoutError):
            self._transport.abort()
