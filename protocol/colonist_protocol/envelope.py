"""The envelope of requests and replies: COLONIES-RPC sections 1.2 and 1.3.

A request is `{payloadtype, payload, signature}`; what is signed is the base64 text of `payload` as
it was sent. A reply is `{payloadtype, payload, error}` and is always well formed, for errors too.
Ours besides: a `seal`, both ways, that the signature covers as well (`colonist_protocol.seal`).
"""

from __future__ import annotations

import binascii
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple, cast

import msgspec

from colonist_protocol import codec, digests
from colonist_protocol.errors import (
    ColonistError,
    MessageTypeError,
    MissingMemberError,
    OutOfBoundsError,
    SealError,
    SignatureRangeError,
    TooLargeError,
    WrongServerError,
    WrongTypeError,
)
from colonist_protocol.identity import Identity, digest, parse_signature, recover, recover_digest
from colonist_protocol.message import M, Message
from colonist_protocol.seal import (
    ReplySeal,
    RequestSeal,
    pack_seal,
    read_reply_seal,
)
from colonist_protocol.server import GetServerInfo
from colonist_protocol.workflow import SubmitWorkflowSpec, WorkflowSpec

MAX_BODY_BYTES: Final = 2_097_152
MAX_PAYLOAD_CHARS: Final = 1_048_576
MAX_LARGE_BODY_BYTES: Final = 12_648_448
MAX_LARGE_PAYLOAD_CHARS: Final = 12_582_912
LARGE: Final = SubmitWorkflowSpec.msgtype()
"""The one message that may be large: a workflow of thousands of nodes."""
MAX_TYPE_CHARS: Final = 64
MAX_VIA: Final = 16
"""So many changes of a server's key are followed at once."""
ERROR: Final = "error"

