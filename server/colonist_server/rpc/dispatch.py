"""From the bytes of a request to the bytes of its reply; the one place that maps errors."""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import msgspec

from colonist_core.limits import Limits
from colonist_core.process import Cause
from colonist_protocol import codec, envelope, messages
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import (
    AccessError,
    ColonistError,
    CorruptRecordError,
    InvalidValueError,
    MalformedError,
    NotFoundError,
    NotSupportedError,
    SignatureError,
    UnknownMessageError,
    WrongDoorError,
)
from colonist_protocol.process import AssignProcess
from colonist_protocol.seal import RequestSeal
from colonist_server.repo import keys
from colonist_server.repo.topics import Order, Sink, Subscription
from colonist_server.rpc.admission import Admission
from colonist_server.rpc.asked import Asked, check_door, route_of
from colonist_server.rpc.callers import Callers
from colonist_server.rpc.carrying import Carrier, CreateTask
from colonist_server.rpc.limits import Limiter
from colonist_server.rpc.opening import Opener
from colonist_server.rpc.rooms import Call, Reply, Rooms
from colonist_server.rpc.sealed import UNSIGNED_PARTS, SealedRequests
from colonist_server.rpc.sealed_sink import SealedSink
from colonist_server.rpc.sealing import Asker, Sealing
from colonist_server.rpc.signing import Signer
from colonist_server.rpc.table import API, PUBSUB, ROUTES

log = logging.getLogger(__name__)

_ASSIGN: Final = AssignProcess.msgtype()
_FATAL: Final = (
    MalformedError,
    SignatureError,
    UnknownMessageError,
    NotSupportedError,
    WrongDoorError,
)
_OK: Final = 200
_MEMBERSHIP: Final = frozenset((keys.COLONY, keys.EXECUTOR, keys.USER))
"""As long as one of these cannot be read, nobody can be told to be a stranger."""
_ID_BYTES: Final = 28
"""What ids of a process, and of its workflow, begin with."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A reply as it goes out; `lost` is to be called when it cannot be delivered."""

    status: int
    body: bytes
    lost: Callable[[], None] | None = None
    retry_after_s: float = 0.0


def refusal(error: ColonistError) -> Answer:
    """A refusal as it goes out."""
    return Answer(error.status, envelope.pack_failure(error), None, retry_after_s(error))


def retry_after_s(error: ColonistError) -> float:
    """How long a refused caller is to wait; 0: nothing is said of that."""
    return getattr(error, "retry_after_s", 0.0)


class Refusal(NamedTuple):
    """Why nothing was subscribed. `is_fatal`: whoever sends such things is not listened to."""

    body: bytes
    is_fatal: bool


class InternalError(ColonistError):
    """A fault of the server; the log has it."""


_FAULT: Final = InternalError("internal error of the server")


