"""Firings: the arguments that wait at a generator become a workflow, each of them once.

One commit guards and writes the counter `gn`, deletes exactly the argument keys it takes and makes
the workflow. What does not fit one commit goes in steps, of which each may be repeated:

1. `gf` lists the keys, in the commit that moves `gn`; from then on they do not count;
2. the workflow is staged, under an id and with a content that follow from `gf`; the commit that
   opens it says so in `gf`;
3. exactly those keys are deleted;
4. `gf` is deleted.

Never a delete-range: an argument that comes late may sort between those that are taken.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from colonist_protocol.errors import ConflictError, ContendedError
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.definitions import (
    MAX_REASON_CHARS,
    REFUSED,
    HeldError,
    creator_of,
    spec_of,
    why_held,
)
from colonist_server.repo.generator import Generator, UnderWay
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.records import FiringRecord, FiringsRecord, GeneratorRecord, encode
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import MAX_OPS, Delete, Guard, Item, Op, Put

log = logging.getLogger(__name__)

_OWN_GUARDS: Final = 4


class Firings:
    """Fires generators; at most one call at a time for each."""

    __slots__ = ("_clock", "_workflows", "_writes")

    def __init__(self, writes: Writes, workflows: Workflows, clock: Clock) -> None:
        self._writes = writes
        self._workflows = workflows
        self._clock = clock

    async def serve(self, generator: Generator, due: bytes | None = None) -> None:
        """Finish what is under way, then fire as often as there are arguments for.

        `due`: an argument whose time is over. Raises `UnavailableError`, `ContendedError`,
        `HeldError` while its creator may not work, and `ConflictError` while what an earlier try
        has staged is being swept away.
        """
        for number in sorted(generator.under_way):
            await self._finish(generator, number)
        lost = 0
        while generator.ready(due):
            colony = self._colony(generator)
            if colony is None:
                return  # it is being swept
            if await self._fire(generator, colony, due):
                lost = 0
                continue
            lost += 1
            if lost == ATTEMPTS:
                raise ContendedError("a generator changed too often while it was fired")

    async def _fire(self, generator: Generator, colony: Colony, due: bytes | None) -> bool:
        """One firing, or none where it cannot start any more; False when it was raced."""
        record = generator.definition
        creator = creator_of(colony, record)
        if creator is None:
            raise HeldError(why_held(colony, record))
        guards = _guards(generator, colony, creator)
        taken = FiringRecord(
            fired_ns=self._clock.now_ns(),
            suffixes=tuple(generator.first(generator.ready(due))),
            initiator_id=creator.record.id,
            initiator=creator.name,
        )
        before = generator.firings
        after = FiringsRecord(
            count=before.count + 1,
            last_ns=taken.fired_ns,
            first_pack_ns=generator.first_pack_ns(),
        )
        items = await self._writes.refresh(_argument_keys(generator, taken))
        values = [item.value for item in items if item is not None]
        if len(values) < len(items):
            return False  # another node has fired, and this one has not heard of it yet
        try:
            new = self._plan(
                colony, generator, record, number=after.count, taken=taken, values=values
            )
        except REFUSED as error:
            return await self._disable(generator, str(error))
        moved = Put(keys.firings(generator.gid), encode(after))
        deletes = [Delete(key) for key in _argument_keys(generator, taken)]
        if _fits(new, deletes):
            return await self._fire_at_once(new, guards, [moved, *deletes])
        return await self._fire_in_steps(generator, after.count, taken, guards, moved)

    async def _fire_at_once(
        self, new: NewWorkflow, guards: Sequence[Guard], ops: Sequence[Op]
    ) -> bool:
        merged = tuple({guard.key: guard for guard in (*new.guards, *guards)}.values())
        if await self._writes.commit(merged, (*ops, *new.ops)) is None:
            await self._writes.refresh([guard.key for guard in merged])
            return False
        self._workflows.committed(new)
        return True

    async def _fire_in_steps(
        self,
        generator: Generator,
        number: int,
        taken: FiringRecord,
        guards: Sequence[Guard],
        moved: Put,
    ) -> bool:
        key = keys.firing(generator.gid, number)
        guards = [*guards, Guard(key, 0)]
        if await self._writes.commit(guards, [moved, Put(key, encode(taken))]) is None:
            await self._writes.refresh([guard.key for guard in guards])
            return False
        await self._finish(generator, number)
        return True

    async def _finish(self, generator: Generator, number: int) -> None:
        """Steps 2 to 4, from wherever they were left."""
        under_way = generator.under_way.get(number)
        colony = self._colony(generator)
        record = generator.record
        if under_way is None or colony is None or record is None:
            return  # who removes a generator, or its colony, sweeps this too
        taken = under_way.record
        found = await self._writes.read_many(_argument_keys(generator, taken))
        items = [item for item in found if item is not None]
        if not taken.is_made and len(items) == len(found):
            try:
                values = [item.value for item in items]
                new = self._plan(
                    colony, generator, record, number=number, taken=taken, values=values
                )
            except REFUSED as error:
                await self._give_up(generator, number, under_way, str(error))
                return
            await self._workflows.stage(new, also=lambda: _made(generator, number))
        await self._delete(items)
        await self._clear(generator, number)

    async def _clear(self, generator: Generator, number: int) -> None:
        under_way = generator.under_way.get(number)
        if under_way is None:
            return  # another node has finished it
        key = keys.firing(generator.gid, number)
        if await self._writes.commit([Guard(key, under_way.revision)], [Delete(key)]) is None:
            await self._writes.refresh([key])

    async def _delete(self, items: Sequence[Item]) -> None:
        """Delete exactly these keys. One that is gone already was deleted by whoever was here."""
        for start in range(0, len(items), MAX_OPS):
            part = list(items[start : start + MAX_OPS])
            while part:
                guards = [Guard(item.key, item.modified) for item in part]
                if await self._writes.commit(guards, [Delete(item.key) for item in part]):
                    break
                again = await self._writes.refresh([item.key for item in part])
                part = [item for item in again if item is not None]

    def _plan(
        self,
        colony: Colony,
        generator: Generator,
        record: GeneratorRecord,
        *,
        number: int,
        taken: FiringRecord,
        values: Sequence[bytes],
    ) -> NewWorkflow:
        """The workflow of a firing: the same, whoever makes it and however often."""
        mark = hashlib.sha3_256(generator.gid + number.to_bytes(8, "big")).digest()
        return self._workflows.plan(
            colony,
            spec_of(record.spec, colony),
            wid=keys.workflow_id(colony.tag, taken.fired_ns, mark),
            now_ns=taken.fired_ns,
            initiator_id=taken.initiator_id,
            initiator=taken.initiator,
            source=generator.gid,
            args=msgspec.Raw(b"[" + b",".join(values) + b"]"),
        )

    # -- when it cannot start

    async def _disable(
        self,
        generator: Generator,
        reason: str,
        guards: Sequence[Guard] = (),
        ops: Sequence[Op] = (),
    ) -> bool:
        """Start nothing any more and say why; False when it was raced."""
        record = generator.definition
        key = keys.generator(generator.gid)
        after = msgspec.structs.replace(record, disabled=reason[:MAX_REASON_CHARS])
        guards = [Guard(key, generator.revision), *guards]
        if await self._writes.commit(guards, [Put(key, encode(after)), *ops]) is None:
            await self._writes.refresh([guard.key for guard in guards])
            return False
        log.warning("disabled generator=%s: %s", generator.id, reason)
        return True

    async def _give_up(
        self, generator: Generator, number: int, under_way: UnderWay, reason: str
    ) -> None:
        """Forget a firing that cannot be staged: its arguments wait again."""
        key = keys.firing(generator.gid, number)
        await self._disable(generator, reason, [Guard(key, under_way.revision)], [Delete(key)])

    def _colony(self, generator: Generator) -> Colony | None:
        return self._writes.view.tags.get(generator.tag)


def _made(generator: Generator, number: int) -> Plan:
    """Note that the workflow of a firing is there, in the commit that opens it."""
    under_way = generator.under_way.get(number)
    if under_way is None or under_way.record.is_made:
        raise ConflictError("another node has finished the firing")
    key = keys.firing(generator.gid, number)
    record = msgspec.structs.replace(under_way.record, is_made=True)
    return Plan([Guard(key, under_way.revision)], [Put(key, encode(record))])


def _guards(generator: Generator, colony: Colony, creator: Executor | User) -> list[Guard]:
    return [
        Guard(keys.generator(generator.gid), generator.revision),
        Guard(keys.firings(generator.gid), generator.firings_revision),
        Guard(colony.key, colony.revision),
        Guard(creator.key, creator.revision),
    ]


def _argument_keys(generator: Generator, taken: FiringRecord) -> list[bytes]:
    return [keys.argument(generator.gid, suffix) for suffix in taken.suffixes]


def _fits(new: NewWorkflow, deletes: Sequence[Delete]) -> bool:
    size = sum(len(op.key) for op in deletes) + keys.MAX_NAME_BYTES  # the counter is small
    return len(new.guards) + _OWN_GUARDS <= MAX_OPS and new.fits(len(deletes) + 1, size)
