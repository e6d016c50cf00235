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

from msgspec import UNSET

from colonist_core.access import Access, Standing, check_server_owner, check_standing, stranger
from colonist_core.limits import Limits
from colonist_core.process import Cause
from colonist_protocol import claims, codec, envelope, messages
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import (
    AccessError,
    AssignPausedError,
    AttemptInvalidError,
    AttemptOverError,
    BusyError,
    ColonistError,
    ConflictError,
    CorruptRecordError,
    EpochStaleError,
    ExistsError,
    InvalidValueError,
    MalformedError,
    NoProcessError,
    NotFoundError,
    NotSupportedError,
    PlainRefusedError,
    ResultConflictError,
    SealError,
    SignatureError,
    TooOldError,
    UnknownMessageError,
    WrongDoorError,
)
from colonist_protocol.identity import is_id
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, StandingOrder
from colonist_protocol.seal import MAX_INDEX, EpochSeal, RequestSeal
from colonist_protocol.tokens import EpochToken, read_epoch
from colonist_server.repo import effects, keys, once
from colonist_server.repo.epochs import stale
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.once import LIFE_MINUTES, AlreadyDone, Mark, Once
from colonist_server.repo.topics import Order, Sink, Subscription
from colonist_server.rpc.callers import Callers
from colonist_server.rpc.limits import Limiter
from colonist_server.rpc.rooms import Call, Reply, Rooms
from colonist_server.rpc.sealed_sink import SealedSink
from colonist_server.rpc.sealing import Asker, Sealing, check_short
from colonist_server.rpc.signing import Signer
from colonist_server.rpc.table import API, PUBSUB, ROUTES, Route
from colonist_server.store.interface import Guard

log = logging.getLogger(__name__)

MAX_POLLS: Final = 20_000
MAX_POLL_CHARS: Final = 1024
_LARGE_CHARS: Final = envelope.MAX_PAYLOAD_CHARS

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
    AttemptInvalidError,
    AttemptOverError,
    ResultConflictError,
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


class _Order(NamedTuple):
    """A request that was opened: what is asked for, by whom, under which seal."""

    route: Route[Any]
    cause: Cause
    payload: bytes
    message: Message
    seal: RequestSeal | None = None


class InternalError(ColonistError):
    """A fault of the server; the log has it."""


_FAULT: Final = InternalError("internal error of the server")


