"""Following processes over a WebSocket: `GET /pubsub`.

    subscriber = Subscriber("https://colony.example", identity)
    async with subscriber.subscribe_process(process_id) as events:
        async for process in events:
            print(process.state)
    print(events.ended)

Entering the block connects; from then on nothing is missed. The iteration ends when the server has
no more to tell, `ended` says why. Where it ends for another reason it raises: `ServerError` for
what the server refuses, `StreamEndedError` when the connection is lost, the server stops or drops
who reads too slowly. To connect again is up to the caller: what was missed is in the lists.

With a pinned server every event is checked: it is signed for this order, and numbered without a
gap. What is not ends the iteration as a lost connection does; so does the server's goodbye, which
nobody signs, unless the process that is followed was seen to end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from types import TracebackType
from typing import Final, NamedTuple, Self

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from colonist_client.failure import ServerError
from colonist_client.http import CONNECT_S, check_url, reason
from colonist_client.sealer import Pin, Request, Sealer
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.envelope import Failure
from colonist_protocol.errors import ConflictError, EpochStaleError, MalformedError
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import Process
from colonist_protocol.subscription import (
    ANY_STATE,
    MAX_TIMEOUT_S,
    SubscribeProcess,
    SubscribeProcesses,
)

HEARTBEAT_S: Final = 30.0
MAX_ANEW: Final = 4
_SPENT: Final = (EpochStaleError.code, ConflictError.code)


class Ended(NamedTuple):
    """The server's close frame; code 1006 where there was none."""

    code: int
    reason: str


class StreamEndedError(UnreachableError):
    """No more events will come, though more may happen. `ended` has the server's reason."""

    code = "stream_ended"

    def __init__(self, ended: Ended) -> None:
        super().__init__(f"the events ended: {ended.reason or 'no reason given'} ({ended.code})")
        self.ended = ended


