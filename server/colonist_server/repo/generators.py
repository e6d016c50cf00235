"""Generators: added, packed, removed (COLONIES-RPC sections 2.8 and 4.8). `firings` fires them.

A pack writes one key and reads nothing: it guards the definition, which is seldom written, so packs
do not meet each other. A removal deletes the definition first; from then on nothing can be added.
"""

from __future__ import annotations

from typing import Final

from colonist_protocol import generator as wire
from colonist_protocol.errors import (
    BusyError,
    ConflictError,
    ExistsError,
    NotFoundError,
)
from colonist_protocol.workflow import WorkflowSpec
from colonist_server.repo import keys, once
from colonist_server.repo.budget import check_specs
from colonist_server.repo.clock import Clock, Entropy
from colonist_server.repo.colonies import check_there
from colonist_server.repo.definitions import Slot, adding, kind_of, removing, spec_of
from colonist_server.repo.generator import Generator
from colonist_server.repo.generator_view import GeneratorView
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.records import GeneratorRecord, encode
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import MAX_OPS, Delete, Guard, Put

_SUFFIX_RANDOM: Final = 8
_REMAINS: Final = (keys.ARGUMENT, keys.FIRING, keys.FIRINGS)


class Generators:
    """What happens to generators at their callers' word."""

    __slots__ = ("_clock", "_entropy", "_workflows", "_writes", "view")

    def __init__(
        self,
        writes: Writes,
        view: GeneratorView,
        workflows: Workflows,
        *,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._writes = writes
        self.view = view
        self._workflows = workflows
        self._clock = clock
        self._entropy = entropy

    async def add(
        self, colony: Colony, member: Executor | User, wanted: wire.Generator
    ) -> Generator:
        """Make a generator. Raises `InvalidValueError`, `ExistsError`, `BusyError`."""
        wire.check(wanted)
        spec = spec_of(wanted.workflowspec, colony)
        self._workflows.check(colony, spec)
        gid = keys.definition_id(colony.tag, self._clock.now_ns(), self._entropy(keys.RANDOM_BYTES))
        once.say(gid)
        slot = Slot(keys.generator(gid), keys.generator_name(colony.tag, wanted.name))
        record = GeneratorRecord(
            name=wanted.name,
            spec=wanted.workflowspec,
            trigger=wanted.trigger,
            timeout_s=wanted.timeout,
            largest=wire.largest_argument(wanted.trigger, _roots(spec)),
            initiator_id=member.record.id,
            initiator=member.name,
            creator_kind=kind_of(member),
        )

        def decide() -> Plan:
            check_there(colony)
            if slot.name in self.view.names:
                raise ExistsError(
                    f"Generator with name <{wanted.name}> in Colony <{colony.record.name}> "
                    "already exists"
                )
            # Not guarded: of many that are added at once, a few may come in above the limit.
            others = self.view.of(colony.tag)
            if len(others) >= wire.MAX_GENERATORS:
                raise BusyError(f"the colony has {wire.MAX_GENERATORS} generators already")
            check_specs((each.definition.spec for each in others), record.spec, "generators")
            return adding(slot, gid, encode(record), colony, member)

        await self._writes.apply(decide)
        return self._existing(gid, "Failed to get generator, generator is nil")

    def get(self, gid: bytes) -> Generator:
        """A generator. Raises `NotFoundError`."""
        return self._existing(gid, "Failed to get generator, generator is nil")

    def resolve(self, colony: Colony, name: str) -> Generator:
        """A generator by name. Raises `NotFoundError`."""
        found = self.view.named(colony.tag, name)
        if found is None:
            raise NotFoundError("Failed to resolve generator, generator is nil")
        return found

    async def pack(self, gid: bytes, arg: str) -> None:
        """Store one argument; each call stores one, so whoever repeats it packs it twice.

        Raises `NotFoundError`, `ConflictError` where it is disabled, `BusyError`, `TooLargeError`.
        """
        generator = self._existing(gid, "Failed to increment generator, generator is nil")
        suffix = keys.argument_suffix(self._clock.now_ns(), self._entropy(_SUFFIX_RANDOM))
        key = keys.argument(gid, suffix)

        def decide() -> Plan:
            record = generator.definition
            if record.disabled:
                raise ConflictError(f"the generator is disabled: {record.disabled}")
            # Not guarded: of many that are packed at once, a few may come in above the limit.
            if len(generator.waiting) >= wire.MAX_WAITING:
                raise BusyError(f"{wire.MAX_WAITING} arguments wait at the generator already")
            guards = (Guard(keys.generator(gid), generator.revision), Guard(key, 0))
            return Plan(guards, (Put(key, wire.packed(arg, record.largest)),))

        await self._writes.apply(decide)

    async def remove(self, gid: bytes) -> None:
        """Remove a generator with all that waits at it. Raises `NotFoundError`."""
        generator = self._existing(gid, "Failed to remove generator, generator is nil")

        def decide() -> Plan:
            name = keys.generator_name(generator.tag, generator.definition.name)
            return removing(Slot(keys.generator(gid), name), generator.revision)

        await self._writes.apply(decide)
        await self.sweep(gid)

    async def sweep(self, gid: bytes) -> None:
        """Delete what a removed generator left; the next start finishes what a stop interrupts."""
        for prefix in _REMAINS:
            while True:
                page = await self._writes.range(prefix + gid, limit=MAX_OPS - 1, keys_only=True)
                if not page.items:
                    break
                guards = [Guard(keys.generator(gid), 0)]  # it is gone for good
                guards += [Guard(item.key, item.modified) for item in page.items]
                deletes = [Delete(item.key) for item in page.items]
                if await self._writes.commit(guards, deletes) is None:
                    return  # it is there after all, or another sweep is at it

    async def sweep_remains(self) -> None:
        """Finish the removals that a stop interrupted."""
        for generator in [each for each in self.view.all.values() if each.record is None]:
            await self.sweep(generator.gid)

    def _existing(self, gid: bytes, refusal: str) -> Generator:
        found = self.view.find(gid)
        if found is None:
            raise NotFoundError(refusal)
        return found


def _roots(spec: WorkflowSpec) -> int:
    """How many nodes get the arguments."""
    return sum(not each.conditions.dependencies for each in spec.functionspecs)
