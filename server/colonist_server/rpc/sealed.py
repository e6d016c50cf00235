"""Sealed requests: of now, for this server, with at most one effect however often they come.

The order of checks is the design's: form, audience, caller, access, record, time, handler.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from colonist_core.access import Access
from colonist_core.process import Cause
from colonist_protocol import envelope
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import (
    AccessError,
    AssignPausedError,
    AssignPausedTimeoutError,
    ColonistError,
    EpochStaleError,
    MessageTypeError,
    NoProcessError,
    NotSupportedError,
    SealError,
    TooOldError,
    UnknownMessageError,
    WrongDoorError,
)
from colonist_protocol.process import AssignProcess, StandingOrder
from colonist_protocol.seal import MAX_INDEX, EpochSeal, RequestSeal
from colonist_protocol.tokens import EpochToken, read_epoch
from colonist_server.repo import once
from colonist_server.repo.epochs import stale
from colonist_server.repo.once import ASSIGN_LIFE_MINUTES, LIFE_MINUTES, AlreadyDone, Mark, Once
from colonist_server.rpc.admission import Admission
from colonist_server.rpc.asked import Asked, check_door, route_of
from colonist_server.rpc.carrying import Carrier
from colonist_server.rpc.limits import Limiter
from colonist_server.rpc.opening import MAX_POLL_CHARS, MAX_POLLS, Opener
from colonist_server.rpc.rooms import Call, Reply, Rooms
from colonist_server.rpc.sealing import Asker, Sealing, check_short
from colonist_server.rpc.table import API, PUBSUB

_ASSIGN: Final = AssignProcess.msgtype()
UNSIGNED_PARTS: Final = (MessageTypeError, WrongDoorError, UnknownMessageError, NotSupportedError)
"""Refusals of what no signature covers: the type beside the payload, and the way it came.

