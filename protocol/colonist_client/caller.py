"""One call: sign, exchange, read the reply.

A plain call is repeated only where a second time has no second effect. Reads are; so is an assign.
A submit is not: where its reply is lost, the outcome is unknown and the error says so.

A client that has pinned a server (`pin`) seals its requests and believes only replies that the
pinned server signed for them. Then every call may be repeated: the same bytes take effect at most
once. They are sealed anew only where the server has said, under its signature, that they had no
effect and never will (`epoch_stale`), or where a second time has no second effect and the server's
key, for which they were sealed, has been changed and is taken no more.
"""

from __future__ import annotations

import asyncio
from copy import copy
from types import GenericAlias
from typing import Final, Self, TypeVar, cast

from colonist_client.attempts import Attempts
from colonist_client.failure import ServerError
from colonist_client.retry import Retry
from colonist_client.sealer import NotGenuineError, Pin, Request, Sealer, Seqs
from colonist_client.transport import NotSentError, Transport, UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.envelope import Failure
from colonist_protocol.errors import InvalidValueError, MalformedError
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.messages import UNSIGNED
from colonist_protocol.seal import OF_ATTEMPT

T = TypeVar("T")

REPLY_S: Final = 30.0
MAX_ANEW: Final = 4
"""So often in a row a request is sealed anew at once; then something is wrong with the server."""

_WRONG: Final = "wrong_server"
_STALE: Final = "epoch_stale"
_TOO_OLD: Final = "too_old"


class OutcomeUnknownError(UnreachableError):
    """The request left, no reply came: look whether it had its effect before repeating it."""

    code = "outcome_unknown"
    is_repeatable = False


