"""Colonies: COLONIES-RPC sections 2.2 and 3.2."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.message import Message

PAUSE_STATUS_REPLY: Final = "pausestatusreplymsg"


class Colony(msgspec.Struct, frozen=True, kw_only=True):
    """A colony and the id of its owner's key."""

    colonyid: str
    name: str


class PauseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a colony hands out work."""

    msgtype: str = PAUSE_STATUS_REPLY
    colonyname: str
    ispaused: bool


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


MESSAGES: Final = (
    AddColony,
    RemoveColony,
    GetColonies,
    GetColony,
    GetColonyStatistics,
    PauseAssignments,
    ResumeAssignments,
    GetPauseStatus,
)