They are not sealed. Else whoever carries a request could change these, and show its caller a
refusal that is genuine, of a request that takes effect when it is carried as it was.
"""
_NOTHING: Final = (NoProcessError, AssignPausedError, AssignPausedTimeoutError)


class SealedRequests:
    """Opens and performs them."""

    __slots__ = ("_admission", "_carrier", "_limiter", "_opener", "_rooms", "_sealing", "_standing")

    def __init__(
        self,
        rooms: Rooms,
        sealing: Sealing,
        opener: Opener,
        admission: Admission,
        *,
        carrier: Carrier,
        limiter: Limiter,
    ) -> None:
        self._rooms = rooms
        self._sealing = sealing
        self._opener = opener
        self._admission = admission
        self._carrier = carrier
        self._limiter = limiter
        # The grants of one standing assign are asked for by the same bytes, verified once.
        self._standing: dict[tuple[str, str, str], Asked] = {}

    async def open_seal(self, request: Envelope) -> tuple[Cause, RequestSeal]:
        """Who signed it, under which seal."""
        _check_index(request)
        return await self._sealing.open(request)

    def open_seal_at_once(self, request: Envelope) -> tuple[Cause, RequestSeal]:
        """The same, where nothing may come between."""
        _check_index(request)
        return self._sealing.open_at_once(request)

    def known(self, request: Envelope) -> Asked | None:
        """A standing assign that was opened before."""
        if request.payloadtype != _ASSIGN or not 0 <= request.index <= MAX_INDEX:
            return None
        return self._standing.get((request.payload, request.seal, request.signature))

    async def open(
        self, request: Envelope, cause: Cause, seal: RequestSeal | None, *, door: str = API
    ) -> Asked:
        """The message under a seal."""
        route = route_of(request)
        check_door(route, door)
        if (
            request.payloadtype == envelope.LARGE
            and len(request.payload) > envelope.MAX_PAYLOAD_CHARS
        ):
            cause, message, payload = await self._opener.open_large(request, cause)
        else:
            message, payload = envelope.open_payload(request, route.kind)
        return self._keep(request, Asked(route, cause, payload, message, seal))

    def _keep(self, request: Envelope, asked: Asked) -> Asked:
        message = asked.message
        is_standing = isinstance(message, AssignProcess) and message.standing is not UNSET
        if is_standing and len(request.payload) <= MAX_POLL_CHARS:  # whoever signs may fill this
            if len(self._standing) >= MAX_POLLS:
                self._standing.clear()
            self._standing[request.payload, request.seal, request.signature] = asked
        return asked

    async def perform(self, asked: Asked, asker: Asker) -> Reply:
        """The asked of checks is the design's: form, audience, caller, access, record, time."""
        route, seal = asked.route, asked.seal
        try:
            call = await self._admission.let_in(asked)
        except AccessError as refusal:
            return await self._done_before(asked, asker, refusal)
        self._limiter.pace(call)
        asker.colony = call.scope
        asker.has_claim = route.access is Access.CLAIM
        if not isinstance(seal, EpochSeal):
            return await self._carrier.carry_out(asked, call)
        if route.is_repeatable:
            check_short(seal, "a read")
            await self._check_time(seal)
            return await self._carrier.carry_out(asked)
        return await self._at_most_once(asked, call, seal, asker.index)

    async def _check_time(self, seal: EpochSeal) -> EpochToken:
        """The token of a seal that is of now. Raises `EpochStaleError`."""
        token, is_fresh = await self._time_of(seal)
        if token is None or not is_fresh:
            raise stale()
        return token

    async def _time_of(self, seal: EpochSeal) -> tuple[EpochToken | None, bool]:
        """The token in a seal, and whether that is of now; a node that is behind looks first."""
        epochs = self._rooms.epochs
        token = read_epoch(seal.epoch)
        if token is None:
            return None, False
        if epochs.is_ahead(token):
            await self._rooms.freshness.fresh()
        return token, epochs.is_own(token, seal.epoch) and epochs.is_fresh(token, seal.ttl)

    async def _at_most_once(self, asked: Asked, call: Call, seal: EpochSeal, index: int) -> Reply:
        """Let it take effect, or answer from the record of the effect that it had."""
        token, is_fresh = await self._time_of(seal)
        if token is None:
            raise stale()
        life = _life_minutes(asked, seal, index)
        mark = Mark(token, seal.ttl, once.key_of(asked.cause), index, life)
        bound = self._bound(asked, call, mark)
        is_later = bound.derived is not None or _is_brief(asked)
        try:
            if not (is_fresh and is_later):
                await self._rooms.writes.look_back(bound)
            if not is_fresh:
                raise self._too_late(asked, bound)
            if bound.derived is not None and token.n < call.colony.record.since_n:
                raise too_old()  # there was a colony before it, perhaps of that name
            return await self._take_effect(asked, call, bound)
        except AlreadyDone as done:
            await self._rooms.freshness.reach(done.revision)
            await self._rooms.freshness.fresh()
            return await asked.route.again(self._rooms, call, asked.message, done.value)

    async def _take_effect(self, asked: Asked, call: Call, bound: Once) -> Reply:
        """What is refused may have taken effect meanwhile, by another presentation of it."""
        once.begin(bound)
        try:
            return await self._carrier.carry_out(asked, call)
        except AlreadyDone:
            raise
        except ColonistError as error:
            await self._rooms.writes.look_back(bound)
            if isinstance(error, _NOTHING) and not _is_standing(asked):
                # Its executor waits no more: presented again it must not be granted anything.
                bound.say(b"")
                await self._rooms.writes.finish(bound)
            if isinstance(error, EpochStaleError):
                raise self._too_late(asked, bound) from None
            raise
        finally:
            once.begin(None)

    def _bound(self, asked: Asked, call: Call, mark: Mark) -> Once:
        derived = None
        if asked.route.derives is not None and call.scope is not None:
            derived = asked.route.derives(call.scope.tag, mark)
        return Once(
            mark,
            self._rooms.epochs,
            lambda: self._admission.member_guard(asked, self._admission.admit(asked)),
            self._admission.member_guard(asked, call),
            derived=derived,
            records_last=asked.route.records_last,
        )

    def _too_late(self, asked: Asked, bound: Once) -> ColonistError:
        """What is told of a request that is not of now, and has left no record.

        One with steps may have been left half done: that it had no effect is for nobody to say.
        """
        epochs, mark = self._rooms.epochs, bound.mark
        is_stepwise = asked.route.records_last and epochs.server_keys.made_epoch(mark.token)
        return too_old() if is_stepwise or mark.is_forgotten(epochs.n) else stale()

    async def _done_before(self, asked: Asked, asker: Asker, refusal: AccessError) -> Reply:
        """The reply to a change of the caller's own id, which took its access. Raises `refusal`."""
        seal = asked.seal
        token = read_epoch(seal.epoch) if isinstance(seal, EpochSeal) else None
        if not asked.route.ends_access or token is None or not isinstance(seal, EpochSeal):
            raise refusal
        mark = Mark(token, seal.ttl, once.key_of(asked.cause), asker.index)
        record = await self._rooms.writes.read(mark.key)
        if record is None:
            raise refusal
        call = Call(asked.cause, asked.payload, seal=seal)
        return await asked.route.again(self._rooms, call, asked.message, record.value)


def _check_index(request: Envelope) -> None:
    """An index is for standing assigns only."""
    if request.index and request.payloadtype != _ASSIGN:
        raise SealError("only an assign has an index")
    if request.index < 0 or request.index > MAX_INDEX:
        raise SealError("the index is no unsigned number of 32 bits")


def _life_minutes(asked: Asked, seal: EpochSeal, index: int) -> int:
    """How long beyond its ttl the record of a request stands.

    There may be thousands of assigns a second. One that is not standing may not live long, and
    whoever has lost its reply finds the process among those that it runs. For a few minutes more it
    can be told that it had no effect, so that a slow clock is no reason to be unsure. A
    subscription that is lost is ordered anew.
    """
    if not _is_brief(asked):
        return LIFE_MINUTES
    if _is_standing(asked):
        return seal.ttl // 60
    if index:
        raise SealError("only a standing assign has an index")
    is_assign = isinstance(asked.message, AssignProcess)
    check_short(seal, "an assign that is not standing" if is_assign else "a subscription")
    return ASSIGN_LIFE_MINUTES


def _is_brief(asked: Asked) -> bool:
    """Whether it has its effect by the very commit that leaves its record, soon forgotten."""
    return isinstance(asked.message, AssignProcess) or asked.route.door == PUBSUB


def _is_standing(asked: Asked) -> bool:
    message = asked.message
    return isinstance(message, AssignProcess) and isinstance(message.standing, StandingOrder)


def too_old() -> TooOldError:
    """What is told of a request of which nothing is remembered."""
    return TooOldError("the request is so old that nobody remembers whether it took effect")