class Caller:
    """Signs messages with one key and sends them over one transport."""

    def __init__(
        self,
        transport: Transport,
        identity: Identity | None,
        *,
        reply_s: float = REPLY_S,
        retry: Retry | None = None,
        pin: Pin | None = None,
    ) -> None:
        """`reply_s` bounds each exchange; without `retry` nothing is ever repeated.

        With a `pin` and a key all requests are sealed, and replies of others are no replies.
        """
        self.transport = transport
        self.identity = identity
        self.sealer: Sealer | None = None
        self.attempts = Attempts()
        self._reply_s = reply_s
        self._retry = retry
        if pin is not None and identity is not None:
            self.sealer = Sealer(pin, identity, _now)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transport.way}, {self.identity})"

    def pack(self, message: Message, seqs: Seqs | None = None) -> Request:
        """A signed message, to be sent more than once byte for byte.

        `seqs` is the attempt that it is about, where that is not the newest known one.
        """
        kind = message.msgtype()
        if self.identity is None and kind not in UNSIGNED:
            raise InvalidValueError(f"{kind} must be signed: this client has no key")
        if self.sealer is None:
            return Request(message, envelope.pack_request(message, self.identity))
        if kind in OF_ATTEMPT:
            return self.sealer.seal(message, seqs or self.attempts.of(message))
        return self.sealer.seal(message)

    def patient(self, retry: Retry) -> Self:
        """The same caller, which repeats as `retry` says. Only one of the two is to be closed."""
        other = copy(self)
        other._retry = retry  # noqa: SLF001 - of its own kind
        return other

    async def deliver(self, request: Request, *, wait_s: float = 0.0) -> bytes:
        """Send a packed message once; the reply's JSON. Raises `ServerError`, `UnreachableError`.

        `wait_s` is how long the server may take over it, on top of the time for the exchange. One
        that is told to have no effect is sealed anew, and goes out again at once.
        """
        anew = 0
        while True:
            before = request.was_sent
            reply = await self._addressed(request, wait_s)
            if isinstance(reply, bytes):
                return reply
            if self.sealer is None or anew >= MAX_ANEW or not _is_void(request, reply, before):
                break
            anew += 1
            self.sealer.seal_anew(request)
        if request.is_sealed and reply.code == _TOO_OLD:
            raise OutcomeUnknownError(f"{request.message.msgtype()}: {reply.message}")
        raise ServerError(reply)

    async def send(self, request: Request, *, wait_s: float = 0.0) -> bytes:
        """`deliver`, repeated as `retry` says."""
        if self._retry is None:
            return await self.deliver(request, wait_s=wait_s)
        return await self._retry.run(lambda: self.deliver(request, wait_s=wait_s))

    async def read(self, message: Message, kind: type[T], *, wait_s: float = 0.0) -> T:
        """Send what may be sent twice, and repeat it as `retry` says."""
        return decoded(await self.send(self.pack(message), wait_s=wait_s), kind, message)

    async def read_list(self, message: Message, kind: type[T]) -> list[T]:
        """`read` of a list; some servers answer null for an empty one."""
        return await self.read(message, _list_of(kind)) or []

    async def write(self, message: Message, kind: type[T]) -> T:
        """Send what has an effect. Raises `OutcomeUnknownError` for a lost reply.

        A plain request is sent once; a sealed one is repeated as `retry` says.
        """
        request = self.pack(message)
        try:
            if request.is_sealed:
                return decoded(await self.send(request), kind, message)
            return decoded(await self.deliver(request), kind, message)
        except OutcomeUnknownError:
            raise
        except UnreachableError as error:
            if not request.was_sent:
                raise
            raise OutcomeUnknownError(
                f"{message.msgtype()}: the outcome is unknown, look before repeating it: {error}"
            ) from error

    async def order(self, message: Message) -> None:
        """`write` where the reply says nothing but that it was done."""
        await self.write(message, object)

    async def aclose(self) -> None:
        """Close the transport."""
        await self.transport.close()

    async def _addressed(self, request: Request, wait_s: float) -> bytes | Failure:
        """An exchange; another where this was sealed for a former key of the server.

        It may be taken no more, or be answered under that key by a node that has not changed yet.
        Who says so is not known. That the key was changed is: the pin has followed it.
        """
        try:
            return await self._exchange(request, wait_s)
        except UnreachableError as error:
            sealer, is_void = self.sealer, error.said_code == _WRONG
            if sealer is None or request.to == sealer.pin.id:
                raise
            if not (is_void or isinstance(error, NotGenuineError)):
                raise
            if not sealer.address_anew(request):
                if not is_void:
                    raise
                raise OutcomeUnknownError(
                    f"{request.message.msgtype()}: sealed for a former key of the server, which it "
                    f"takes no more: {error}"
                ) from error
        return await self._exchange(request, wait_s)

    async def _exchange(self, request: Request, wait_s: float) -> bytes | Failure:
        if request.first_sent_s is None:
            request.first_sent_s = _now()
        try:
            raw = await self.transport.exchange(request.presented, wait_s=wait_s + self._reply_s)
        except NotSentError:
            raise
        except BaseException:
            request.was_sent = True
            raise
        request.was_sent = True
        if self.sealer is not None:
            return self.sealer.opened(request, raw).reply
        try:
            return envelope.parse_reply(raw)
        except MalformedError as error:
            raise UnreachableError(
                f"not a Colonist server: its answer cannot be read ({error})"
            ) from None


def decoded(payload: bytes, kind: type[T], message: Message) -> T:
    """A reply's JSON as what it is said to be. Raises `UnreachableError`."""
    try:
        return codec.decode(payload, kind, message.msgtype())
    except MalformedError as error:
        raise UnreachableError(
            f"the answer to {message.msgtype()} is not what the protocol says: {error}"
        ) from None


def _is_void(request: Request, reply: Failure, was_sent_before: bool) -> bool:
    """Whether these bytes had no effect and never will: then it may be sealed anew."""
    if not request.is_renewable:
        return False
    return reply.code == _STALE or (reply.code == _TOO_OLD and not was_sent_before)


def _list_of(kind: type[T]) -> type[list[T] | None]:
    return cast("type[list[T] | None]", GenericAlias(list, (kind,)) | None)


def _now() -> float:
    return asyncio.get_running_loop().time()