class Subscription:
    """Events of one order, each a process as it was then. To be entered once."""

    def __init__(
        self, url: str, request: Request, sealer: Sealer | None, tls: ssl.SSLContext | None
    ) -> None:
        """`sealer` checks what comes, where the order is sealed."""
        self._url = url
        self._request = request
        self._sealer = sealer
        self._index = 0
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._early: deque[aiohttp.WSMessage] = deque()
        self.ended: Ended | None = None

    async def __aenter__(self) -> Self:
        """Connect, and return when the subscription stands. Raises `UnreachableError`."""
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._open(self._session)
        except TimeoutError:
            await self.aclose()
            raise NotSentError(f"{self._url}: no connection within {CONNECT_S:g} s") from None
        except aiohttp.WSServerHandshakeError as error:
            await self.aclose()
            raise NotSentError(f"{self._url}: no WebSocket there (HTTP {error.status})") from None
        except aiohttp.ClientError as error:
            await self.aclose()
            raise NotSentError(f"{self._url}: {reason(error)}") from None
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Process:
        """The next event. Raises `ServerError`, `StreamEndedError`."""
        if self.ended is not None:
            self._end(self.ended)
        message = self._early.popleft() if self._early else await self._receive()
        if message.type is not WSMsgType.TEXT:
            self._end(_ended(message))
        process = _process(self._checked(message.data.encode()))
        if process.is_final and isinstance(self._request.message, SubscribeProcess):
            self.ended = Ended(WSCloseCode.OK, "the process has ended")
        return process

    async def aclose(self) -> None:
        """Let go of the connection. Idempotent."""
        if self._socket is not None:
            await self._socket.close()
        if self._session is not None:
            await self._session.close()

    async def _open(self, session: aiohttp.ClientSession) -> None:
        """Order; once more where the seal was not of now, or seen at the server before."""
        self._socket = await session.ws_connect(
            f"{self._url}/pubsub",
            autoping=False,
            heartbeat=HEARTBEAT_S,
            max_msg_size=0,
            ssl=self._tls if self._tls is not None else True,
        )
        await self._order(self._socket)
        for _ in range(MAX_ANEW):
            if not self._is_spent():
                break
            self._early.clear()
            await self._order(self._socket)

    async def _order(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """A ping is answered after what came before it: then the subscription stands."""
        await socket.send_str(self._request.body.decode())
        await socket.ping()
        while (message := await socket.receive()).type is not WSMsgType.PONG:
            if message.type is not WSMsgType.PING:
                self._early.append(message)
            if message.type not in (WSMsgType.PING, WSMsgType.TEXT):
                break

    async def _receive(self) -> aiohttp.WSMessage:
        if self._socket is None:
            raise NotSentError("the subscription was not entered")
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return message

    def _is_spent(self) -> bool:
        """Whether the order was refused for its seal: not of now, or taken once. Seal it anew."""
        if self._sealer is None or not self._early or self._early[0].type is not WSMsgType.TEXT:
            return False
        reply = self._sealer.opened(self._request, self._early[0].data.encode()).reply
        if isinstance(reply, bytes) or reply.code not in _SPENT:
            return False
        self._sealer.seal_anew(self._request)
        return True

    def _checked(self, frame: bytes) -> bytes | Failure:
        """What a frame says. Raises `UnreachableError` for one that nobody need believe."""
        if self._sealer is not None:
            reply = self._sealer.opened(self._request, frame, index=self._index).reply
            self._index += 1
            return reply
        try:
            return envelope.parse_reply(frame)
        except MalformedError as error:
            raise _unreadable(error) from None

    def _end(self, ended: Ended) -> None:
        is_believed = self._sealer is None or self.ended is not None
        self.ended = ended
        if ended.code == WSCloseCode.OK and is_believed:
            raise StopAsyncIteration
        raise StreamEndedError(ended)


class Subscriber:
    """Follows processes of one server with one key; a connection for each subscription."""

    def __init__(
        self,
        url: str,
        identity: Identity,
        *,
        tls: ssl.SSLContext | None = None,
        pin: Pin | None = None,
    ) -> None:
        """`url` is `http[s]://host[:port]`; with a `pin` all is sealed.

        Raises `InvalidValueError`.
        """
        self._url = check_url(url)
        self._identity = identity
        self._tls = tls
        self._sealer = Sealer(pin, identity, _now) if pin is not None else None

    def subscribe_process(
        self, process_id: str, *, state: int = ANY_STATE, timeout_s: int = MAX_TIMEOUT_S
    ) -> Subscription:
        """Each time a process enters a state, and its end; as it is now if it is in that state."""
        return self._subscription(
            SubscribeProcess(processid=process_id, state=state, timeout=timeout_s)
        )

    def subscribe_processes(
        self,
        colony: str,
        *,
        state: int = ANY_STATE,
        executor_type: str = "",
        timeout_s: int = MAX_TIMEOUT_S,
    ) -> Subscription:
        """Every process of a colony that enters a state from now on."""
        return self._subscription(
            SubscribeProcesses(
                colonyname=colony, state=state, executortype=executor_type, timeout=timeout_s
            )
        )

    def _subscription(self, message: Message) -> Subscription:
        if self._sealer is None:
            request = Request(message, envelope.pack_request(message, self._identity))
        else:
            request = self._sealer.seal(message)
        return Subscription(self._url, request, self._sealer, self._tls)


def _ended(message: aiohttp.WSMessage) -> Ended:
    if message.type is WSMsgType.CLOSE:
        return Ended(message.data or WSCloseCode.OK, message.extra or "")
    return Ended(WSCloseCode.ABNORMAL_CLOSURE, "the connection was lost")


def _process(reply: bytes | Failure) -> Process:
    if isinstance(reply, Failure):
        raise ServerError(reply)
    try:
        return codec.decode(reply, Process, "event")
    except MalformedError as error:
        raise _unreadable(error) from None


def _unreadable(error: MalformedError) -> UnreachableError:
    return UnreachableError(f"not a Colonist server: its event cannot be read ({error})")


def _now() -> float:
    return asyncio.get_running_loop().time()