# Three members, each a name and a text; with a seal four, with an index five, the last a number.
_PLAIN_QUOTES: Final = 12
_SEALED_QUOTES: Final = 16
_INDEXED_QUOTES: Final = 18
_V_SEALED: Final = 1


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A request as it travels; `signature` may be empty for the two unsigned messages.

    `seal` is empty in plain requests. `index` says which grant of a standing assign is asked for;
    it is not signed, and 0 in all others.
    """

    payloadtype: str
    payload: str
    signature: str = ""
    seal: str = ""
    index: int = 0


class Signed(msgspec.Struct, frozen=True, gc=False):
    """What a checked signature proves, kept with the event that the request causes.

    `seal` is the JSON of the seal, empty for a plain request.
    """

    caller: str
    digest: bytes
    signature: bytes
    seal: bytes = b""


class ReplyEnvelope(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A reply as it travels."""

    payloadtype: str
    payload: str
    error: bool = False
    seal: str = ""
    signature: str = ""
    via: tuple[tuple[str, str], ...] = ()
    """Server keys that were, oldest first, each with its signature of the next."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """What a caller is told of an error. `code` is stable, `message` is for people."""

    status: int
    message: str
    code: str = ""
    retry_after_s: float = 0.0


class _SpecOutline(msgspec.Struct, frozen=True, gc=False):
    colonyname: str | None = None


class _Outline(msgspec.Struct, frozen=True, gc=False):
    msgtype: str | None = None
    spec: _SpecOutline | None = None


def pack_request(message: Message, identity: Identity | None) -> bytes:
    """The body to send; unsigned when there is no identity."""
    kind = message.msgtype()
    payload = codec.to_base64(codec.encode(message))
    signature = identity.sign(payload.encode()) if identity else ""
    return b'{"payloadtype":"%b","payload":"%b","signature":"%b"}' % (
        kind.encode(),
        payload.encode(),
        signature.encode(),
    )


def pack_sealed_request(message: Message, identity: Identity, seal: RequestSeal) -> bytes:
    """The body to send, with a seal."""
    kind = message.msgtype()
    payload = codec.to_base64(codec.encode(message))
    text = pack_seal(seal)
    signature = identity.sign(digests.tagged_text(digests.REQUEST, payload, text))
    return b'{"payloadtype":"%b","payload":"%b","seal":"%b","signature":"%b"}' % (
        kind.encode(),
        payload.encode(),
        text.encode(),
        signature.encode(),
    )


def with_index(body: bytes, index: int) -> bytes:
    """A sealed request as it asks for one grant of a standing assign."""
    return b'%b,"index":%d}' % (body[:-1], index)


def parse_request(body: bytes) -> Envelope:
    """Read a body. Raises `TooLargeError` and the codec's errors.

    A body that only `LARGE` may have is read only as all SDKs write it: anybody can send one, and
    the strict reader takes half a second for 12 MB of members that nobody knows.
    """
    if len(body) > MAX_LARGE_BODY_BYTES:
        raise _too_large(body, MAX_LARGE_BODY_BYTES)
    envelope = _parse_plain(body)
    if len(body) > MAX_BODY_BYTES and (envelope is None or envelope.payloadtype != LARGE):
        raise _too_large(body, MAX_BODY_BYTES)
    if envelope is None:
        envelope = codec.decode(body, Envelope, "envelope")
    is_large = envelope.payloadtype == LARGE
    if len(envelope.payloadtype) > MAX_TYPE_CHARS or not envelope.payloadtype.isprintable():
        raise OutOfBoundsError(f"payloadtype is not up to {MAX_TYPE_CHARS} printable characters")
    limit = MAX_LARGE_PAYLOAD_CHARS if is_large else MAX_PAYLOAD_CHARS
    if len(envelope.payload) > limit:
        raise TooLargeError(f"payload of {len(envelope.payload)} characters is over {limit}")
    return envelope


def _too_large(body: bytes, limit: int) -> TooLargeError:
    return TooLargeError(f"body of {len(body)} bytes is over the limit of {limit}")


def _parse_plain(body: bytes) -> Envelope | None:
    """The envelope as all SDKs write it; None for any other spelling, good or bad.

    Three names and three texts take twelve quotes: when all three members are there, each is there
    once, and no other. 0.8 us; the strict reader takes 5.3.
    """
    quotes = body.count(b'"')
    if quotes not in (_PLAIN_QUOTES, _SEALED_QUOTES, _INDEXED_QUOTES):
        return None
    try:
        envelope = _PLAIN.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not envelope.signature:
        return None
    members = _PLAIN_QUOTES
    if envelope.seal:
        members = _INDEXED_QUOTES if envelope.index else _SEALED_QUOTES
    return envelope if members == quotes else None


def authenticate(envelope: Envelope, seal: bytes = b"") -> Signed:
    """Who signed this; `seal` is the JSON of its seal. Raises `SignatureError`.

    The signature of a sealed request has one spelling: lower case, v 0 or 1.
    """
    signature = parse_signature(envelope.signature)
    if not envelope.seal:
        digest32 = digest(envelope.payload.encode())
        return Signed(recover_digest(digest32, signature), digest32, signature)
    if signature[64] > _V_SEALED or signature.hex() != envelope.signature:
        raise SignatureRangeError("Invalid signature: not lower case with v 0 or 1")
    digest32 = digests.tagged_digest(digests.REQUEST, envelope.payload, envelope.seal)
    return Signed(recover_digest(digest32, signature), digest32, signature, seal)


def open_message(envelope: Envelope, kind: type[M]) -> M:
    """The typed message inside. Raises the codec's errors and `MessageTypeError`."""
    return open_payload(envelope, kind)[0]


def outline(envelope: Envelope) -> tuple[SubmitWorkflowSpec, bytes]:
    """A `LARGE` message without what makes it large, and its JSON: enough to know whose it is.

    An eighth of what `open_payload` takes, which is still to follow: what this lets pass may be no
    strict JSON. Raises the codec's errors and `MessageTypeError`.
    """
    name = envelope.payloadtype
    payload = codec.from_base64(envelope.payload)
    found = codec.glance(payload, _Outline, name)
    if found.msgtype != name:
        raise _another_type(name)
    if found.spec is None:
        raise MissingMemberError(f"Failed to parse {name}, spec is nil")
    return SubmitWorkflowSpec(spec=WorkflowSpec(colonyname=found.spec.colonyname or "")), payload


def open_payload(
    envelope: Envelope, kind: type[M], payload: bytes | None = None
) -> tuple[M, bytes]:
    """The typed message inside, and its JSON as it was signed. Raises as `open_message` does.

    `payload`: that JSON, where it is known already.
    """
    name = envelope.payloadtype
    if kind is GetServerInfo and not envelope.seal:
        return kind(), b""  # the one message whose payload is not read (section 2.1)
    if payload is None:
        payload = codec.from_base64(envelope.payload)
    tree = codec.scan(payload)
    if not isinstance(tree, dict):
        raise WrongTypeError(f"Failed to parse {name}, invalid JSON: not an object")
    if cast("dict[str, object]", tree).get("msgtype") != name:
        raise _another_type(name)
    return codec.convert(payload, tree, kind, name), payload


def _another_type(name: str) -> MessageTypeError:
    return MessageTypeError(f"Failed to parse {name}, msg.MsgType does not match payloadType")


