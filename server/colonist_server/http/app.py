"""The ways in: `POST /api`, `GET /pubsub`, the health routes and `GET /metrics`.

On aiohttp's low-level server: an application's routing, middlewares and signals would cost every
request a tenth of its time, and there are few routes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage

from colonist_protocol.errors import ColonistError, MalformedError, TooLargeError
from colonist_server.http import bodies, metrics
from colonist_server.http.doorway import Doors
from colonist_server.http.metrics import Figures
from colonist_server.http.porter import Porter
from colonist_server.http.pubsub import PubSub
from colonist_server.http.visitors import MAX_REFUSALS, Visitor
from colonist_server.rpc.dispatch import Answer, Dispatch, refusal
from colonist_server.rpc.gate import Gate
from colonist_server.rpc.table import API, PUBSUB

LARGE_AT_ONCE: Final = 4
"""Large requests that are answered at once; what was read of others waits for its turn."""

# What is no HTTP gets its 400 from aiohttp; a traceback for each would let strangers fill the log.
_MALFORMED: Final = logging.getLogger("colonist_server.malformed")
_MALFORMED.setLevel(logging.CRITICAL)

_JSON: Final = {"Content-Type": "application/json"}
_HEAD: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n"
    "Content-Type: application/json\r\nContent-Length: %d\r\n%b\r\n".encode()
    for status in HTTPStatus
}
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Content-Type",
    "Access-Control-Max-Age": "43200",
}

Check = Callable[[], str]
"""Why the server is not ready; "" when it is."""

Note = Callable[[], str]
"""What else there is to say of a server that is ready, for a person."""

Way = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def pack(answer: Answer, *, is_last: bool = False) -> bytes:
    """The bytes of a response. `is_last`: the connection closes after it."""
    more = b"Connection: close\r\n" if is_last else b""
    if answer.retry_after_s:
        more += b"Retry-After: %d\r\n" % math.ceil(answer.retry_after_s)
    return _HEAD[answer.status] % (len(answer.body), more) + answer.body


class Packed(web.StreamResponse):
    """A reply that goes out as it is, in one write.

    It spares two thirds of what an ordinary response costs (headers as a map, a writer with its
    compressions and chunks). Only for who has read all that was sent before: nothing here waits
    for a slow reader.
    """

    def __init__(self, request: web.BaseRequest, answer: Answer) -> None:
        super().__init__(status=answer.status)
        self._request = request
        self._answer = answer
        self._is_sent = False
        self._is_last = False

    def force_close(self) -> None:
        """End the connection after this."""
        self._is_last = True

    @property
    def keep_alive(self) -> bool:
        """As the request wants it, unless the connection is to end."""
        return self._request.keep_alive and not self._is_last

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send it, once. Raises `ConnectionResetError` when nobody is there."""
        if self._is_sent:
            return
        self._is_sent = True
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the caller has gone")
        transport.write(pack(self._answer, is_last=not self.keep_alive))

    @staticmethod
    def suits(request: web.BaseRequest) -> bool:
        """Whether nothing else is on its way to this caller, and no header is asked for."""
        transport = request.transport
        return (
            request.version == HttpVersion11
            and "Origin" not in request.headers
            and transport is not None
            and transport.get_write_buffer_size() == 0
        )


