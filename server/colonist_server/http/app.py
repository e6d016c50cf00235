"""The ways in: `POST /api` and the health routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from colonist_protocol.envelope import MAX_BODY_BYTES, pack_failure
from colonist_protocol.errors import ColonistError, MalformedError, TooLargeError
from colonist_server.rpc.dispatch import Answer, Dispatch

_CONTENT_TYPE: Final = "application/json"
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Content-Type",
    "Access-Control-Max-Age": "43200",
}

Check = Callable[[], str]
"""Why the server is not ready; "" when it is."""


class Api:
    """`POST /api`: COLONIES-RPC section 1.1."""

    __slots__ = ("_dispatch",)

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; an assignment that nobody can receive any more is handed back."""
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refusal(request, TooLargeError(f"body is over {MAX_BODY_BYTES} bytes"))
        except web.RequestPayloadError:
            return _refusal(request, MalformedError("the body is not encoded as its headers say"))
        answer = await self._dispatch.answer(body)
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


def build(dispatch: Dispatch, check: Check) -> web.Application:
    """The application."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)

    async def alive(request: web.Request) -> web.Response:
        del request
        return web.Response(text="")

    async def ready(request: web.Request) -> web.Response:
        del request
        reason = check()
        return web.Response(status=503 if reason else 200, text=reason or "ok")

    async def preflight(request: web.Request) -> web.Response:
        del request
        return web.Response(status=204, headers=_CORS)

    app.router.add_post("/api", Api(dispatch).handle)
    app.router.add_options("/api", preflight)
    app.router.add_get("/health", alive)
    app.router.add_get("/livez", alive)
    app.router.add_get("/readyz", ready)
    return app


def _refusal(request: web.Request, error: ColonistError) -> web.Response:
    return _response(request, Answer(error.status, pack_failure(error)))


def _response(request: web.Request, answer: Answer) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body, content_type=_CONTENT_TYPE)
    if "Origin" in request.headers:
        response.headers["Access-Control-Allow-Origin"] = "*"
    return response
