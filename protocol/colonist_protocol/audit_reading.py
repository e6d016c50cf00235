"""Reading the lines of an audit file: each has one spelling, and an error says what is wrong where.

docs/reference/audit.md has the form and the rules. A line is canonical when what it says, encoded
again, gives the same bytes; so a changed byte either changes the meaning, which a hash or signature
covers, or is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from colonist_protocol import codec, digests
from colonist_protocol.audit import Header
from colonist_protocol.errors import SignatureError
from colonist_protocol.evidence import EventLine
from colonist_protocol.identity import ID_CHARS, is_id, parse_signature, recover_digest

MAX_LINE_BYTES: Final = 33_554_432
TAG_CHARS: Final = 8
MAX_N: Final = 2**63 - 1

EVENT_START: Final = b'{"v":1,"chain":"'
CHECKPOINT_START: Final = b'{"v":1,"colony":'
END_START: Final = b'{"end":'

T = TypeVar("T")

_SIGNATURE: Final = re.compile("[0-9a-f]{128}0[0-3]")


class AuditError(Exception):
    """What is wrong with a line; `chain` and `n` say with which event."""

    def __init__(self, text: str, *, chain: str = "", n: int = -1) -> None:
        super().__init__(text)
        self.chain = chain
        self.n = n


class Fault(NamedTuple):
    """What is wrong with a file, and where: lines count from 1, bytes from 0; n -1: no event.

    Not in the file: offset -1. A line that is not known yet: 0.
    """

    text: str
    offset: int
    line: int = 0
    chain: str = ""
    n: int = -1

    def __str__(self) -> str:
        if self.offset < 0:
            return self.text
        place = f"line {self.line}, byte {self.offset}"
        if self.chain:
            place += f", chain {self.chain}"
        if self.n >= 0:
            place += f", event {self.n}"
        return f"{place}: {self.text}"


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last line: what the file has, and the SHA3-256 of all before this line."""

    end: bool = True
    chains: int
    events: int
    checkpoints: int
    hash: str


class Counts(NamedTuple):
    """What an `End` counts."""

    chains: int = 0
    events: int = 0
    checkpoints: int = 0


def read(line: bytes, kind: type[T], name: str) -> T:
    """A line without its line feed. Raises `AuditError` for any other spelling than the one."""
    decoder = _DECODERS[kind]
    try:
        value: T = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise AuditError(f"this is no {name}") from None
    if codec.encode(value) != line:
        raise AuditError(f"this {name} is not spelled as it was signed")
    return value


def read_header(line: bytes) -> Header:
    """The first line. Raises `AuditError`."""
    header = read(line, Header, "header of an audit file")
    if header.colonist != "audit" or header.v != 1:
        raise AuditError("this is no audit file of version 1")
    if header.made < 0:
        raise AuditError("the file was made before 1970")
    return header


def read_event(line: bytes) -> EventLine:
    """An event of a chain, all of whose numbers are in bounds. Raises `AuditError`."""
    event = read(line, EventLine, "event")
    if event.v != 1 or not 0 <= event.n <= MAX_N or event.attempt < 0 or event.time < 0:
        raise AuditError("this is no event of version 1")
    if not event.what or not is_id(event.chain):
        raise AuditError("this is no event of version 1")
    return event


def signer(digest32: bytes, signature: str) -> str:
    """Whose key signed a digest. Raises `AuditError` unless the signature has its one spelling."""
    if _SIGNATURE.fullmatch(signature) is None:
        raise AuditError("the signature is not 130 lower-case hex characters")
    try:
        return recover_digest(digest32, parse_signature(signature))
    except SignatureError as error:
        raise AuditError(f"the signature fits no key: {error}") from None


class Servers:
    """The server ids of a file, oldest first, as far as the pinned one vouches for them."""

    __slots__ = ("_pinned", "_places")

    def __init__(self, header: Header, pin: str) -> None:
        """Raises `AuditError` when the keys do not follow each other, or none is the pinned one."""
        ids = [*(old for old, _ in header.via), header.server]
        if not all(map(is_id, ids)) or len(set(ids)) != len(ids):
            raise AuditError("the header's server ids are no ids, or one stands twice")
        for (old, signature), new in zip(header.via, ids[1:], strict=True):
            if signer(digests.tagged_digest(digests.KEY, old, new), signature) != old:
                raise AuditError(
                    f"the server key {old[:12]}... did not sign that {new[:12]}... follows"
                )
        if pin not in ids:
            raise AuditError(
                f"the file is of the server {header.server}, the pinned one is {pin}; if the "
                "former was its id before its key was changed, verify with --server-id "
                f"{header.server}"
            )
        self._places = {id: place for place, id in enumerate(ids)}
        self._pinned = self._places[pin]

    def place(self, id: str) -> int:
        """Which of the keys this is, from 0. Raises `AuditError` for any other id."""
        found = self._places.get(id)
        if found is None:
            raise AuditError(f"not signed by the server's key, but by {id[:12]}...")
        return found

    @property
    def ids(self) -> Iterable[str]:
        """All of them, oldest first."""
        return self._places

    def vouches(self, place: int) -> bool:
        """Whether this is the pinned key or one that it led to."""
        return place >= self._pinned

    def __contains__(self, id: object) -> bool:
        return id in self._places


def check_chain_id(chain: str, tag: str) -> None:
    """Raise `AuditError` unless this is the id of a chain of the colony."""
    if not chain.startswith(tag) or not is_id(chain):
        raise AuditError(
            f"chain {chain[:ID_CHARS]!r} is none of the colony, whose begin with {tag}"
        )


class _Decoders(dict[Any, msgspec.json.Decoder[Any]]):
    def __missing__(self, kind: Any) -> msgspec.json.Decoder[Any]:
        return self.setdefault(kind, msgspec.json.Decoder(kind))


_DECODERS: Final = _Decoders()