def pack_reply(payloadtype: str, payload: bytes) -> bytes:
    """The body of a success; `payload` is the reply's JSON."""
    return b'{"payloadtype":%b,"payload":"%b","error":false}' % (
        _quoted(payloadtype),
        binascii.b2a_base64(payload, newline=False),
    )


def failure_json(error: ColonistError) -> bytes:
    """What a caller is told of an error."""
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    message = str(error).encode(errors="replace").decode()  # whatever it quotes, it is UTF-8
    return codec.encode(Failure(error.status, message, error.code, retry_after_s))


def pack_failure(error: ColonistError) -> bytes:
    """The body of an error."""
    payload = codec.to_base64(failure_json(error))
    return b'{"payloadtype":"error","payload":"%b","error":true}' % payload.encode()


class Unsigned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A sealed reply that still needs its signature; payload and seal as JSON."""

    payloadtype: str
    payload: bytes
    seal: bytes
    is_error: bool

    def signed(self, identity: Identity, via: tuple[tuple[str, str], ...] = ()) -> bytes:
        """The body of the reply."""
        payload = binascii.b2a_base64(self.payload, newline=False)
        seal = binascii.b2a_base64(self.seal, newline=False)
        body = b'{"payloadtype":%b,"payload":"%b","error":%b,"seal":"%b","signature":"%b"}' % (
            _quoted(self.payloadtype),
            payload,
            b"true" if self.is_error else b"false",
            seal,
            identity.sign(b"%b\n%b\n%b" % (_REPLY_TAG, payload, seal)).encode(),
        )
        return with_via(body, via) if via else body


def with_via(body: bytes, via: tuple[tuple[str, str], ...]) -> bytes:
    """The body of a sealed reply that was made without them, with the server keys that were."""
    return b'%b,"via":%b}' % (body[:-1], codec.encode(via))


def sealed_reply(payloadtype: str, payload: bytes, seal: ReplySeal) -> Unsigned:
    """A reply with a seal; `payload` is its JSON."""
    return Unsigned(payloadtype if seal.ok else ERROR, payload, codec.encode(seal), not seal.ok)


class Genuine(NamedTuple):
    """A reply whose seal was checked, and the server id under which it was."""

    reply: bytes | Failure
    seal: ReplySeal
    server: str


def parse_reply(body: bytes) -> bytes | Failure:
    """The reply's JSON, or the failure. Raises the codec's errors for what is no reply."""
    reply = codec.decode(body, ReplyEnvelope, "reply")
    payload = codec.from_base64(reply.payload)
    if reply.error:
        return codec.decode(payload, Failure, "failure")
    return payload


def open_sealed_reply(body: bytes, *, server: str, caller: str, re: str, index: int = 0) -> Genuine:
    """Check a reply to the request with digest `re` (hex) under the pinned server id.

    A key that follows the pinned one is believed by the pinned one's word (`via`). Raises the
    codec's errors, `SealError`, `SignatureError`, and `WrongServerError` for what is no reply to
    this request of this caller.
    """
    reply = codec.decode(body, ReplyEnvelope, "reply")
    if not reply.seal:
        raise SealError("the reply has no seal")
    seal = read_reply_seal(reply.seal)
    if (seal.to, seal.re, seal.index) != (caller, re, index):
        raise WrongServerError("the reply is meant for another request")
    signer = recover(digests.tagged_text(digests.REPLY, reply.payload, reply.seal), reply.signature)
    if signer != server and not _follows(server, signer, reply.via):
        raise WrongServerError("the reply is signed by another key than the pinned server's")
    payload = codec.from_base64(reply.payload)
    if seal.ok:
        return Genuine(payload, seal, signer)
    return Genuine(codec.decode(payload, Failure, "failure"), seal, signer)


def _follows(pinned: str, signer: str, via: tuple[tuple[str, str], ...]) -> bool:
    """Whether each key since the pinned one names the next, up to the signer."""
    olds = [old for old, _ in via]
    if pinned not in olds or len(via) > MAX_VIA:
        return False
    line = [*olds[olds.index(pinned) :], signer]
    return all(
        recover(digests.tagged_text(digests.KEY, old, new), signature) == old
        for (old, new), (_, signature) in zip(
            pairwise(line), via[olds.index(pinned) :], strict=True
        )
    )


@lru_cache(maxsize=256)
def _quoted(payloadtype: str) -> bytes:
    return codec.encode(payloadtype)


_PLAIN: Final = msgspec.json.Decoder(Envelope)
_REPLY_TAG: Final = digests.REPLY.encode()
