"""From the bytes of a request to the bytes of its reply; the one place that maps errors.

Also the one place that minds how old the view is. Where other nodes write to the same store, what
only reads is answered after the barrier (`repo.freshness`), and what the view refuses is tried once
more after it: nobody is told that there is no such thing because this node has not heard of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, cast

from colonist_core.access import Access, Standing, check_server_owner, check_standing, stranger
from colonist_core.process import Cause
from colonist_protocol import codec, envelope, messages
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import (
    AccessError,
    AssignPausedError,
    BusyError,
    ColonistError,
    ConflictError,
    CorruptRecordError,
    ExistsError,
    InvalidValueError,
    MalformedError,
    NoProcessError,
    NotFoundError,
    NotSupportedError,
    SignatureError,
    UnknownMessageError,
    WrongDoorError,
)
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess
from colonist_server.repo import effects, keys
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.topics import Order, Sink, Subscription
from colonist_server.rpc.rooms import Call, Reply, Rooms
from colonist_server.rpc.table import API, PUBSUB, ROUTES, Route

log = logging.getLogger(__name__)

MAX_POLLS: Final = 20_000
MAX_POLL_CHARS: Final = 1024

_ASSIGN: Final = AssignProcess.msgtype()
_FATAL: Final = (
    MalformedError,
    SignatureError,
    UnknownMessageError,
    NotSupportedError,
    WrongDoorError,
)
_OF_VIEW: Final = (
    AccessError,
    NotFoundError,
    ExistsError,
    ConflictError,
    BusyError,
    NoProcessError,
    AssignPausedError,
)
"""Refusals that rest on what this node knows."""
_OK: Final = 200
_MEMBERSHIP: Final = frozenset((keys.COLONY, keys.EXECUTOR, keys.USER))
"""As long as one of these cannot be read, nobody can be told to be a stranger."""
_ID_BYTES: Final = 28
"""What ids of a process, and of its workflow, begin with."""


CreateTask = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Answer(NamedTuple):
    """A reply as it goes out; `lost` is to be called when it cannot be delivered."""

    status: int
    body: bytes
    lost: Callable[[], None] | None = None


class Refusal(NamedTuple):
    """Why nothing was subscribed. `is_fatal`: whoever sends such things is not listened to."""

    body: bytes
    is_fatal: bool


class _Order(NamedTuple):
    """A request that was opened: what is asked for, by whom."""

    route: Route[Any]
    cause: Cause
    payload: bytes
    message: Message


class InternalError(ColonistError):
    """A fault of the server; the log has it."""


_FAULT: Final = InternalError("internal error of the server")


class Dispatch:
    """Answers requests."""

    __slots__ = ("_create_task", "_polls", "rooms")

    def __init__(self, rooms: Rooms, create_task: CreateTask) -> None:
        self.rooms = rooms
        self._create_task = create_task
        # An executor that polls sends the same bytes again and again (RFC 6979 signatures are
        # deterministic), and the same bytes prove the same caller: 35 us saved for each poll.
        self._polls: dict[tuple[str, str], tuple[Cause, Message, bytes]] = {}

    async def answer(self, body: bytes) -> Answer:
        """Answer one request; never raises but for cancellation."""
        try:
            request = envelope.parse_request(body)
            reply = await self._perform(request)
            payload = codec.encode(reply.value)
            sent = envelope.pack_reply(reply.payloadtype or request.payloadtype, payload)
            return Answer(_OK, sent, reply.lost)
        except ColonistError as error:
            told = self._told(body, error)
            return Answer(told.status, envelope.pack_failure(told))
        except Exception:
            log.exception("internal error")
            return Answer(_FAULT.status, envelope.pack_failure(_FAULT))

    def _told(self, body: bytes, error: ColonistError) -> ColonistError:
        """What is only not found because its record cannot be read is not missing."""
        corrupt = self.rooms.view.corrupt
        if isinstance(error, CorruptRecordError):
            log.error("a record cannot be read: %s; look with `colonist store check`", error)
        if not corrupt or not isinstance(error, (NotFoundError, AccessError)):
            return error
        if isinstance(error, AccessError) and any(key[:2] in _MEMBERSHIP for key in corrupt):
            return CorruptRecordError("who is a member is not known: a record cannot be read")
        payload = envelope.parse_request(body).payload.encode()
        with contextlib.suppress(ValueError):
            text = base64.b64decode(payload)
            if any(
                key[2 : 2 + _ID_BYTES].hex().encode() in text
                for key in corrupt
                if len(key) > _ID_BYTES
            ):
                return CorruptRecordError("what is stored of this cannot be read")
        return error

    async def subscribe(
        self, body: bytes, sink: Sink, admit: Callable[[str], None]
    ) -> Subscription | Refusal:
        """Open what one frame on `/pubsub` orders; never raises but for cancellation.

        `admit` is asked for the id of the caller, and may raise.
        """
        try:
            reply = await self._perform(envelope.parse_request(body), door=PUBSUB)
            order = cast("Order", reply.value)
            admit(order.who)
            return await self.rooms.subscriptions.open(order, sink)
        except ColonistError as error:
            is_fatal = isinstance(error, _FATAL) and not isinstance(error, InvalidValueError)
            return Refusal(envelope.pack_failure(error), is_fatal)
        except Exception:
            log.exception("internal error")
            return Refusal(envelope.pack_failure(_FAULT), is_fatal=True)

    async def _perform(self, request: Envelope, *, door: str = API) -> Reply:
        kind = request.payloadtype
        if kind in messages.UNSIGNED:
            route = ROUTES[kind]
            _check_door(route, door)
            message = envelope.open_message(request, route.kind)
            return await route.handler(self.rooms, Call(Cause(), b""), message)
        if kind == _ASSIGN:
            cause, message, payload = self._open_poll(request)
        elif kind == envelope.LARGE and len(request.payload) > envelope.MAX_PAYLOAD_CHARS:
            cause, message, payload = await self._open_large(request)
        else:
            cause, message, payload = _open(request)
        route = ROUTES[kind]
        _check_door(route, door)
        return await self._carry_out(_Order(route, cause, payload, message))

    async def _carry_out(self, order: _Order) -> Reply:
        """Do it, on a view that is fresh where that makes a difference."""
        freshness = self.rooms.freshness
        if not freshness.is_needed:
            return await self._try(order)
        if not order.route.needs_all:
            effect = effects.begin()
            try:
                return await self._try(order)
            except _OF_VIEW:
                if effect.is_there:
                    raise
        await freshness.fresh()
        return await self._try(order)

    async def _try(self, order: _Order) -> Reply:
        route, cause, payload, message = order
        call = self._admit(route, cause, payload, message)
        work = route.handler(self.rooms, call, message)
        if route.has_steps:
            return await self._carry_through(work)
        return await work

    async def _carry_through(self, work: Coroutine[Any, Any, Reply]) -> Reply:
        """Run to the end even when the caller leaves; its error is the caller's alone."""
        ended: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                reply = await work
            except Exception as error:  # noqa: BLE001 - handed to the caller
                if ended.cancelled():
                    log.warning("nobody was there to be told: %s", error)
                else:
                    ended.set_exception(error)
            else:
                if not ended.cancelled():
                    ended.set_result(reply)

        self._create_task(run())
        return await ended

    def _open_poll(self, request: Envelope) -> tuple[Cause, Message, bytes]:
        key = (request.payload, request.signature)
        opened = self._polls.get(key)
        if opened is None:
            opened = _open(request)
            if len(request.payload) <= MAX_POLL_CHARS:  # whoever signs it may fill this
                if len(self._polls) >= MAX_POLLS:
                    self._polls.clear()
                self._polls[key] = opened
        return opened

    async def _open_large(self, request: Envelope) -> tuple[Cause, Message, bytes]:
        """Check access before the message is read: strict reading of 9 MB takes 0.3 s.

        So whoever has no access to the colony is told that, where a smaller message would first be
        found to be malformed (COLONIES-RPC section 1.5 has that order; it has no such sizes).
        """
        cause = _cause(request)
        route = ROUTES[request.payloadtype]
        outline, payload = envelope.outline(request)
        try:
            self._admit(route, cause, payload, outline)
        except AccessError:
            await self.rooms.freshness.fresh()
            self._admit(route, cause, payload, outline)
        return cause, envelope.open_payload(request, route.kind, payload)[0], payload

    def _admit(self, route: Route[Any], cause: Cause, payload: bytes, message: Message) -> Call:
        """Check the caller's access, once."""
        access = route.access
        if access is Access.SERVER_OWNER:
            check_server_owner(cause.who, self.rooms.owner.id)
            return Call(cause, payload)
        if route.scope is None:
            return Call(cause, payload)
        colony = route.scope.find(self.rooms.view, message)
        if colony is None:
            name = "" if route.scope.by_process else route.scope.of(message)
            raise stranger(access, name[:64])
        member = colony.members.get(cause.who)
        check_standing(access, _standing(colony, member, cause.who, route.scope.by_process))
        if isinstance(member, Executor):
            member.heard_ns = self.rooms.clock.now_ns()
        return Call(cause, payload, colony, member)


