"""Seals of what a client sends, and the check of what comes back.

A client that has pinned a server id seals every request, and believes only replies that the pinned
server signed for this caller and this request; whatever else arrives is no reply. No clock but a
monotonic one is read, and it only spares a round trip: how old a token is, the server decides.

Where the server's key has changed, the old key's word (`via`) moves the pin; `Pin.moved` is told,
to write it down.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET

from colonist_client.repeatable import is_read
from colonist_client.transport import UnreachableError
from colonist_protocol import digests, envelope
from colonist_protocol.envelope import Envelope, Failure, Genuine
from colonist_protocol.errors import ColonistError, IdFormError, MalformedError
from colonist_protocol.identity import Identity, is_id
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess
from colonist_protocol.seal import (
    MAX_SEQ,
    MAX_SHORT_TTL_S,
    NONCE_CHARS,
    VERSION,
    AttemptSeal,
    EpochSeal,
    ReplySeal,
    RequestSeal,
)
from colonist_protocol.tokens import is_epoch_token, read_epoch

READ_S: Final = 120
"""Who captures a sealed read may present it for so long: short."""
ASSIGN_S: Final = 120
"""What an assign lives beyond its wait: time to send the same bytes again."""
WRITE_S: Final = 3600
STANDING_S: Final = 3600
"""Grants are asked for by one signature for so long."""

_SAID_CHARS: Final = 300


class NotGenuineError(UnreachableError):
    """Something answered, and not the pinned server to this request: there is no reply.

    `said` is the failure that it told, if it did; it may delay what is tried next, nothing else.
    """

    code = "not_genuine"

    def __init__(self, why: str, said: Failure | None = None) -> None:
        super().__init__(f"no reply of the pinned server came: {why}{_shown(said)}")
        self.said = said
        self.said_code = said.code if said is not None else ""


class Pin:
    """The id of the server whose replies are believed; it follows changes of the server's key.

    `moved` is called with the new id when it has changed.
    """

    __slots__ = ("id", "moved")

    def __init__(self, id: str, moved: Callable[[str], None] | None = None) -> None:
        """Raises `IdFormError`."""
        if not is_id(id):
            raise IdFormError("the server id to pin is not 64 lower-case hex characters")
        self.id = id
        self.moved = moved

    def follow(self, signer: str) -> None:
        """A reply that was checked is signed by `signer`."""
        if signer != self.id:
            self.id = signer
            if self.moved is not None:
                self.moved(signer)

    def __repr__(self) -> str:
        return f"Pin({self.id})"


class Tokens:
    """The newest epoch token that a checked reply brought, and a hint for as long as it is old."""

    __slots__ = ("_clock", "_heard_s", "_hint", "newest")

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._heard_s = 0.0
        self._hint = ""
        self.newest = ""

    def keep(self, text: str) -> None:
        """Take the token of a checked reply; one that is older in the same era is late news."""
        token, newest = read_epoch(text), read_epoch(self.newest)
        if token is None:
            return
        if newest is not None and newest.era == token.era and newest.n > token.n:
            return
        self.newest, self._heard_s, self._hint = text, self._clock(), ""

    def hint(self, text: str) -> None:
        """Take a token that nobody vouches for."""
        if is_epoch_token(text):
            self._hint = text

    def pick(self, within_s: float) -> str:
        """The token to seal with; "" asks for one, where all that is known is older than that.

        What is sealed with an old token is refused too. But of that the server cannot always say
        that it had no effect; of what asks for a token it always can.
        """
        is_old = not self.newest or self._clock() - self._heard_s >= within_s
        return self._hint if is_old else self.newest


class Seqs:
    """The token of one attempt, and the numbers of what is said in it."""

    __slots__ = ("_next", "is_used", "token")

    def __init__(self, token: str, first: int = 0) -> None:
        """`first` is to be above all that were used before: after a restart, high and random."""
        self.token = token
        self._next = first
        self.is_used = False
        """Whether anything was sealed with it."""

    def take(self) -> int:
        """The next number. Raises `OverflowError` after 4 294 967 295."""
        if self._next > MAX_SEQ:
            raise OverflowError("an attempt has no more than 2^32 sealed requests")
        self._next += 1
        self.is_used = True
        return self._next - 1


class Request:
    """One message on its way: the same bytes each time, until they are known to have no effect.

    `re` is the digest that a reply must name, "" for a plain request; `index` is the grant of a
    standing assign that is asked for.
    """

    __slots__ = (
        "body",
        "first_sent_s",
        "index",
        "is_renewable",
        "message",
        "re",
        "seal",
        "was_sent",
    )

    def __init__(self, message: Message, body: bytes, re: str = "") -> None:
        self.message = message
        self.body = body
        self.re = re
        self.seal: RequestSeal | None = None
        self.index = 0
        self.is_renewable = False
        """Whether it can be sealed anew: an attempt's seal is no older the next day."""
        self.was_sent = False
        self.first_sent_s: float | None = None
        """When these bytes were sent first, by the loop's clock: leases are counted from then."""

    @property
    def presented(self) -> bytes:
        """The bytes to send."""
        return envelope.with_index(self.body, self.index) if self.index else self.body

    def advance(self) -> None:
        """A standing assign was granted this index: ask for the next."""
        self.index += 1
        self.was_sent = False
        self.first_sent_s = None

    @property
    def is_standing(self) -> bool:
        """Whether it may be granted more than once."""
        message = self.message
        return isinstance(message, AssignProcess) and message.standing is not UNSET

    @property
    def to(self) -> str:
        """The server that it is sealed for, "" for a plain request."""
        return self.seal.to if self.seal is not None else ""

    @property
    def is_sealed(self) -> bool:
        """Whether it takes effect at most once, and its reply is signed."""
        return bool(self.re)

    def __repr__(self) -> str:
        return f"Request({self.message.msgtype()}, {self.re[:16] or 'plain'})"


