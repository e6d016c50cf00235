"""One call: sign, exchange, read the reply.

A call is repeated only where a second time has no second effect. Reads are; so is an assign. A
submit is not: where its reply is lost, the outcome is unknown and the error says so.
"""

from __future__ import annotations

from types import GenericAlias
from typing import Final, TypeVar, cast

from colonist_client.failure import ServerError
from colonist_client.retry import Retry
from colonist_client.transport import NotSentError, Transport, UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.errors import InvalidValueError, MalformedError
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.messages import UNSIGNED

T = TypeVar("T")

REPLY_S: Final = 30.0


class OutcomeUnknownError(UnreachableError):
    """The request left, no reply came: look whether it had its effect before repeating it."""

    code = "outcome_unknown"


class Caller:
    """Signs messages with one key and sends them over one transport."""

    def __init__(
        self,
        transport: Transport,
        identity: Identity | None,
        *,
        reply_s: float = REPLY_S,
        retry: Retry | None = None,
    ) -> None:
        """`reply_s` bounds each exchange; without `retry` nothing is ever repeated."""
        self.transport = transport
        self.identity = identity
        self._reply_s = reply_s
        self._retry = retry

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transport.way}, {self.identity})"

    def pack(self, message: Message) -> bytes:
        """The signed body of a message, to be sent more than once byte for byte."""
        if self.identity is None and message.msgtype() not in UNSIGNED:
            raise InvalidValueError(f"{message.msgtype()} must be signed: this client has no key")
        return envelope.pack_request(message, self.identity)

    async def deliver(self, body: bytes, *, wait_s: float = 0.0) -> bytes:
        """Send a packed body once; the reply's JSON. Raises `ServerError`, `UnreachableError`.

        `wait_s` is how long the server may take over it, on top of the time for the exchange.
        """
        raw = await self.transport.exchange(body, wait_s=wait_s + self._reply_s)
        try:
            reply = envelope.parse_reply(raw)
        except MalformedError as error:
            raise UnreachableError(
                f"not a Colonist server: its answer cannot be read ({error})"
            ) from None
        if isinstance(reply, envelope.Failure):
            raise ServerError(reply)
        return reply

    async def read(self, message: Message, kind: type[T], *, wait_s: float = 0.0) -> T:
        """Send what may be sent twice, and repeat it as `retry` says."""
        body = self.pack(message)
        if self._retry is None:
            payload = await self.deliver(body, wait_s=wait_s)
        else:
            payload = await self._retry.run(lambda: self.deliver(body, wait_s=wait_s))
        return _decoded(payload, kind, message)

    async def read_list(self, message: Message, kind: type[T]) -> list[T]:
        """`read` of a list; some servers answer null for an empty one."""
        return await self.read(message, _list_of(kind)) or []

    async def write(self, message: Message, kind: type[T]) -> T:
        """Send what must not be sent twice. Raises `OutcomeUnknownError` for a lost reply."""
        body = self.pack(message)
        try:
            return _decoded(await self.deliver(body), kind, message)
        except NotSentError:
            raise
        except UnreachableError as error:
            raise OutcomeUnknownError(
                f"{message.msgtype()}: the outcome is unknown, look before repeating it: {error}"
            ) from error

    async def order(self, message: Message) -> None:
        """`write` where the reply says nothing but that it was done."""
        await self.write(message, object)

    async def aclose(self) -> None:
        """Close the transport."""
        await self.transport.close()


def _list_of(kind: type[T]) -> type[list[T] | None]:
    return cast("type[list[T] | None]", GenericAlias(list, (kind,)) | None)


def _decoded(payload: bytes, kind: type[T], message: Message) -> T:
    try:
        return codec.decode(payload, kind, message.msgtype())
    except MalformedError as error:
        raise UnreachableError(
            f"the answer to {message.msgtype()} is not what the protocol says: {error}"
        ) from None
