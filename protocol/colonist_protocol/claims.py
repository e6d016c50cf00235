"""Claims: how a device that nobody knows yet becomes an executor of a colony.

A claim is a key made from a code of 16 random bytes. The server knows the claim's id only; whoever
has the code proves it by a signature that names one executor, so who sees a proof in transit can
enrol nobody else with it. The code reaches the device on a card: `colonist:1:<host>:<server
id>:<colony>:<code>`, typed, or scanned as a QR code.
"""

from __future__ import annotations

import base64
import re
from enum import StrEnum
from typing import Final

import msgspec

from colonist_protocol import digests
from colonist_protocol.errors import (
    InvalidValueError,
    NameFormError,
    OutOfBoundsError,
    SignatureError,
)
from colonist_protocol.identity import Identity, is_id, recover
from colonist_protocol.message import Int, Message
from colonist_protocol.names import check_name, check_text

CODE_BYTES: Final = 16
CODE_CHARS: Final = 26
MAX_HARDWARE_CHARS: Final = 128
MAX_COUNT: Final = 1_000_000
MAX_TYPE_CHARS: Final = 63
"""A name is a type, a hyphen and up to 64 characters of the id."""
MAX_CARD_CHARS: Final = 512
NAME_CHARS: Final = (8, 16, 32, 64)
"""So much of its id names an executor: the first that is free."""

_CODE: Final = re.compile("[A-Z2-7]{26}")
_HOST: Final = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_PREFIX: Final = "colonist:1:"
_MAX_PORT: Final = 65_535
_V: Final = ("00", "01")


class Approval(StrEnum):
    """Who lets an executor work that came by a claim."""

    AT_ONCE = "at-once"
    PERSON = "person"
    """It waits, PENDING, until the colony's owner, or a program with the owner's key, approves."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim as the colony's owner sees it; times in milliseconds since 1970."""

    claim: str
    executortype: str
    count: Int
    used: Int
    expires: Int
    approval: str


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """An executor that came by a claim, with what it says of its hardware."""

    executorname: str
    executorid: str
    executortype: str
    state: Int
    hw: str
    claim: str
    enrolled: Int
    """In milliseconds since 1970."""


class AddClaim(Message, tag="addclaimmsg"):
    """Let up to `count` executors enrol by the code whose key has the id `claim`; ours alone."""

    colonyname: str = ""
    claim: str = ""
    executortype: str = ""
    count: Int = 1
    expires: Int = 0
    """In milliseconds since 1970."""
    approval: str = Approval.AT_ONCE


class GetClaims(Message, tag="getclaimsmsg"):
    """List a colony's claims; ours alone."""

    colonyname: str = ""


class RemoveClaim(Message, tag="removeclaimmsg"):
    """Let nobody enrol by a claim any more; ours alone.

    `executors`: remove all who came by it as well.
    """

    colonyname: str = ""
    claim: str = ""
    executors: bool = False


class GetEnrolled(Message, tag="getenrolledmsg"):
    """List executors that came by claims; ours alone. `claim` and `state` -1 or "" mean any."""

    colonyname: str = ""
    claim: str = ""
    state: Int = -1


class Enrol(Message, tag="enrolmsg"):
    """Become an executor by a claim; ours alone, sealed by the executor's own key.

    `hw` names the hardware; `proof` is the claim's signature. Saying it twice is no error.
    """

    colonyname: str = ""
    claim: str = ""
    executorid: str = ""
    hw: str = ""
    proof: str = ""


MESSAGES: Final = (AddClaim, GetClaims, RemoveClaim, GetEnrolled, Enrol)


class Card(msgspec.Struct, frozen=True):
    """What a device is told to enrol by. Its `repr` does not show the code."""

    host: str
    server: str
    colony: str
    code: str

    def __repr__(self) -> str:
        return f"Card({self.host}, {self.server}, {self.colony})"


