"""Colonies: COLONIES-RPC sections 2.2 and 3.2."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from colonist_protocol.message import Int, Message

PAUSE_STATUS_REPLY: Final = "pausestatusreplymsg"
MAX_CHANGES: Final = 100


class Colony(msgspec.Struct, frozen=True, kw_only=True):
    """A colony and the id of its owner's key."""

    colonyid: str
    name: str


class PauseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a colony hands out work."""

    msgtype: str = PAUSE_STATUS_REPLY
    colonyname: str
    ispaused: bool


class MemberChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a colony's members, owner or pause, with the request that caused it.

    `by` is the id that signed; "" with no digest: the server itself. `payload` is the base64 text
    that `signature` covers, together with `seal` where the request was sealed; "" where it was too
    long to keep. `digest` is what was signed.
    """

    what: str
    name: str = ""
    by: str = ""
    timestamp: Int
    digest: str = ""
    signature: str = ""
    payload: str = ""
    seal: str = ""


class PlainRequests(StrEnum):
    """What becomes of a colony's requests that are not sealed."""

    ALLOW = "allow"
    REFUSE = "refuse"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a colony's owner has settled for all in it."""

    colonyname: str
    plainrequests: str


class AddColony(Message, tag="addcolonymsg"):
    """Found a colony."""

    colony: Colony


class RemoveColony(Message, tag="removecolonymsg"):
    """Remove a colony with all that is in it."""

    colonyname: str = ""


class GetColonies(Message, tag="getcoloniesmsg"):
    """List all colonies."""


class GetColony(Message, tag="getcolonymsg"):
    """Read one colony."""

    colonyname: str = ""


class GetColonyStatistics(Message, tag="getcolonystatsmsg"):
    """Count what is in a colony."""

    colonyname: str = ""


class PauseAssignments(Message, tag="pauseassignmentsmsg"):
    """Stop handing out work."""

    colonyname: str = ""


class ResumeAssignments(Message, tag="resumeassignmentsmsg"):
    """Hand out work again."""

    colonyname: str = ""


class GetPauseStatus(Message, tag="getpausestatusmsg"):
    """Ask whether a colony is paused."""

    colonyname: str = ""


class ChangeColonyId(Message, tag="changecolonyidmsg"):
    """Give the colony's owner a new id; signed with the old key, which is refused from then on."""

    colonyname: str = ""
    colonyid: str = ""


class GetMemberHistory(Message, tag="getmemberhistorymsg"):
    """Read who changed what about a colony's members and owner, newest first; ours alone.

    Changes after `since`, and before `before` unless that is 0; both in nanoseconds since 1970.
    """

    colonyname: str = ""
    count: Int = MAX_CHANGES
    since: Int = 0
    before: Int = 0


class SetPolicy(Message, tag="setpolicymsg"):
    """Settle what a colony takes; ours alone. `plainrequests` is `allow` or `refuse`."""

    colonyname: str = ""
    plainrequests: str = PlainRequests.ALLOW


class GetPolicy(Message, tag="getpolicymsg"):
    """Read what a colony takes; ours alone."""

    colonyname: str = ""


MESSAGES: Final = (
    AddColony,
    RemoveColony,
    GetColonies,
    GetColony,
    GetColonyStatistics,
    PauseAssignments,
    ResumeAssignments,
    GetPauseStatus,
    ChangeColonyId,
    GetMemberHistory,
    SetPolicy,
    GetPolicy,
)
