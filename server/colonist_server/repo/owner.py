"""The server's owner: as configured, until it has changed its id; from then on as stored."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from colonist_protocol.errors import AccessError, CorruptRecordError
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.nodes import Node
from colonist_server.repo.records import OwnerRecord, decode_owner, encode
from colonist_server.repo.trail import Warrant
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Guard, Put, Revision, Store

log = logging.getLogger(__name__)


async def stored_owner(store: Store) -> str | None:
    """Whom a store names as its owner, "" where it names nobody; None: no server was at work."""
    schema, item = await store.get_many([keys.SCHEMA, keys.OWNER])
    if item is None:
        return None if schema is None else ""
    try:
        return decode_owner(item.value).id
    except CorruptRecordError:
        return ""


class Owner:
    """Whom the server obeys. What is stored wins over what is configured."""

    __slots__ = ("_clock", "_configured", "_revision", "_stored", "_writes")

    def __init__(self, writes: Writes, clock: Clock, configured: str) -> None:
        self._writes = writes
        self._clock = clock
        self._configured = configured
        self._stored = ""
        self._revision: Revision = 0
        writes.view.hold(keys.OWNER, self._apply, self._held)

    @property
    def id(self) -> str:
        """The id whose requests count as the server owner's now."""
        if keys.OWNER in self._writes.view.corrupt:
            raise CorruptRecordError("who the server's owner is cannot be read")
        return self._stored or self._configured

    @property
    def guard(self) -> Guard:
        """Holds as long as nobody else is the owner."""
        return Guard(keys.OWNER, self._revision)

    @property
    def is_changed(self) -> bool:
        """Whether the store names another owner than the configuration."""
        return bool(self._stored) and self._stored != self._configured

    @property
    def configured(self) -> str:
        """Whom the configuration names."""
        return self._configured

    def usurped(self, server_ids: Collection[str]) -> str:
        """Why the server cannot obey whoever it is told to: that is itself; "" if it is not."""
        id = self._stored or self._configured
        if id not in server_ids:
            return ""
        return (
            f"the server's owner {id} has a key of the server's own (server.key, .next or .N), "
            "which is nobody's: give COLONIES_SERVER_ID the id of another key, or put another "
            "server-owner.key into the folder of keys"
        )

    def disagreement(self, others: Iterable[Node]) -> str:
        """Why the nodes of a store do not obey the same owner; "" when they do."""
        if self._stored:
            return ""
        for node in others:
            told = node.record.owner
            if told and told != self._configured:
                return (
                    f"this server is told to obey the owner {self._configured}, but node "
                    f"{node.name!r} on the same store {told}: give all nodes the same "
                    "COLONIES_SERVER_ID, or copies of one folder of keys"
                )
        return ""

    async def change(self, new: str, warrant: Warrant) -> None:
        """Obey another id from now on. Raises `AccessError` when the caller is it no more."""

        def decide() -> Plan:
            who = warrant.cause.who
            if self.id != who:
                raise AccessError("Access denied, not server owner")
            record = OwnerRecord(
                id=new,
                former=who,
                time_ns=self._clock.now_ns(),
                payload=warrant.payload,
                signature=warrant.cause.signature,
            )
            return Plan([Guard(keys.OWNER, self._revision)], [Put(keys.OWNER, encode(record))])

        if new == warrant.cause.who:
            return
        await self._writes.apply(decide)
        log.warning("the server owner's id is now %s; %s", new, _ADVICE.format(id=new))

    def tell(self) -> None:
        """Say in the log what to do when the configuration names another owner than the store."""
        if self.is_changed:
            log.warning(
                "the configured server owner id=%s is refused, its id was changed to %s; %s",
                self._configured,
                self.id,
                _ADVICE.format(id=self.id),
            )

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        if key != keys.OWNER or revision <= self._revision:
            return
        self._stored = decode_owner(value).id if value is not None else ""
        self._revision = revision if value is not None else 0

    def _held(self) -> set[bytes]:
        return {keys.OWNER} if self._stored else set()


_ADVICE = (
    "set COLONIES_SERVER_ID={id}, or put the new key in the place of server-owner.key "
    "(docs/howto/rotate-keys.md)"
)
