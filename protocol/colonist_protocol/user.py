"""Users: COLONIES-RPC sections 2.3 and 3.2."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.message import Message


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person or program that may submit to a colony and read in it."""

    colonyname: str
    userid: str
    name: str
    email: str = ""
    phone: str = ""


class AddUser(Message, tag="addusermsg"):
    """Add a user."""

    user: User


class GetUsers(Message, tag="getusersmsg"):
    """List a colony's users."""

    colonyname: str = ""


class GetUser(Message, tag="getusermsg"):
    """Read a user by name."""

    colonyname: str = ""
    name: str = ""


class GetUserById(Message, tag="getuserbyidmsg"):
    """Read a user by id."""

    colonyname: str = ""
    userid: str = ""


class RemoveUser(Message, tag="removeusermsg"):
    """Remove a user."""

    colonyname: str = ""
    name: str = ""


class ChangeUserId(Message, tag="changeuseridmsg"):
    """Give the calling user a new id; signed with the old key, which is refused from then on."""

    colonyname: str = ""
    userid: str = ""


MESSAGES: Final = (AddUser, GetUsers, GetUser, GetUserById, RemoveUser, ChangeUserId)
