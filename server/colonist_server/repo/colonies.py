"""Colonies: found, pause, resume, remove."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from colonist_protocol.errors import AccessError, ExistsError
from colonist_server.repo import keys
from colonist_server.repo.clock import Entropy
from colonist_server.repo.records import ColonyRecord, encode
from colonist_server.repo.view import Colony, View
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Delete, DeleteRange, Guard, Put

log = logging.getLogger(__name__)

IDENTITIES_PER_COMMIT: Final = 100


class Colonies:
    """What happens to colonies."""

    __slots__ = ("_entropy", "_view", "_writes")

    def __init__(self, writes: Writes, entropy: Entropy) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._entropy = entropy

    async def add(self, name: str, owner: str) -> None:
        """Found a colony. Raises `ExistsError` for a name or an owner that is taken."""

        def decide() -> Plan:
            if name in self._view.colonies:
                raise ExistsError(f"A Colony with name <{name}> already exists")
            if any(colony.record.owner == owner for colony in self._view.colonies.values()):
                raise ExistsError("A Colony with that id already exists")
            tag = self._entropy(keys.TAG_BYTES)
            return Plan(
                [
                    Guard(keys.colony_name(name), 0),
                    Guard(keys.colony(tag), 0),
                    Guard(keys.remains(tag), 0),
                    Guard(keys.identity(owner, b""), 0),
                ],
                [
                    Put(keys.colony(tag), encode(ColonyRecord(name=name, owner=owner))),
                    Put(keys.colony_name(name), tag),
                    Put(keys.identity(owner, b""), tag),
                ],
            )

        await self._writes.apply(decide)

    async def pause(self, colony: Colony, *, is_paused: bool) -> None:
        """Stop or start handing out the colony's work; saying it twice is no error."""

        def decide() -> Plan:
            check_there(colony)
            record = msgspec.structs.replace(colony.record, is_paused=is_paused)
            return Plan([Guard(colony.key, colony.revision)], [Put(colony.key, encode(record))])

        await self._writes.apply(decide)

    async def remove(self, colony: Colony) -> None:
        """Remove a colony at once; what is in it is deleted after."""

        def decide() -> Plan:
            check_there(colony)
            return Plan(
                [Guard(colony.key, colony.revision), Guard(keys.remains(colony.tag), 0)],
                [
                    Delete(colony.key),
                    Delete(keys.colony_name(colony.record.name)),
                    Delete(keys.identity(colony.record.owner, b"")),
                    Put(keys.remains(colony.tag), b""),
                ],
            )

        await self._writes.apply(decide)
        await self.sweep(colony.tag)

    async def sweep(self, tag: bytes) -> None:
        """Delete all that a removed colony left; interrupted, it is done again at the next start."""
        mark = await self._writes.read(keys.remains(tag))
        if mark is None:
            return
        ops = [DeleteRange(prefix + tag) for prefix in keys.BY_TAG]
        await self._writes.commit([Guard(mark.key, mark.modified)], [Delete(mark.key), *ops])
        log.info("swept colony=%s", tag.hex())

    async def sweep_remains(self) -> None:
        """Finish the removals that a stop interrupted."""
        for item in (await self._writes.range(keys.REMAINS, keys_only=True)).items:
            await self.sweep(item.key[len(keys.REMAINS) :])


def check_there(colony: Colony) -> None:
    """Raise `AccessError` when the colony was removed meanwhile."""
    if colony.is_gone:
        raise AccessError(f"Colony with name <{colony.record.name}> does not exists")
