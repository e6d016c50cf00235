"""Seals: what makes a request fresh, meant for one server, and one of a kind; and a reply genuine.

A seal is JSON beside the payload, as base64; one signature covers both texts. It holds the members
shown here and no others. Every reader (server, bridge, client, verifier) reads by this module.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar, cast

import msgspec

from colonist_protocol import codec
from colonist_protocol.errors import MalformedError, SealError
from colonist_protocol.identity import is_id
from colonist_protocol.tokens import is_attempt_token, is_epoch_token

VERSION: Final = 1
MAX_SEAL_CHARS: Final = 1024
MAX_TTL_S: Final = 604_800
"""A week. A request that is presented later than its `ttl` after its epoch has no effect."""
MAX_SHORT_TTL_S: Final = 600
"""For reads, and for assigns that are not standing."""
MAX_SEQ: Final = 2**32 - 1
MAX_INDEX: Final = 2**32 - 1
NONCE_CHARS: Final = 32
MAX_NAME_CHARS: Final = 32

OF_ATTEMPT: Final = frozenset(
    {
        "closesuccessfulmsg",
        "closefailedmsg",
        "setoutputmsg",
        "addattributemsg",
        "addlogmsg",
        "renewmsg",
        "releaseprocessmsg",
    }
)
"""The messages about a running attempt: their seal names it, and does not age."""

_HEX: Final = frozenset("0123456789abcdef")
_EPOCH_FORM: Final = re.compile(
    rb'\{"v":1,"to":"([0-9a-f]{64})","epoch":"([0-9a-f.]{0,64})","id":"([0-9a-f]{32})",'
    rb'"ttl":([1-9][0-9]{0,5})\}'
)
_ATTEMPT_FORM: Final = re.compile(
    rb'\{"v":1,"to":"([0-9a-f]{64})","attempt":"([0-9a-f.]{1,64})","seq":(0|[1-9][0-9]{0,9})\}'
)


class EpochSeal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The seal of any request but those of an attempt.

    `to` is the server's id, `epoch` a token of its time ("" asks for one), `id` 32 hex characters
    that make equal requests differ, `ttl` in seconds.
    """

    v: int
    to: str
    epoch: str
    id: str
    ttl: int


class AttemptSeal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The seal of a request about a running attempt. `seq` is unique in the attempt."""

    v: int
    to: str
    attempt: str
    seq: int


class ReplySeal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The seal of a reply.

    `to` is the caller, `re` the digest of the request in hex, `index` numbers replies to one
    request, `ok` replaces the unsigned `error`, `epoch` is the newest token, `time` in milliseconds
    since 1970, `members` the revision of the colony's members, `event` the hash of what was caused.
    """

    v: int
    to: str
    re: str
    index: int
    ok: bool
    epoch: str
    time: int
    members: int = 0
    event: str = ""


RequestSeal = EpochSeal | AttemptSeal

S = TypeVar("S", EpochSeal, AttemptSeal, ReplySeal)


def pack_seal(seal: RequestSeal | ReplySeal) -> str:
    """The text that travels."""
    return codec.to_base64(codec.encode(seal))


def read_request_seal(text: str, payloadtype: str) -> tuple[RequestSeal, bytes]:
    """The seal of a request, and its JSON. Raises `SealError` for whatever is not as designed."""
    data = _json(text)
    if payloadtype in OF_ATTEMPT:
        return _attempt_seal(data), data
    return _epoch_seal(data), data


def read_reply_seal(text: str) -> ReplySeal:
    """The seal of a reply. Raises `SealError`."""
    seal = _decoded(_json(text), ReplySeal)
    if not (is_id(seal.to) and is_id(seal.re)):
        raise SealError("the seal's to or re is no id")
    if seal.event and not is_id(seal.event):
        raise SealError("the seal's event is no hash")
    if seal.epoch and not is_epoch_token(seal.epoch):
        raise SealError("the seal's epoch has not the form of a token")
    if not 0 <= seal.index <= MAX_INDEX or seal.members < 0 or seal.time < 0:
        raise SealError("the seal's index, members or time is out of bounds")
    return seal


def _json(text: str) -> bytes:
    if len(text) > MAX_SEAL_CHARS:
        raise SealError(f"seal of {len(text)} characters is over {MAX_SEAL_CHARS}")
    try:
        return codec.from_base64(text)
    except MalformedError as error:
        raise SealError(f"the seal is no canonical base64: {error}") from None


def _epoch_seal(data: bytes) -> EpochSeal:
    found = _EPOCH_FORM.fullmatch(data)  # as our own clients write it: a tenth of the time
    if found is not None:
        to, epoch, id, ttl = found.groups()
        seal = EpochSeal(VERSION, to.decode(), epoch.decode(), id.decode(), int(ttl))
    else:
        seal = _decoded(data, EpochSeal)
        if not is_id(seal.to):
            raise SealError("the seal's to is no server id")
        if len(seal.id) != NONCE_CHARS or not _HEX.issuperset(seal.id):
            raise SealError(f"the seal's id is not {NONCE_CHARS} lower-case hex characters")
    if not 0 < seal.ttl <= MAX_TTL_S:
        raise SealError(f"the seal's ttl is not 1 to {MAX_TTL_S} s")
    if seal.epoch and not is_epoch_token(seal.epoch):
        raise SealError("the seal's epoch has not the form of a token")
    return seal


def _attempt_seal(data: bytes) -> AttemptSeal:
    found = _ATTEMPT_FORM.fullmatch(data)
    if found is not None:
        to, attempt, seq = found.groups()
        seal = AttemptSeal(VERSION, to.decode(), attempt.decode(), int(seq))
    else:
        seal = _decoded(data, AttemptSeal)
        if not is_id(seal.to):
            raise SealError("the seal's to is no server id")
    if not 0 <= seal.seq <= MAX_SEQ:
        raise SealError("the seal's seq is no unsigned number of 32 bits")
    if not is_attempt_token(seal.attempt):
        raise SealError("the seal's attempt has not the form of a token")
    return seal


def _decoded(data: bytes, kind: type[S]) -> S:
    try:
        tree = codec.scan(data)
        if isinstance(tree, dict):
            _check_values(cast("dict[str, object]", tree))
        seal = codec.convert(data, tree, kind, "seal")
    except MalformedError as error:
        raise SealError(f"the seal is not as designed: {error}") from None
    if seal.v != VERSION:
        raise SealError(f"the seal's version is not {VERSION}")
    return seal


def _check_values(members: dict[str, object]) -> None:
    """A seal has one spelling of each value: where messages let null and 1.0 pass, it does not."""
    for name, value in members.items():
        if value is None or isinstance(value, float):
            raise SealError(f"the seal's {name[:MAX_NAME_CHARS]} is null, or no whole number")
