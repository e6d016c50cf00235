"""What arrives on a device's `rep` topic: replies and hints. Pure; anything else is None.

A sealed reply names its request by `re`, under the server's signature. A plain reply ends in the
unsigned member `"req"`, which the bridge put there (docs/adr/0003); it is taken off again, so that
the body is what the server sent, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from colonist_protocol import codec
from colonist_protocol.envelope import Failure, ReplyEnvelope, parse_reply
from colonist_protocol.errors import MalformedError
from colonist_protocol.seal import read_reply_seal

REQ_CHARS: Final = 16
HINT_FLOOR_S: Final = 0.5
HINT_CAP_S: Final = 3600.0

_NAME: Final = re.compile(rb'\A(.*),"req":"([0-9a-f]{16})"\}\Z', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainReply:
    """A reply and the name of the request that it is said to answer."""

    req: str
    body: bytes

    @property
    def code(self) -> str:
        """The code of a failure, "" of anything else. Nobody vouches for it."""
        try:
            found = parse_reply(self.body)
        except MalformedError:
            return ""
        return found.code[:64] if isinstance(found, Failure) and found.code.isidentifier() else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedReply:
    """A reply, and what its seal says of whom and what it answers; its signature was not looked at.

    `epoch` is the token that it brings.
    """

    to: str
    re: str
    index: int
    epoch: str
    body: bytes


class Hint(msgspec.Struct, frozen=True):
    """A bridge's word on a request. It may delay, it ends nothing."""

    code: Annotated[str, msgspec.Meta(max_length=64)]
    retry_after_s: float = 0.0
    req: str = ""

    @property
    def delay_s(self) -> float:
        """How long to wait before sending again: half a second at least, an hour at most."""
        return min(max(self.retry_after_s, HINT_FLOOR_S), HINT_CAP_S)


class _HintMessage(msgspec.Struct, frozen=True):
    hint: Hint


Rep = PlainReply | SealedReply | Hint


def request_tag(signature: str) -> str:
    """How plain replies and hints name a request: the first 16 hex of its signature."""
    return signature[:REQ_CHARS].lower()


def read_rep(payload: bytes) -> Rep | None:
    """Read one message whose size was checked. Never raises."""
    named = _NAME.match(payload)
    if named is not None:
        return PlainReply(req=named[2].decode(), body=named[1] + b"}")
    try:
        if payload.startswith(b'{"hint"'):
            return codec.decode(payload, _HintMessage, "hint").hint
        return _sealed(payload)
    except MalformedError:
        return None


def _sealed(payload: bytes) -> SealedReply | None:
    reply = codec.decode(payload, ReplyEnvelope, "reply")
    if not reply.seal:
        return None
    seal = read_reply_seal(reply.seal)
    return SealedReply(to=seal.to, re=seal.re, index=seal.index, epoch=seal.epoch, body=payload)