class Dispatch:
    """Answers requests."""

    __slots__ = (
        "_admission",
        "_callers",
        "_carrier",
        "_opener",
        "_sealed",
        "_sealing",
        "limiter",
        "rooms",
    )

    def __init__(
        self,
        rooms: Rooms,
        create_task: CreateTask,
        signer: Signer | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.rooms = rooms
        arguments = rooms.generators.view.arguments
        self.limiter = Limiter(limits or Limits(), rooms.clock, arguments)
        self._callers = Callers()
        self._sealing = Sealing(rooms.epochs, rooms.trail, rooms.clock, self._callers, signer)
        self._admission = Admission(rooms)
        self._carrier = Carrier(rooms, self._admission, self.limiter, create_task)
        self._opener = Opener(self._callers, self._admission)
        self._sealed = SealedRequests(
            rooms,
            self._sealing,
            self._opener,
            self._admission,
            carrier=self._carrier,
            limiter=self.limiter,
        )

    async def answer(self, body: bytes) -> Answer:
        """Answer one request; never raises but for cancellation."""
        try:
            request = envelope.parse_request(body)
            if request.seal:
                return await self._answer_sealed(request, body)
            reply = await self._perform(request)
            payload = codec.encode(reply.value)
            sent = envelope.pack_reply(reply.payloadtype or request.payloadtype, payload)
            return Answer(_OK, sent, reply.lost)
        except ColonistError as error:
            return refusal(self._told(body, error))
        except Exception:
            log.exception("internal error")
            return Answer(_FAULT.status, envelope.pack_failure(_FAULT))

    def screen(self, request: Envelope, door: str = API) -> bool:
        """Whether a member signed it; where that cannot be told without waiting, no.

        Raises what a stranger is refused with. What this lets pass is judged as if it were new.
        """
        if request.seal:
            cause, seal = self._sealed.open_seal_at_once(request)
        else:
            cause, seal = self._opener.cause_of(request), None
        try:
            is_member = self._is_members(request, cause, seal, door)
        except ColonistError as error:
            if self._is_final(error, request, cause, seal):
                raise
            is_member = False
        self._callers.keep(request, cause)
        return is_member

    def _is_members(
        self, request: Envelope, cause: Cause, seal: RequestSeal | None, door: str
    ) -> bool:
        route = route_of(request)
        check_door(route, door)
        message, payload = envelope.open_payload(request, route.kind)
        call = self._admission.admit(Asked(route, cause, payload, message, seal))
        return call.scope is not None or self._admission.is_somebody(cause.who)

    def _is_final(
        self, error: ColonistError, request: Envelope, cause: Cause, seal: RequestSeal | None
    ) -> bool:
        """Whether there is nothing to wait for, and nobody to whom a refusal is to be sealed."""
        route = ROUTES.get(request.payloadtype)
        if seal is not None and route is not None and route.ends_access:
            return False  # whoever it took access from may ask again
        if seal is not None and self._admission.is_known(Asker(cause, 0, seal.to)):
            return False
        if isinstance(error, AccessError):
            return not (self.rooms.freshness.is_needed or self.rooms.view.corrupt)
        return True

    async def _answer_sealed(self, request: Envelope, body: bytes) -> Answer:
        """Errors too are sealed, for those who are known here; a stranger costs no signature."""
        order = self._sealed.known(request)
        try:
            if order is not None:
                cause, seal = order.cause, order.seal
            else:
                cause, seal = await self._sealed.open_seal(request)
        except ColonistError as error:
            return Answer(error.status, envelope.pack_failure(error))
        asker = Asker(cause, request.index, seal.to if seal is not None else "")
        seal_reply = self._sealing.reply
        try:
            order = order or await self._sealed.open(request, cause, seal)
            reply = await self._sealed.perform(order, asker)
            payload = codec.encode(reply.value)
            kind = reply.payloadtype or request.payloadtype
            sent = await seal_reply(asker, kind, payload, ok=True, event=reply.event)
            return Answer(_OK, sent, reply.lost)
        except UNSIGNED_PARTS as error:
            return refusal(error)
        except ColonistError as error:
            told = self._told(body, error)
        except Exception:
            log.exception("internal error")
            told = _FAULT
        if not self._admission.is_known(asker):
            return refusal(told)
        payload = envelope.failure_json(told)
        sent = await seal_reply(asker, envelope.ERROR, payload, ok=False)
        return Answer(told.status, sent, retry_after_s=retry_after_s(told))

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
            request = envelope.parse_request(body)
            if request.seal:
                return await self._subscribe_sealed(request, sink, admit)
            reply = await self._perform(request, door=PUBSUB)
            order = cast("Order", reply.value)
            admit(order.who)
            return await self.rooms.subscriptions.open(order, sink)
        except ColonistError as error:
            return refused_order(error)
        except Exception:
            log.exception("internal error")
            return Refusal(envelope.pack_failure(_FAULT), is_fatal=True)

    async def _subscribe_sealed(
        self, request: Envelope, sink: Sink, admit: Callable[[str], None]
    ) -> Subscription | Refusal:
        cause, seal = await self._sealed.open_seal(request)
        asker = Asker(cause, 0, seal.to)
        sealed = SealedSink(sink, self._sealing, asker)
        try:
            order = await self._sealed.open(request, cause, seal, door=PUBSUB)
            followed = cast("Order", (await self._sealed.perform(order, asker)).value)
            admit(followed.who)
            return await self.rooms.subscriptions.open(followed, sealed)
        except UNSIGNED_PARTS as error:
            return refused_order(error)
        except ColonistError as error:
            told = error
        except Exception:
            log.exception("internal error")
            told = _FAULT
        body = (
            sealed.refusal(told) if self._admission.is_known(asker) else envelope.pack_failure(told)
        )
        return Refusal(body, _is_fatal(told))

    async def _perform(self, request: Envelope, *, door: str = API) -> Reply:
        kind = request.payloadtype
        if kind in messages.UNSIGNED:
            route = ROUTES[kind]
            check_door(route, door)
            message = envelope.open_message(request, route.kind)
            return await route.handler(self.rooms, Call(Cause(), b""), message)
        if kind == _ASSIGN:
            cause, message, payload = self._opener.open_poll(request)
        elif kind == envelope.LARGE and len(request.payload) > envelope.MAX_PAYLOAD_CHARS:
            cause, message, payload = await self._opener.open_large(
                request, self._opener.cause_of(request)
            )
        else:
            cause, message, payload = self._opener.open(request)
        route = ROUTES[kind]
        check_door(route, door)
        return await self._carrier.carry_out(Asked(route, cause, payload, message))


def refused_order(error: ColonistError) -> Refusal:
    """The refusal of a frame on `/pubsub`, unsealed."""
    return Refusal(envelope.pack_failure(error), _is_fatal(error))


def _is_fatal(error: ColonistError) -> bool:
    """Whether who sends such things on `/pubsub` is not listened to any more."""
    return isinstance(error, (*_FATAL, InternalError)) and not isinstance(error, InvalidValueError)
