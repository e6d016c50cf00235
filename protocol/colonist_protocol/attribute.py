"""Attributes of processes: COLONIES-RPC sections 2.9 and 3.8."""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import Final

import msgspec

from colonist_protocol.message import Int, Message


class AttributeType(IntEnum):
    """What an attribute says of its process."""

    IN = 0
    OUT = 1
    ERR = 2
    ENV = 3


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """A key and a value at a process."""

    attributeid: str = ""
    targetid: str
    targetcolonyname: str = ""
    targetprocessgraphid: str = ""
    state: Int = 0
    attributetype: Int
    key: str
    value: str


class AddAttribute(Message, tag="addattributemsg"):
    """Set an attribute of a running process; its assignee only."""

    attribute: Attribute


class GetAttribute(Message, tag="getattributemsg"):
    """Read one attribute."""

    attributeid: str = ""


def attribute_id(target: str, key: str, kind: int) -> str:
    """The id that follows from what the attribute is (section 2.9)."""
    return hashlib.sha3_256(f"{target}{key}{kind}".encode()).hexdigest()


MESSAGES: Final = (AddAttribute, GetAttribute)
