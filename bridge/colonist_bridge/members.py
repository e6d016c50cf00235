"""Who is a member of the bridge's colony, as the server last said.

A bridge with a key of its own asks for the list, and asks anew when a sealed reply that passes
tells of another revision: that is how it hears of a removal at its next contact. What the server
holds for whoever is no member any more is given up. Others' requests pass all the same, the server
judges them; but only so many at once, lest strangers take the places of members.

Without a key nothing is known, and nobody is an outsider.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from colonist_bridge.counts import Counts
from colonist_bridge.reply import Reply
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff
from colonist_client.sealer import NotGenuineError, Pin, Sealer
from colonist_client.transport import Transport, UnreachableError
from colonist_protocol import codec
from colonist_protocol.envelope import Failure, Genuine, open_sealed_reply
from colonist_protocol.errors import AccessError, ColonistError
from colonist_protocol.executor import Executor, ExecutorState, GetExecutors
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.user import GetUsers, User

ASK_S: Final = 20.0
SOONEST_S: Final = 1.0
"""So long between two looks, however often the revision changes."""
OUTSIDE_S: Final = 30.0
"""And so long, where it is a reply to no member that tells of another one."""
REFUSED_S: Final = 30.0
"""And so long, where somebody has to act first."""
TRIES: Final = 3

_ADMITTED: Final = (ExecutorState.PENDING, ExecutorState.APPROVED)
_STALE: Final = "epoch_stale"
_REMEDY: Final = (
    "it forwards as before, but does not hear of removals: the colony's owner has to add the id of "
    "key_file; where its key was changed, start the bridge again with the new one"
)

log = logging.getLogger(__name__)


class Members:
    """The list, and when it has to be asked for. `run` keeps it."""

    def __init__(
        self,
        transport: Transport,
        identity: Identity,
        pin: Pin,
        *,
        colony: str,
        withdraw: Callable[[str], None],
        backoff: Backoff,
        counts: Counts,
    ) -> None:
        """`withdraw` is told of each id that is a member's no more."""
        self._transport = transport
        self._pin = pin
        self._sealer = Sealer(pin, identity, lambda: asyncio.get_running_loop().time())
        self._colony = colony
        self._withdraw = withdraw
        self._backoff = backoff
        self._counts = counts
        self._ids: frozenset[str] | None = None
        self._news = asyncio.Event()
        self._news.set()
        self._outside_at = 0.0
        self.revision = 0

    def is_outside(self, device: str) -> bool:
        """Whether it is known that an id is no member's."""
        return self._ids is not None and device not in self._ids

    def heard(self, reply: Reply) -> None:
        """A reply passed: look at the list again where it tells of another revision.

        One to somebody who is no member may tell of another colony's, or the somebody is new.
        """
        seal = reply.seal
        if seal is None or not seal.members or seal.members == self.revision or self._news.is_set():
            return
        now = asyncio.get_running_loop().time()
        if self.is_outside(seal.to) and now < self._outside_at:
            return
        try:
            open_sealed_reply(
                reply.body, server=self._pin.id, caller=seal.to, re=seal.re, index=seal.index
            )
        except ColonistError:
            return
        self._outside_at = now + OUTSIDE_S
        self._news.set()

    async def run(self) -> None:
        """Ask whenever there is news; ends when cancelled."""
        failures = 0
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._look()
            except ColonistError as error:
                failures += 1
                self._counts.add("members_unknown")
                is_refused = _is_refused(error)
                told = f"{error}; {_REMEDY}" if is_refused else str(error)
                log.warning("the list of members cannot be read: %s", told)
                at_least_s = REFUSED_S if is_refused else SOONEST_S
                await asyncio.sleep(self._backoff.delay_s(failures, at_least_s=at_least_s))
                self._news.set()
            else:
                failures = 0
                await asyncio.sleep(SOONEST_S)

    async def _look(self) -> None:
        """Ask until both lists are of one revision. Raises `ColonistError`."""
        for _ in range(TRIES):
            executors = await self._ask(GetExecutors(colonyname=self._colony))
            users = await self._ask(GetUsers(colonyname=self._colony))
            if executors.seal.members == users.seal.members:
                self._take(_ids(executors, users), users.seal.members)
                return
        raise UnreachableError("members change faster than they can be read")

    def _take(self, ids: frozenset[str], revision: int) -> None:
        gone = (self._ids or frozenset()) - ids
        self._ids, self.revision = ids, revision
        self._counts.add("members_read")
        for id in gone:
            self._counts.add("member_gone")
            self._withdraw(id)

    async def _ask(self, message: Message) -> Genuine:
        request = self._sealer.seal(message)
        for _ in range(TRIES):
            raw = await self._transport.exchange(request.body, wait_s=ASK_S)
            genuine = self._sealer.opened(request, raw)
            if not isinstance(genuine.reply, Failure):
                return genuine
            if genuine.reply.code != _STALE:
                raise ServerError(genuine.reply)
            self._sealer.seal_anew(request)
        raise UnreachableError(f"{message.msgtype()}: no token of the server is of now")


def _is_refused(error: ColonistError) -> bool:
    """Whether the key is the matter. Whom a server does not know, it tells so without signing."""
    code = error.said_code if isinstance(error, NotGenuineError) else error.code
    return code == AccessError.code


def _ids(executors: Genuine, users: Genuine) -> frozenset[str]:
    workers = codec.decode(_payload(executors), list[Executor], "executors")
    people = codec.decode(_payload(users), list[User], "users")
    admitted = {each.executorid for each in workers if each.state in _ADMITTED}
    return frozenset(admitted | {each.userid for each in people})


def _payload(genuine: Genuine) -> bytes:
    return genuine.reply if isinstance(genuine.reply, bytes) else b"[]"
