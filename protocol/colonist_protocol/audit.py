"""The evidence of a colony as a server exports it: lines of JSON, and the messages that fetch them.

A server gives a header, all checkpoints, then all chains, one object a line; who writes a file ends
it with counts and a hash. Whatever is hashed or signed stands in it exactly as it was.

- `Checkpoint` lines in order of `k`, each followed by its `CheckpointSignature`. The first is
  k = 1 with an empty `prev`; where retention has forgotten history it has a larger k, and the
  colony's chain holds a `history_forgotten` by the server, whose `attempt` is the last k that is
  not there any more. A head may be stated again, never with a smaller n. Parts of one checkpoint
  have the same `time`; that of each other one is larger.
- Chains in order of chain id, each one `EventLine` after the other from n = 0, each followed by
  its `EventRequest` as far as the request is still kept. The request of a workflow stands beside
  the submission of its first member only: the other members' `submitted` name the same `req`.
- Of a process that was removed only the last line is left, with any n: `removed`, by the server
  (retention) or with the digest and signature of the request. Its `prev` is the head before. It may
  also follow all others, while the removal is under way.
- The colony's own chain (`colony_chain`) holds changes of members, owner and policy. It begins with
  n = 0 and `colony_added`, or with any event where the colony is older than its chain, or with a
  larger n where history was forgotten; who was a member before is then not told.
"""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.digests import CHECKPOINT, tagged_digest, tagged_text
from colonist_protocol.identity import ID_CHARS
from colonist_protocol.message import Int, Message

VERSION: Final = 1
FIRST_K: Final = 1
MAX_HEADS: Final = 4_000
"""In one checkpoint."""
REMOVED: Final = "removed"
FORGOTTEN: Final = "history_forgotten"

Head = tuple[str, int, str]
"""A chain, the number of its newest event, and the hash of that."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `via` leads from older server ids to `server`; `made` in ms since 1970."""

    colonist: str = "audit"
    v: int = VERSION
    colony: str
    server: str
    via: tuple[tuple[str, str], ...] = ()
    made: int


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the server signs: the heads that changed since the checkpoint before, by chain.

    `prev` is the digest of the line before, "" for the first; `time` in ms since 1970.
    """

    v: int = VERSION
    colony: str
    k: int
    prev: str
    time: int
    heads: tuple[Head, ...]


class CheckpointSignature(msgspec.Struct, frozen=True, kw_only=True):
    """Follows a checkpoint: the server's signature of it."""

    of: str = "checkpoint"
    k: int
    sig: str


class EventRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Follows an event: the request behind it, as its signature covers it; `seal` "": plain."""

    of: str = "event"
    payload: str
    seal: str = ""


def checkpoint_text(line: str) -> bytes:
    """What the server signs of a checkpoint's line."""
    return tagged_text(CHECKPOINT, line)


def checkpoint_digest(line: str) -> bytes:
    """What the next checkpoint names as `prev`."""
    return tagged_digest(CHECKPOINT, line)


def colony_chain(tag: str) -> str:
    """The chain of a colony itself, from the 8 hex that all its chains begin with."""
    return tag.ljust(ID_CHARS, "0")


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines of an export, without line feeds. `cursor` asks for the next; "": these end it."""

    lines: tuple[str, ...]
    cursor: str


class ProcessEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one process, with the last of them those of the checkpoint that holds the newest.

    `header` is as in an export; `cursor` asks for the lines that follow; "": these are the last.
    """

    header: str
    checkpoints: tuple[str, ...]
    lines: tuple[str, ...]
    cursor: str = ""


class GetAudit(Message, tag="getauditmsg"):
    """Export a colony's evidence, a page at a time; ours alone.

    `cursor` is what the page before gave, `size` about how many bytes a page may have (0: as the
    server likes). The lines of all pages make the file, but for its end.
    """

    colonyname: str = ""
    cursor: str = ""
    size: Int = 0


class GetEvidence(Message, tag="getevidencemsg"):
    """Read the evidence of one process, a page at a time; ours alone.

    `cursor` and `size` are as in an export.
    """

    processid: str = ""
    cursor: str = ""
    size: Int = 0


MESSAGES: Final = (GetAudit, GetEvidence)
