"""A request that was opened, and the row of the table that it is answered by."""

from __future__ import annotations

from typing import Any

import msgspec

from colonist_core.process import Cause
from colonist_protocol import messages
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import NotSupportedError, UnknownMessageError, WrongDoorError
from colonist_protocol.message import Message
from colonist_protocol.seal import RequestSeal
from colonist_server.rpc.table import PUBSUB, ROUTES, Route


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request that was opened: what is asked for, by whom, under which seal."""

    route: Route[Any]
    cause: Cause
    payload: bytes
    message: Message
    seal: RequestSeal | None = None


def route_of(request: Envelope) -> Route[Any]:
    """The row of a message. Raises `NotSupportedError`, `UnknownMessageError`."""
    route = ROUTES.get(request.payloadtype)
    if route is None:
        if request.payloadtype in messages.UNSUPPORTED:
            raise NotSupportedError(f"{request.payloadtype} is not supported by this server")
        raise UnknownMessageError(f"invalid rpcMsg.PayloadType: {request.payloadtype[:64]}")
    return route


def check_door(route: Route[Any], door: str) -> None:
    """Raise `WrongDoorError` where a message is served at another way in."""
    if route.door == door:
        return
    way = "the WebSocket GET /pubsub" if route.door == PUBSUB else f"POST {route.door}"
    raise WrongDoorError(f"{route.kind.msgtype()} is served on {way} only")