def make_code(entropy: bytes) -> str:
    """The code of 16 random bytes: base32 without padding. Raises `InvalidValueError`."""
    if len(entropy) != CODE_BYTES:
        raise InvalidValueError(f"a code needs {CODE_BYTES} random bytes")
    return base64.b32encode(entropy).decode().rstrip("=")


def check_code(code: str) -> str:
    """The code, if it may be one. Raises `InvalidValueError`, which does not repeat it."""
    if _CODE.fullmatch(code) is None or make_code(_bytes_of(code)) != code:
        raise InvalidValueError(
            f"the code is not {CODE_CHARS} characters A-Z and 2-7, as on the card"
        )
    return code


def claim_key(code: str) -> Identity:
    """The key of a claim; its id is the claim's id. Raises `InvalidValueError`."""
    return Identity(digests.tagged_digest(digests.CLAIM_KEY, check_code(code)))


def prove(code: str, *, server: str, colony: str, executor: str) -> str:
    """The proof by which one executor, and no other, may enrol."""
    key = claim_key(code)
    return key.sign(_proven(server, colony, key.id, executor))


def is_proof(proof: str, *, server: str, colony: str, claim: str, executor: str) -> bool:
    """Whether it is the claim's signature for that executor. One spelling, as in seals."""
    if proof[-2:] not in _V or proof != proof.lower():
        return False
    try:
        return recover(_proven(server, colony, claim, executor), proof) == claim
    except (SignatureError, InvalidValueError):
        return False


def check_hardware(hw: str) -> str:
    """What a device says of its hardware. Raises `NameFormError`.

    It goes to people's terminals and to programs that decide by it, so it is no option of theirs.
    """
    if not hw:
        raise NameFormError("hw is empty: it names the hardware, and tells of a copied key")
    if len(hw) > MAX_HARDWARE_CHARS:
        raise NameFormError(f"hw is longer than {MAX_HARDWARE_CHARS} characters")
    if hw.startswith("-") or not hw.isprintable():
        raise NameFormError("hw begins with a hyphen, or holds what cannot be printed")
    return check_text(hw, "hw")


def check_type(executortype: str) -> str:
    """A type whose executors are named by it. Raises `NameFormError`."""
    if len(check_name(executortype, "executor type").encode()) > MAX_TYPE_CHARS:
        raise NameFormError(f"executor type is longer than {MAX_TYPE_CHARS} bytes in UTF-8")
    return executortype


def pack_card(card: Card) -> str:
    """The text of a card. Raises `InvalidValueError` for what none can hold."""
    _check(card)
    return f"{_PREFIX}{card.host}:{card.server}:{card.colony}:{card.code}"


def read_card(text: str) -> Card:
    """Read a card strictly. Raises `InvalidValueError`, which does not repeat its code."""
    if len(text) > MAX_CARD_CHARS:
        raise OutOfBoundsError(f"the card is longer than {MAX_CARD_CHARS} characters")
    host, server, colony, code = ["", "", "", "", *text.rsplit(":", 3)][-4:]
    if not host.startswith(_PREFIX):
        raise InvalidValueError("not a card: colonist:1:<host>:<server id>:<colony>:<code>")
    card = Card(host.removeprefix(_PREFIX), server, colony, code)
    _check(card)
    return card


def _check(card: Card) -> None:
    host = _HOST.fullmatch(card.host)
    if host is None or (host[2] is not None and int(host[2][1:]) > _MAX_PORT):
        raise InvalidValueError("the card's host is no name or address, with a port or without")
    if not is_id(card.server):
        raise InvalidValueError("the card's server id is not 64 lower-case hex characters")
    check_name(card.colony, "the card's colony")
    check_code(card.code)


def _proven(server: str, colony: str, claim: str, executor: str) -> bytes:
    return digests.tagged_text(digests.CLAIM, server, colony, claim, executor)


def _bytes_of(code: str) -> bytes:
    return base64.b32decode(code + "=" * (-len(code) % 8))