class Ways:
    """The routes: each a method and a path, with what answers there."""

    __slots__ = (
        "_check",
        "_dispatch",
        "_figures",
        "_large",
        "_note",
        "_paths",
        "_pubsub",
        "_routes",
        "_turns",
        "door_figures",
        "porter",
        "visitors",
    )

    def __init__(self, dispatch: Dispatch, check: Check, figures: Figures, note: Note) -> None:
        self.visitors: dict[object, Visitor] = {}
        self.door_figures: Figures = dict
        self.porter = Porter(Gate(dispatch, dispatch.limiter.limits))
        self._dispatch = dispatch
        self._check = check
        self._figures = figures
        self._note = note
        self._large = bodies.LargeBodies()
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)
        self._pubsub = PubSub(dispatch, self.porter.judge_order)
        self._routes: dict[tuple[str, str], Way] = {
            ("POST", API): self._api,
            ("OPTIONS", API): self._preflight,
            ("GET", PUBSUB): self._follow,
        }
        for method in ("GET", "HEAD"):
            self._routes[method, "/health"] = self._alive
            self._routes[method, "/livez"] = self._alive
            self._routes[method, "/readyz"] = self._ready
            self._routes[method, "/metrics"] = self._metrics
            self._routes[method, "/v1/epoch"] = self._epoch
        self._paths = {path for _, path in self._routes}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        # The path as it was sent: parsing the URL costs as much as finding the route.
        way = self._routes.get((request.method, request.raw_path))
        if way is None:
            way = self._routes.get((request.method, request.path))
        if way is not None:
            return await way(request)
        if request.path not in self._paths:
            return web.Response(status=404, text="404: Not Found")
        allowed = sorted(method for method, path in self._routes if path == request.path)
        return web.Response(
            status=405, text="405: Method Not Allowed", headers={"Allow": ",".join(allowed)}
        )

    async def _api(self, request: web.BaseRequest) -> web.StreamResponse:
        """COLONIES-RPC section 1.1. An assignment that nobody can receive is handed back."""
        visitor = self._visitor(request)
        answer = await self._answered(request, visitor)
        response = _response(request, answer)
        if visitor.refusals >= MAX_REFUSALS:
            response.force_close()
        if answer.lost is None:
            return response
        try:
            await response.prepare(request)
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            answer.lost()
            raise
        if request.transport is None or request.transport.is_closing():
            answer.lost()
        return response

    async def _answered(self, request: web.BaseRequest, visitor: Visitor) -> Answer:
        try:
            if bodies.is_large(request.headers):
                return await self._answer_large(request, visitor)
            return await self._answer(await bodies.read(request), visitor)
        except ColonistError as error:
            return refusal(error)
        except web.HTTPRequestEntityTooLarge:
            limit = bodies.limit(request.headers)
            return refusal(TooLargeError(f"body is over {limit} bytes"))
        except web.RequestPayloadError:
            return refusal(MalformedError("the body is not encoded as its headers say"))

    async def _answer(self, body: bytes, visitor: Visitor) -> Answer:
        """Answer it; refuse it at once where nothing speaks for this connection."""
        if visitor.trust:
            visitor.trust -= 1
        else:
            judged = self.porter.judge(body, visitor)
            if judged is not None:
                visitor.refusals += 1
                return judged
        return await self._dispatch.answer(body)

    async def _answer_large(self, request: web.BaseRequest, visitor: Visitor) -> Answer:
        """Read it first: whoever only announces a large body takes no turn from others."""
        async with self._large.read(request) as body, self._turns:
            return await self._answer(body, visitor)

    async def _follow(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._pubsub.handle(request, self._visitor(request))

    def _visitor(self, request: web.BaseRequest) -> Visitor:
        return self.visitors.get(request.protocol) or Visitor("")  # it may have gone

    async def _alive(self, request: web.BaseRequest) -> web.Response:
        del request
        return web.Response(text="")

    async def _ready(self, request: web.BaseRequest) -> web.Response:
        del request
        reason = self._check()
        if reason:
            return web.Response(status=503, text=reason)
        return web.Response(text="\n".join(filter(None, ("ok", self._note()))))

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        del request
        gate = self.porter.gate
        text = metrics.render({**self._figures(), **gate.figures(), **self.door_figures()})
        return web.Response(text=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _epoch(self, request: web.BaseRequest) -> web.Response:
        """The newest token, unsigned: a hint for those who have none yet."""
        del request
        token = self._dispatch.rooms.epochs.token
        return web.Response(body=b'{"epoch":"%b"}' % token.encode(), headers=_JSON)

    async def _preflight(self, request: web.BaseRequest) -> web.Response:
        del request
        return web.Response(status=204, headers=_CORS)


def build(
    dispatch: Dispatch, check: Check, figures: Figures = dict, note: Note = str
) -> web.Server:
    """The server of all ways. An executor whose connection dies leaves its long poll."""
    ways = Ways(dispatch, check, figures, note)

    def refuse(body: bytes, visitor: Visitor) -> bytes | None:
        answer = ways.porter.judge(body, visitor)
        return None if answer is None else pack(answer)

    doors = Doors(
        ways.handle,
        refuse,
        ways.visitors,
        request_factory=_request,
        handler_cancellation=True,
        access_log=None,
        logger=_MALFORMED,
    )
    ways.door_figures = doors.figures
    return doors


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message,
        payload,
        protocol,
        writer,
        task,
        loop,
        client_max_size=bodies.limit(message.headers),
    )


def _response(request: web.BaseRequest, answer: Answer) -> Packed | web.Response:
    if Packed.suits(request):
        return Packed(request, answer)
    response = web.Response(status=answer.status, body=answer.body, headers=_JSON)
    if answer.retry_after_s:
        response.headers["Retry-After"] = str(math.ceil(answer.retry_after_s))
    if "Origin" in request.headers:
        response.headers["Access-Control-Allow-Origin"] = "*"
    return response
