"""Who may: a caller is let in once for a request, by the access rule of its message."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from colonist_core.access import Access, Standing, check_server_owner, check_standing, stranger
from colonist_protocol import claims
from colonist_protocol.errors import AccessError, PlainRefusedError
from colonist_protocol.identity import is_id
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.plain import MUST_BE_SEALED, check_plain
from colonist_server.rpc.asked import Asked
from colonist_server.rpc.rooms import Call, Rooms
from colonist_server.rpc.sealing import Asker
from colonist_server.rpc.table import Route
from colonist_server.store.interface import Guard


class Admission:
    """Lets callers in."""

    __slots__ = ("_rooms", "_server_ids")

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._server_ids = rooms.server_keys.ids

    async def let_in(self, asked: Asked) -> Call:
        """`admit`, and once more on a fresh view before anybody is refused."""
        try:
            return self.admit(asked)
        except AccessError:
            await self._rooms.freshness.fresh()
            return self.admit(asked)

    def admit(self, asked: Asked) -> Call:
        """Check the caller's access, once."""
        route, cause, payload = asked.route, asked.cause, asked.payload
        message, seal = asked.message, asked.seal
        access = route.access
        if cause.who in self._server_ids:  # a key change may bring one that is somebody's already
            raise AccessError("Access denied, the server's own key is no caller")
        if access is Access.SERVER_OWNER:
            check_server_owner(cause.who, self._rooms.owner.id)
            return Call(cause, payload, seal=seal)
        if route.scope is None:
            return Call(cause, payload, seal=seal)
        if access is Access.CLAIM and seal is None:
            raise PlainRefusedError(MUST_BE_SEALED)  # whether or not there is that colony
        colony = route.scope.find(self._rooms.view, message)
        if colony is None:
            name = "" if route.scope.by_process else route.scope.of(message)
            raise stranger(access, name[:64])
        member = colony.members.get(cause.who)
        if access is Access.CLAIM:
            self._check_claim(colony, asked)
            return Call(cause, payload, colony, seal=seal)
        check_standing(access, _standing(colony, member, cause.who, route.scope.by_process))
        if isinstance(member, Executor):
            member.heard_ns = self._rooms.clock.now_ns()
        return Call(cause, payload, colony, member, seal)

    def check_plain(self, route: Route[Any], call: Call) -> None:
        """Raise `PlainRefusedError` where only sealed requests are taken.

        An `OBJECT` has no colony yet: its handler finds that, and looks there (`Call.about`).
        """
        check_plain(call.scope, call.caller)
        if route.access is Access.SERVER_OWNER and self._rooms.about.refuses_plain:
            raise PlainRefusedError(MUST_BE_SEALED)

    def member_guard(self, asked: Asked, call: Call) -> Guard | None:
        """Holds as long as the caller is what it is."""
        if call.caller is not None:
            return Guard(call.caller.key, call.caller.revision)
        if call.scope is not None:
            return Guard(call.scope.key, call.scope.revision)
        return self._rooms.owner.guard if asked.route.access is Access.SERVER_OWNER else None

    def is_known(self, asker: Asker) -> bool:
        """Whether refusals are sealed for the caller: strangers get plain ones.

        Where no colony let it in, the refusal tells of the members of the one that knows it: so
        its bridge hears that it has been removed.
        """
        if asker.colony is None:
            asker.colony = next(self._knowing(asker.who), None)
            is_member = asker.colony is not None
        else:
            is_member = self._knows(asker.colony, asker)
        return is_member or asker.has_claim or asker.who == self._rooms.owner.id

    def _knows(self, colony: Colony, asker: Asker) -> bool:
        """Whether the caller is, or was, somebody there."""
        who = asker.who
        return (
            colony.record.owner == who
            or colony.holder(who) is not None
            or self._rooms.claims.gone.has(colony.tag, who)
        )

    def _knowing(self, who: str) -> Iterator[Colony]:
        """The colonies that know it; a stranger costs two looks, however many there are."""
        view = self._rooms.view
        for tag in chain(view.known.tags(who), self._rooms.claims.gone.known.tags(who)):
            colony = view.tags.get(tag)
            if colony is not None:  # of what is removed ids may still be there
                yield colony

    def is_somebody(self, who: str) -> bool:
        """Whether a caller owns anything here, or may act anywhere as a member."""
        return who == self._rooms.owner.id or any(
            colony.record.owner == who or _may_act(colony.members.get(who))
            for colony in self._knowing(who)
        )

    def _check_claim(self, colony: Colony, asked: Asked) -> None:
        """Raise `AccessError` unless the caller proves a claim; the cheap looks come first."""
        message, who = asked.message, asked.cause.who
        is_good = (
            isinstance(message, claims.Enrol)
            and message.executorid == who
            and is_id(message.claim)
            and self._rooms.claims.find(colony.tag, message.claim) is not None
            and any(  # the card may name the server by a key that it had
                claims.is_proof(
                    message.proof,
                    server=server,
                    colony=colony.record.name,
                    claim=message.claim,
                    executor=who,
                )
                for server in self._rooms.server_keys.ids
            )
        )
        if not is_good:
            raise stranger(Access.CLAIM, colony.record.name)


def _may_act(member: Executor | User | None) -> bool:
    return member.is_approved if isinstance(member, Executor) else member is not None


def _standing(
    colony: Colony, member: Executor | User | None, caller: str, by_process: bool
) -> Standing:
    # A refusal about a process does not tell its colony's name: the caller may not know it.
    name = "" if by_process and member is None else colony.record.name
    if isinstance(member, Executor):
        return Standing(name, colony.record.owner == caller, False, member.record.state)
    return Standing(name, colony.record.owner == caller, member is not None)
