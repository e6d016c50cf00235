"""Messages about users: COLONIES-RPC section 2.3."""

from __future__ import annotations

from colonist_protocol import user as wire
from colonist_protocol.errors import NotFoundError
from colonist_protocol.names import check_text
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony, User
from colonist_server.rpc.rooms import Call, Reply, Rooms


async def add(rooms: Rooms, call: Call, message: wire.AddUser) -> Reply:
    """Add a user."""
    warrant = call.warrant
    user = message.user
    keys.check_part(user.name, "user name")
    rooms.check_new_id(user.userid, "user Id")
    check_text(user.email, "email")
    check_text(user.phone, "phone")
    await rooms.members.add_user(user, call.colony, warrant)
    return Reply(user, event=warrant.event)


async def added_again(rooms: Rooms, call: Call, message: wire.AddUser, value: bytes) -> Reply:
    """Show the user that this request has added before."""
    del rooms, value
    user = call.colony.users.get(message.user.name)
    return Reply(_shown(call.colony, user) if user is not None else message.user)


async def list_all(rooms: Rooms, call: Call, message: wire.GetUsers) -> Reply:
    """List a colony's users."""
    del rooms, message
    return Reply([_shown(call.colony, user) for user in call.colony.users.values()])


async def get(rooms: Rooms, call: Call, message: wire.GetUser) -> Reply:
    """Read a user by name."""
    del rooms
    user = call.colony.users.get(message.name)
    if user is None:
        raise NotFoundError("Failed to get user, user is nil")
    return Reply(_shown(call.colony, user))


async def get_by_id(rooms: Rooms, call: Call, message: wire.GetUserById) -> Reply:
    """Read a user by id."""
    del rooms
    user = call.colony.members.get(message.userid)
    if not isinstance(user, User):
        raise NotFoundError("Failed to get user by ID, user is nil")
    return Reply(_shown(call.colony, user))


async def remove(rooms: Rooms, call: Call, message: wire.RemoveUser) -> Reply:
    """Remove a user."""
    warrant = call.warrant
    await rooms.members.remove_user(call.colony, message.name, warrant)
    return Reply({}, event=warrant.event)


async def change_id(rooms: Rooms, call: Call, message: wire.ChangeUserId) -> Reply:
    """Know the calling user by another id."""
    warrant = call.warrant
    rooms.check_new_id(message.userid, "new user Id")
    await rooms.identities.change_user(call.colony, call.user, message.userid, warrant)
    return Reply(message, event=warrant.event)


def _shown(colony: Colony, user: User) -> wire.User:
    return wire.User(
        colonyname=colony.record.name,
        userid=user.record.id,
        name=user.name,
        email=user.record.email,
        phone=user.record.phone,
    )