class Dispatch:
    """Answers requests."""

    __slots__ = (
        "_callers",
        "_create_task",
        "_polls",
        "_sealing",
        "_standing",
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
        self.limiter = Limiter(limits or Limits(), rooms.clock)
        self._create_task = create_task
        self._callers = Callers()
        self._sealing = Sealing(rooms.epochs, rooms.trail, rooms.clock, self._callers, signer)
        # An executor that polls sends the same bytes again and again (RFC 6979 signatures are
        # deterministic), and the same bytes prove the same caller: 35 us saved for each poll.
        self._polls: dict[tuple[str, str], tuple[Cause, Message, bytes]] = {}
        # So do the grants of one standing assign.
        self._standing: dict[tuple[str, str, str], _Order] = {}

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

    def screen(self, request: Envelope) -> bool:
        """Whether a member signed it; where that cannot be told without waiting, no.

        Raises what a stranger is refused with. What this lets pass is judged as if it were new.
        """
        if request.seal:
            cause, seal = self._open_seal(request)
        else:
            cause, seal = self._cause(request), None
        try:
            is_member = self._is_members(request, cause, seal)
        except ColonistError as error:
            if self._is_final(error, request, cause, seal):
                raise
            is_member = False
        self._callers.keep(request, cause)
        return is_member

    def _is_members(self, request: Envelope, cause: Cause, seal: RequestSeal | None) -> bool:
        route = _route(request)
        _check_door(route, API)
        message, payload = envelope.open_payload(request, route.kind)
        call = self._admit(_Order(route, cause, payload, message, seal))
        return call.scope is not None or cause.who == self.rooms.owner.id

    def _is_final(
        self, error: ColonistError, request: Envelope, cause: Cause, seal: RequestSeal | None
    ) -> bool:
        """Whether there is nothing to wait for, and nobody to whom a refusal is to be sealed."""
        route = ROUTES.get(request.payloadtype)
        if seal is not None and route is not None and route.ends_access:
            return False  # whoever it took access from may ask again
        if seal is not None and self._is_known(Asker(cause, 0, seal.to)):
            return False
        if isinstance(error, AccessError):
            return not (self.rooms.freshness.is_needed or self.rooms.view.corrupt)
        return True

    async def _answer_sealed(self, request: Envelope, body: bytes) -> Answer:
        """Errors too are sealed, for those who are known here; a stranger costs no signature."""
        order = self._known(request)
        try:
            cause, seal = (order.cause, order.seal) if order else self._open_seal(request)
        except ColonistError as error:
            return Answer(error.status, envelope.pack_failure(error))
        asker = Asker(cause, request.index, seal.to if seal is not None else "")
        seal_reply = self._sealing.reply
        try:
            order = order or await self._open_sealed(request, cause, seal)
            reply = await self._perform_sealed(order, asker)
            payload = codec.encode(reply.value)
            kind = reply.payloadtype or request.payloadtype
            sent = await seal_reply(asker, kind, payload, ok=True, event=reply.event)
            return Answer(_OK, sent, reply.lost)
        except ColonistError as error:
            told = self._told(body, error)
        except Exception:
            log.exception("internal error")
            told = _FAULT
        if not self._is_known(asker):
            return refusal(told)
        payload = envelope.failure_json(told)
        sent = await seal_reply(asker, envelope.ERROR, payload, ok=False)
        return Answer(told.status, sent, retry_after_s=retry_after_s(told))

    def _is_known(self, asker: Asker) -> bool:
        who = asker.who
        colonies = self.rooms.view.tags.values() if asker.colony is None else (asker.colony,)
        gone = self.rooms.claims.gone
        return (
            asker.has_claim
            or who == self.rooms.owner.id
            or any(
                colony.record.owner == who
                or colony.holder(who) is not None
                or gone.has(colony.tag, who)
                for colony in colonies
            )
        )

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
            return Refusal(envelope.pack_failure(error), _is_fatal(error))
        except Exception:
            log.exception("internal error")
            return Refusal(envelope.pack_failure(_FAULT), is_fatal=True)

    async def _subscribe_sealed(
        self, request: Envelope, sink: Sink, admit: Callable[[str], None]
    ) -> Subscription | Refusal:
        cause, seal = self._open_seal(request)
        asker = Asker(cause, 0, seal.to)
        sealed = SealedSink(sink, self._sealing, asker)
        try:
            order = await self._open_sealed(request, cause, seal, door=PUBSUB)
            followed = cast("Order", (await self._perform_sealed(order, asker)).value)
            admit(followed.who)
            return await self.rooms.subscriptions.open(followed, sealed)
        except ColonistError as error:
            told = error
        except Exception:
            log.exception("internal error")
            told = _FAULT
        body = sealed.refusal(told) if self._is_known(asker) else envelope.pack_failure(told)
        return Refusal(body, _is_fatal(told))

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
            cause, message, payload = await self._open_large(request, self._cause(request))
        else:
            cause, message, payload = self._open(request)
        route = ROUTES[kind]
        _check_door(route, door)
        return await self._carry_out(_Order(route, cause, payload, message))

    # -- sealed requests

    def _open_seal(self, request: Envelope) -> tuple[Cause, RequestSeal]:
        """Who signed it, under which seal. An index is for standing assigns only."""
        if request.index and request.payloadtype != _ASSIGN:
            raise SealError("only an assign has an index")
        if request.index < 0 or request.index > MAX_INDEX:
            raise SealError("the index is no unsigned number of 32 bits")
        return self._sealing.open(request)

    def _known(self, request: Envelope) -> _Order | None:
        """A standing assign that was opened before."""
        if request.payloadtype != _ASSIGN or not 0 <= request.index <= MAX_INDEX:
            return None
        return self._standing.get((request.payload, request.seal, request.signature))

    def _keep(self, request: Envelope, order: _Order) -> _Order:
        message = order.message
        is_standing = isinstance(message, AssignProcess) and message.standing is not UNSET
        if is_standing and len(request.payload) <= MAX_POLL_CHARS:  # whoever signs may fill this
            if len(self._standing) >= MAX_POLLS:
                self._standing.clear()
            self._standing[request.payload, request.seal, request.signature] = order
        return order

    async def _open_sealed(
        self, request: Envelope, cause: Cause, seal: RequestSeal | None, *, door: str = API
    ) -> _Order:
        """The message under a seal."""
        route = _route(request)
        _check_door(route, door)
        if request.payloadtype == envelope.LARGE and len(request.payload) > _LARGE_CHARS:
            cause, message, payload = await self._open_large(request, cause)
        else:
            message, payload = envelope.open_payload(request, route.kind)
        return self._keep(request, _Order(route, cause, payload, message, seal))

    async def _perform_sealed(self, order: _Order, asker: Asker) -> Reply:
        """The order of checks is the design's: form, audience, caller, access, record, time."""
        route, seal = order.route, order.seal
        try:
            call = await self._let_in(order)
        except AccessError as refusal:
            return await self._done_before(order, asker, refusal)
        self.limiter.pace(call)
        asker.colony = call.scope
        asker.has_claim = route.access is Access.CLAIM
        if not isinstance(seal, EpochSeal):
            return await self._carry_out(order, call)
        if route.is_read:
            check_short(seal, "a read")
            await self._check_time(seal)
            return await self._carry_out(order)
        return await self._at_most_once(order, call, seal, asker.index)

    async def _let_in(self, order: _Order) -> Call:
        try:
            return self._admit(order)
        except AccessError:
            await self.rooms.freshness.fresh()
            return self._admit(order)

    async def _check_time(self, seal: EpochSeal) -> EpochToken:
        """The token of a seal that is of now. Raises `EpochStaleError`."""
        token, is_fresh = await self._time_of(seal)
        if token is None or not is_fresh:
            raise stale()
        return token

    async def _time_of(self, seal: EpochSeal) -> tuple[EpochToken | None, bool]:
        """The token in a seal, and whether that is of now; a node that is behind looks first."""
        epochs = self.rooms.epochs
        token = read_epoch(seal.epoch)
        if token is None:
            return None, False
        if epochs.is_ahead(token):
            await self.rooms.freshness.fresh()
        return token, epochs.is_own(token, seal.epoch) and epochs.is_fresh(token, seal.ttl)

    async def _at_most_once(self, order: _Order, call: Call, seal: EpochSeal, index: int) -> Reply:
        """Let it take effect, or answer from the record of the effect that it had."""
        token, is_fresh = await self._time_of(seal)
        if token is None:
            raise stale()
        life = _life_minutes(order, seal, index)
        mark = Mark(token, seal.ttl, once.key_of(order.cause), index, life)
        bound = self._bound(order, call, mark)
        is_later = bound.derived is not None or isinstance(order.message, AssignProcess)
        try:
            if not (is_fresh and is_later):
                await self.rooms.writes.look_back(bound)
            if not is_fresh:
                raise self._too_late(order, bound)
            if bound.derived is not None and token.n < call.colony.record.since_n:
                raise too_old()  # there was a colony before it, perhaps of that name
            return await self._take_effect(order, call, bound)
        except AlreadyDone as done:
            await self.rooms.freshness.reach(done.revision)
            await self.rooms.freshness.fresh()
            return await order.route.again(self.rooms, call, order.message, done.value)

    async def _take_effect(self, order: _Order, call: Call, bound: Once) -> Reply:
        """What is refused may have taken effect meanwhile, by another presentation of it."""
        once.begin(bound)
        try:
            return await self._carry_out(order, call)
        except AlreadyDone:
            raise
        except ColonistError as error:
            await self.rooms.writes.look_back(bound)
            if isinstance(error, EpochStaleError):
                raise self._too_late(order, bound) from None
            raise
        finally:
            once.begin(None)

    def _bound(self, order: _Order, call: Call, mark: Mark) -> Once:
        derived = None
        if order.route.derives is not None and call.scope is not None:
            derived = order.route.derives(call.scope.tag, mark)
        return Once(
            mark,
            self.rooms.epochs,
            lambda: self._member_guard(order, self._admit(order)),
            self._member_guard(order, call),
            derived=derived,
            records_last=order.route.records_last,
        )

    def _too_late(self, order: _Order, bound: Once) -> ColonistError:
        """What is told of a request that is not of now, and has left no record.

        One with steps may have been left half done: that it had no effect is for nobody to say.
        """
        epochs, mark = self.rooms.epochs, bound.mark
        is_stepwise = order.route.records_last and epochs.server_keys.made_epoch(mark.token)
        return too_old() if is_stepwise or mark.is_forgotten(epochs.n) else stale()

    async def _done_before(self, order: _Order, asker: Asker, refusal: AccessError) -> Reply:
        """The reply to a change of the caller's own id, which took its access. Raises `refusal`."""
        seal = order.seal
        token = read_epoch(seal.epoch) if isinstance(seal, EpochSeal) else None
        if not order.route.ends_access or token is None or not isinstance(seal, EpochSeal):
            raise refusal
        mark = Mark(token, seal.ttl, once.key_of(order.cause), asker.index)
        record = await self.rooms.writes.read(mark.key)
        if record is None:
            raise refusal
        call = Call(order.cause, order.payload, seal=seal)
        return await order.route.again(self.rooms, call, order.message, record.value)

    def _member_guard(self, order: _Order, call: Call) -> Guard | None:
        """Holds as long as the caller is what it is."""
        if call.caller is not None:
            return Guard(call.caller.key, call.caller.revision)
        if call.scope is not None:
            return Guard(call.scope.key, call.scope.revision)
        return self.rooms.owner.guard if order.route.access is Access.SERVER_OWNER else None

    # -- carrying out

    async def _carry_out(self, order: _Order, call: Call | None = None) -> Reply:
        """Do it, on a view that is fresh where that makes a difference.

        `call`: the caller was let in just now.
        """
        freshness = self.rooms.freshness
        if not freshness.is_needed:
            return await self._try(order, call)
        if not order.route.needs_all:
            effect = effects.begin()
            try:
                return await self._try(order)
            except _OF_VIEW:
                if effect.is_there:
                    raise
        await freshness.fresh()
        return await self._try(order)

    async def _try(self, order: _Order, call: Call | None = None) -> Reply:
        route = order.route
        call = call or self._admit(order)
        if order.seal is None:
            self._check_plain(route, call)
            self.limiter.pace(call)
        self.limiter.check(route.kind, call, order.message)
        work = self._handle(route, call, order.message)
        if route.has_steps:
            return await self._carry_through(work)
        return await work

    async def _handle(self, route: Route[Any], call: Call, message: Message) -> Reply:
        """A sealed request that is answered leaves a record, also when nothing was to be done."""
        self.limiter.enter(route.kind, call)
        try:
            reply = await route.handler(self.rooms, call, message)
            bound = once.latest()
            if bound is not None:
                await self.rooms.writes.finish(bound)
            return reply
        finally:
            self.limiter.leave(route.kind, call)

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
            opened = self._open(request)
            if len(request.payload) <= MAX_POLL_CHARS:  # whoever signs it may fill this
                if len(self._polls) >= MAX_POLLS:
                    self._polls.clear()
                self._polls[key] = opened
        return opened

    def _open(self, request: Envelope) -> tuple[Cause, Message, bytes]:
        cause = self._cause(request)
        route = _route(request)
        message, payload = envelope.open_payload(request, route.kind)
        return cause, message, payload

    def _cause(self, request: Envelope) -> Cause:
        signed = self._callers.of(request)
        return Cause(signed.caller, signed.digest, signed.signature)

    async def _open_large(self, request: Envelope, cause: Cause) -> tuple[Cause, Message, bytes]:
        """Check access before the message is read: strict reading of 9 MB takes 0.3 s.

        So whoever has no access to the colony is told that, where a smaller message would first be
        found to be malformed (COLONIES-RPC section 1.5 has that order; it has no such sizes).
        """
        route = ROUTES[request.payloadtype]
        outline, payload = envelope.outline(request)
        await self._let_in(_Order(route, cause, payload, outline))
        return cause, envelope.open_payload(request, route.kind, payload)[0], payload

    def _admit(self, order: _Order) -> Call:
        """Check the caller's access, once."""
        route, cause, payload, message, seal = order
        access = route.access
        if access is Access.SERVER_OWNER:
            check_server_owner(cause.who, self.rooms.owner.id)
            return Call(cause, payload, seal=seal)
        if route.scope is None:
            return Call(cause, payload, seal=seal)
        colony = route.scope.find(self.rooms.view, message)
        if colony is None:
            name = "" if route.scope.by_process else route.scope.of(message)
            raise stranger(access, name[:64])
        member = colony.members.get(cause.who)
        if access is Access.CLAIM:
            self._check_claim(colony, order)
            return Call(cause, payload, colony, seal=seal)
        check_standing(access, _standing(colony, member, cause.who, route.scope.by_process))
        if isinstance(member, Executor):
            member.heard_ns = self.rooms.clock.now_ns()
        return Call(cause, payload, colony, member, seal)

    def _check_claim(self, colony: Colony, order: _Order) -> None:
        """Raise `AccessError` unless the caller proves a claim; the cheap looks come first."""
        message, who = order.message, order.cause.who
        if order.seal is None:
            raise PlainRefusedError("this request must be sealed")
        is_good = (
            isinstance(message, claims.Enrol)
            and message.executorid == who
            and is_id(message.claim)
            and self.rooms.claims.find(colony.tag, message.claim) is not None
            and any(  # the card may name the server by a key that it had
                claims.is_proof(
                    message.proof,
                    server=server,
                    colony=colony.record.name,
                    claim=message.claim,
                    executor=who,
                )
                for server in self.rooms.server_keys.ids
            )
        )
        if not is_good:
            raise stranger(Access.CLAIM, colony.record.name)

    def _check_plain(self, route: Route[Any], call: Call) -> None:
        """Raise `PlainRefusedError` where only sealed requests are taken."""
        colony, member = call.scope, call.caller
        is_refused = (
            (colony is not None and colony.record.refuses_plain)
            or (isinstance(member, Executor) and member.record.is_sealed)
            or (route.access is Access.SERVER_OWNER and self.rooms.about.refuses_plain)
        )
        if is_refused:
            raise PlainRefusedError("this request must be sealed")


def _is_fatal(error: ColonistError) -> bool:
    """Whether who sends such things on `/pubsub` is not listened to any more."""
    return isinstance(error, (*_FATAL, InternalError)) and not isinstance(error, InvalidValueError)


def _check_door(route: Route[Any], door: str) -> None:
    if route.door == door:
        return
    way = "the WebSocket GET /pubsub" if route.door == PUBSUB else f"POST {route.door}"
    raise WrongDoorError(f"{route.kind.msgtype()} is served on {way} only")


def _route(request: Envelope) -> Route[Any]:
    route = ROUTES.get(request.payloadtype)
    if route is None:
        if request.payloadtype in messages.UNSUPPORTED:
            raise NotSupportedError(f"{request.payloadtype} is not supported by this server")
        raise UnknownMessageError(f"invalid rpcMsg.PayloadType: {request.payloadtype[:64]}")
    return route


def _life_minutes(order: _Order, seal: EpochSeal, index: int) -> int:
    """How long beyond its ttl the record of a request stands.

    There may be thousands of assigns a second. One that is not standing may not live long, and
    whoever has lost its reply finds the process among those that it runs.
    """
    if not isinstance(order.message, AssignProcess):
        return LIFE_MINUTES
    if isinstance(order.message.standing, StandingOrder):
        return seal.ttl // 60
    if index:
        raise SealError("only a standing assign has an index")
    check_short(seal, "an assign that is not standing")
    return 0


def too_old() -> TooOldError:
    """What is told of a request of which nothing is remembered."""
    return TooOldError("the request is so old that nobody remembers whether it took effect")


def _standing(
    colony: Colony, member: Executor | User | None, caller: str, by_process: bool
) -> Standing:
    # A refusal about a process does not tell its colony's name: the caller may not know it.
    name = "" if by_process and member is None else colony.record.name
    if isinstance(member, Executor):
        return Standing(name, colony.record.owner == caller, False, member.record.state)
    return Standing(name, colony.record.owner == caller, member is not None)
