"""Colonies: found, pause, resume, remove."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from colonist_protocol.errors import AccessError, ExistsError, UnavailableError
from colonist_server.repo import keys
from colonist_server.repo.births import env_ids
from colonist_server.repo.clock import Entropy
from colonist_server.repo.epochs import Epochs
from colonist_server.repo.nouns import Colony
from colonist_server.repo.past_removal import PastRemoval
from colonist_server.repo.records import (
    ColonyRecord,
    all_ids,
    decode_executor,
    decode_user,
    encode,
)
from colonist_server.repo.trail import Changed, Trail, Warrant
from colonist_server.repo.view import View
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import (
    MAX_OPS,
    Delete,
    Guard,
    Item,
    Op,
    Put,
    Range,
    Revision,
)

log = logging.getLogger(__name__)

_PAGE: Final = 50

Elsewhere = Callable[[Item], list[bytes]]
"""The keys outside of a colony's tag that an item in it accounts for."""


class Colonies:
    """What happens to colonies."""

    __slots__ = ("_entropy", "_epochs", "_past_removal", "_trail", "_view", "_writes")

    def __init__(
        self,
        writes: Writes,
        entropy: Entropy,
        trail: Trail,
        past_removal: PastRemoval,
        epochs: Epochs,
    ) -> None:
        self._writes = writes
        self._epochs = epochs
        self._past_removal = past_removal
        self._trail = trail
        self._view: View = writes.view
        self._entropy = entropy

    async def add(self, name: str, owner: str, warrant: Warrant) -> None:
        """Found a colony. Raises `ExistsError` for a name or an owner that is taken."""

        def decide() -> Plan:
            if name in self._view.colonies:
                raise ExistsError(f"A Colony with name <{name}> already exists")
            check_owner_free(self._view, owner)
            tag = self._entropy(keys.TAG_BYTES)
            record = ColonyRecord(name=name, owner=owner, since_n=self._epochs.since_n)
            plan = Plan(
                [
                    Guard(keys.colony_name(name), 0),
                    Guard(keys.colony(tag), 0),
                    Guard(keys.remains(tag), 0),
                    Guard(keys.identity(owner, b""), 0),
                    self._epochs.guard,
                ],
                [
                    Put(keys.colony(tag), encode(record)),
                    Put(keys.colony_name(name), tag),
                    Put(keys.identity(owner, b""), tag),
                ],
            )
            return self._trail.joined(plan, tag, Changed.COLONY_ADDED, name, warrant)

        await self._writes.apply(decide)

    async def pause(self, colony: Colony, warrant: Warrant, *, is_paused: bool) -> None:
        """Stop or start handing out the colony's work; saying it twice is no error."""

        def decide() -> Plan:
            check_there(colony)
            record = msgspec.structs.replace(colony.record, is_paused=is_paused)
            what = Changed.PAUSED if is_paused else Changed.RESUMED
            plan = Plan([Guard(colony.key, colony.revision)], [Put(colony.key, encode(record))])
            return self._trail.joined(plan, colony.tag, what, "", warrant)

        await self._trail.apply(colony.tag, decide)

    async def refuse_plain(self, colony: Colony, warrant: Warrant, *, refuses: bool) -> None:
        """Settle whether all requests in it must be sealed; saying it twice is no error."""

        def decide() -> Plan:
            check_there(colony)
            record = msgspec.structs.replace(colony.record, refuses_plain=refuses)
            plan = Plan([Guard(colony.key, colony.revision)], [Put(colony.key, encode(record))])
            return self._trail.joined(plan, colony.tag, Changed.POLICY, "", warrant)

        await self._trail.apply(colony.tag, decide)

    async def remove(self, colony: Colony) -> None:
        """Remove a colony at once; what is in it is deleted after."""

        def decide() -> Plan:
            check_there(colony)
            minute = self._epochs.removing_colony()
            return Plan(
                [
                    Guard(colony.key, colony.revision),
                    Guard(keys.remains(colony.tag), 0),
                    *minute.guards,
                ],
                [
                    *minute.ops,
                    Delete(colony.key),
                    Delete(keys.colony_name(colony.record.name)),
                    Delete(keys.identity(colony.record.owner, b"")),
                    Put(keys.remains(colony.tag), b""),
                ],
            )

        await self._writes.apply(decide)
        try:
            await self.sweep(colony.tag)
        except UnavailableError as error:
            log.warning("the next leader sweeps colony=%s: %s", colony.tag.hex(), error)

    async def sweep(self, tag: bytes) -> None:
        """Delete all that a removed colony left; the next start finishes what a stop interrupts.

        The heads of workflows and the live parts go first: without those nothing is added to a
        workflow, nor to a process. A little at a time, so that others' commits are not held up
        however large the colony was.
        """
        mark = await self._writes.read(keys.remains(tag))
        if mark is None:
            return
        revision = await self._sweep_pages(tag, keys.WORKFLOW, mark.modified)
        revision = await self._sweep_pages(tag, keys.LIVE, revision)
        if revision is None:
            return  # another sweep is at it
        for prefix, elsewhere in _elsewhere(tag).items():
            await self._sweep_range(prefix + tag, elsewhere)
        await self._past_removal.sweep(tag)
        for prefix in keys.BY_TAG:
            revision = await self._sweep_pages(tag, prefix, revision)
        if revision is not None:  # else another sweep is at it
            key = keys.remains(tag)
            await self._writes.commit([Guard(key, revision)], [Delete(key)])
            log.info("swept colony=%s", tag.hex())

    async def _sweep_pages(
        self, tag: bytes, prefix: bytes, revision: Revision | None
    ) -> Revision | None:
        """Delete what is left under a prefix; the mark's revision, None when it is another's."""
        key = keys.remains(tag)
        while revision is not None:
            page = await self._writes.range(prefix + tag, limit=MAX_OPS - 1, keys_only=True)
            if not page.items:
                break
            deletes = [Delete(item.key) for item in page.items]
            revision = await self._writes.commit([Guard(key, revision)], [Put(key, b""), *deletes])
        return revision

    async def _sweep_range(self, prefix: bytes, elsewhere: Elsewhere) -> None:
        """Delete what items account for elsewhere, together with them."""
        after = b""
        while True:
            page = await self._writes.range(prefix, after=after, limit=_PAGE)
            guards, ops, after = _batch(page, elsewhere)
            if guards:
                await self._writes.commit(guards, ops)
            elif not page.more:
                return

    async def sweep_remains(self) -> None:
        """Finish the removals that a stop interrupted."""
        for item in (await self._writes.range(keys.REMAINS, keys_only=True)).items:
            await self.sweep(item.key[len(keys.REMAINS) :])


