"""The ways in: `POST /api`, `GET /pubsub`, the health routes and `GET /metrics`.

On aiohttp's low-level server: an application's routing, middlewares and signals would cost every
request a tenth of its time, and there are few routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage

from colonist_protocol.envelope import pack_failure
from colonist_protocol.errors import ColonistError, MalformedError, TooLargeError
from colonist_server.http import bodies, metrics
from colonist_server.http.metrics import Figures
from colonist_server.http.pubsub import PubSub
from colonist_server.rpc.dispatch import Answer, Dispatch
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

    @property
    def keep_alive(self) -> bool:
        """As the request wants it."""
        return self._request.keep_alive

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
        status, body = self._answer.status, self._answer.body
        ending = b"" if self.keep_alive else b"Connection: close\r\n"
        transport.write(_HEAD[status] % (len(body), ending) + body)

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
        "_routes",
        "_turns",
    )

    def __init__(self, dispatch: Dispatch, check: Check, figures: Figures, note: Note) -> None:
        self._dispatch = dispatch
        self._check = check
        self._figures = figures
        self._note = note
        self._large = bodies.LargeBodies()
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)
        self._routes: dict[tuple[str, str], Way] = {
            ("POST", API): self._api,
            ("OPTIONS", API): self._preflight,
            ("GET", PUBSUB): PubSub(dispatch).handle,
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
        try:
            if bodies.is_large(request.headers):
                answer = await self._answer_large(request)
            else:
                answer = await self._dispatch.answer(await bodies.read(request))
        except ColonistError as error:
            return _refusal(request, error)
        except web.HTTPRequestEntityTooLarge:
            limit = bodies.limit(request.headers)
            return _refusal(request, TooLargeError(f"body is over {limit} bytes"))
        except web.RequestPayloadError:
            return _refusal(request, MalformedError("the body is not encoded as its headers say"))
        response = _response(request, answer)
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

    async def _answer_large(self, request: web.BaseRequest) -> Answer:
        """Read it first: whoever only announces a large body takes no turn from others."""
        async with self._large.read(request) as body, self._turns:
            return await self._dispatch.answer(body)

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
        text = metrics.render(self._figures())
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
    return web.Server(
        Ways(dispatch, check, figures, note).handle,
        request_factory=_request,
        handler_cancellation=True,
        access_log=None,
        logger=_MALFORMED,
    )


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


def _refusal(request: web.BaseRequest, error: ColonistError) -> web.StreamResponse:
    return _response(request, Answer(error.status, pack_failure(error)))


def _response(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if Packed.suits(request):
        return Packed(request, answer)
    response = web.Response(status=answer.status, body=answer.body, headers=_JSON)
    if "Origin" in request.headers:
        response.headers["Access-Control-Allow-Origin"] = "*"
    return response