class Sealer:
    """Seals one caller's requests to one server."""

    __slots__ = ("_entropy", "heard", "identity", "pin", "tokens")

    def __init__(
        self,
        pin: Pin,
        identity: Identity,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`clock` gives monotonic seconds, `entropy` random bytes."""
        self.pin = pin
        self.identity = identity
        self.tokens = Tokens(clock)
        self.heard: Callable[[ReplySeal], None] | None = None
        """Is called with the seal of each checked reply: it tells of changes of the members."""
        self._entropy = entropy

    def seal(self, message: Message, seqs: Seqs | None = None) -> Request:
        """A message under a seal that no message had before; `seqs`: of an attempt."""
        request = Request(message, b"")
        request.is_renewable = seqs is None
        self._fill(request, self._epoch_seal(message) if seqs is None else self._of(seqs))
        return request

    def seal_anew(self, request: Request) -> None:
        """For one that had no effect and never will: other bytes for the same message."""
        self._fill(request, self._epoch_seal(request.message))
        request.was_sent = False
        request.first_sent_s = None
        request.index = 0

    def address_anew(self, request: Request) -> bool:
        """Seal for the server's id of now what names a former one; whether that may be done.

        It may where both together have one effect at most: a read has none, and what an attempt
        says is known by its number, whatever server it names.
        """
        if isinstance(request.seal, AttemptSeal):
            self._fill(request, msgspec.structs.replace(request.seal, to=self.pin.id))
        elif is_read(request.message.msgtype()):
            self.seal_anew(request)
        else:
            return False
        return True

    def opened(self, request: Request, body: bytes, *, index: int | None = None) -> Genuine:
        """The reply to a request; `index` is that of a subscription's frame.

        Raises `NotGenuineError` for whatever is none.
        """
        try:
            genuine = envelope.open_sealed_reply(
                body,
                server=self.pin.id,
                caller=self.identity.id,
                re=request.re,
                index=request.index if index is None else index,
            )
        except ColonistError as error:
            raise NotGenuineError(str(error), _said(body)) from None
        self.pin.follow(genuine.server)
        self.tokens.keep(genuine.seal.epoch)
        if self.heard is not None:
            self.heard(genuine.seal)
        return genuine

    def _fill(self, request: Request, seal: RequestSeal) -> None:
        request.body = envelope.pack_sealed_request(request.message, self.identity, seal)
        request.re = digest_of(request.body)
        request.seal = seal

    def _epoch_seal(self, message: Message) -> EpochSeal:
        ttl_s = ttl_of(message)
        # An assign has to be fresh still when its wait is over.
        within_s = ASSIGN_S if isinstance(message, AssignProcess) else ttl_s
        token = self.tokens.pick(within_s)
        nonce = self._entropy(NONCE_CHARS // 2).hex()
        return EpochSeal(VERSION, self.pin.id, token, nonce, ttl_s)

    def _of(self, seqs: Seqs) -> AttemptSeal:
        return AttemptSeal(VERSION, self.pin.id, seqs.token, seqs.take())


def ttl_of(message: Message) -> int:
    """How long a message may take effect."""
    if isinstance(message, AssignProcess):
        if message.standing is not UNSET:
            return STANDING_S
        return min(MAX_SHORT_TTL_S, max(0, message.timeout) + ASSIGN_S)
    return READ_S if is_read(message.msgtype()) else WRITE_S


def digest_of(body: bytes) -> str:
    """What a reply to a sealed request names as `re`."""
    sent: Envelope = envelope.parse_request(body)
    return digests.tagged_digest(digests.REQUEST, sent.payload, sent.seal).hex()


def _said(body: bytes) -> Failure | None:
    try:
        reply = envelope.parse_reply(body)
    except MalformedError:
        return None
    return reply if isinstance(reply, Failure) else None


def _shown(said: Failure | None) -> str:
    """What an answer says that nobody vouches for, for a person to judge."""
    if said is None:
        return ""
    text = "".join(each if each.isprintable() else "?" for each in said.message[:_SAID_CHARS])
    code = "".join(each for each in said.code[:32] if each.isalnum() or each == "_")
    return f"; unverified, something answered: {said.status} {code}: {text!r}"