def _elsewhere(tag: bytes) -> dict[bytes, Elsewhere]:
    """By prefix: identities of members, and the index of attributes."""
    return {
        keys.EXECUTOR: lambda item: [
            keys.identity(id, tag) for id in all_ids(decode_executor(item.value))
        ],
        keys.USER: lambda item: [keys.identity(id, tag) for id in all_ids(decode_user(item.value))],
        keys.ATTRIBUTE: lambda item: [
            keys.attribute_index(item.key[-keys.ATTRIBUTE_BYTES :].hex())
        ],
        keys.BIRTH: lambda item: [keys.attribute_index(id) for id in env_ids(item)],
    }


def _batch(page: Range, elsewhere: Elsewhere) -> tuple[list[Guard], list[Op], bytes]:
    """Deletes for as many items as one commit holds; then the last key that was looked at."""
    guards: list[Guard] = []
    ops: list[Op] = []
    after = b""
    for item in page.items:
        others = elsewhere(item)
        if len(ops) + 1 + len(others) > MAX_OPS:
            break
        after = item.key
        if others:
            guards.append(Guard(item.key, item.modified))
            ops += [Delete(item.key), *map(Delete, others)]
    return guards, ops, after


def check_owner_free(view: View, id: str) -> None:
    """Raise `ExistsError` when the id owns a colony."""
    if any(colony.record.owner == id for colony in view.colonies.values()):
        raise ExistsError("A Colony with that id already exists")


def check_there(colony: Colony) -> None:
    """Raise `AccessError` when the colony was removed meanwhile."""
    if colony.is_gone:
        raise AccessError(f"Colony with name <{colony.record.name}> does not exists")