def _check_door(route: Route[Any], door: str) -> None:
    if route.door == door:
        return
    way = "the WebSocket GET /pubsub" if route.door == PUBSUB else f"POST {route.door}"
    raise WrongDoorError(f"{route.kind.msgtype()} is served on {way} only")


def _open(request: Envelope) -> tuple[Cause, Message, bytes]:
    cause = _cause(request)
    route = ROUTES.get(request.payloadtype)
    if route is None:
        if request.payloadtype in messages.UNSUPPORTED:
            raise NotSupportedError(f"{request.payloadtype} is not supported by this server")
        raise UnknownMessageError(f"invalid rpcMsg.PayloadType: {request.payloadtype[:64]}")
    message, payload = envelope.open_payload(request, route.kind)
    return cause, message, payload


def _cause(request: Envelope) -> Cause:
    signed = envelope.authenticate(request)
    return Cause(signed.caller, signed.digest, signed.signature)


def _standing(
    colony: Colony, member: Executor | User | None, caller: str, by_process: bool
) -> Standing:
    # A refusal about a process does not tell its colony's name: the caller may not know it.
    name = "" if by_process and member is None else colony.record.name
    if isinstance(member, Executor):
        return Standing(name, colony.record.owner == caller, False, member.record.state)
    return Standing(name, colony.record.owner == caller, member is not None)
