"""Crons: added, found, removed (COLONIES-RPC sections 2.8, 4.8). `cron_runs` starts their runs."""

from __future__ import annotations

from colonist_core.cron import NEVER, start
from colonist_protocol import cron as wire
from colonist_protocol.errors import BusyError, ExistsError, InvalidValueError, NotFoundError
from colonist_server.repo import keys, once
from colonist_server.repo.budget import check_specs
from colonist_server.repo.clock import Clock, Entropy
from colonist_server.repo.colonies import check_there
from colonist_server.repo.cron_view import Cron, CronView, schedule_of
from colonist_server.repo.definitions import Slot, adding, kind_of, removing, spec_of
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.records import CronRecord, encode
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import Plan, Writes


class Crons:
    """What happens to crons at their callers' word."""

    __slots__ = ("_clock", "_entropy", "_workflows", "_writes", "view")

    def __init__(
        self,
        writes: Writes,
        view: CronView,
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

    async def add(self, colony: Colony, member: Executor | User, wanted: wire.Cron) -> Cron:
        """Make a cron. Raises `InvalidValueError`, `TooLargeError`, `ExistsError`, `BusyError`."""
        wire.check(wanted)
        self._workflows.check(colony, spec_of(wanted.workflowspec, colony))
        now_ns = self._clock.now_ns()
        cid = keys.definition_id(colony.tag, now_ns, self._entropy(keys.RANDOM_BYTES))
        once.say(cid)
        record = _record(wanted, member, now_ns, cid)
        slot = Slot(keys.cron(cid), keys.cron_name(colony.tag, wanted.name))

        def decide() -> Plan:
            check_there(colony)
            if slot.name in self.view.names:
                raise ExistsError(
                    f"Cron with name <{wanted.name}> in Colony <{colony.record.name}> "
                    "already exists"
                )
            # Not guarded: of many that are added at once, a few may come in above the limit.
            others = self.view.by_tag.get(colony.tag, {}).values()
            if len(others) >= wire.MAX_CRONS:
                raise BusyError(f"the colony has {wire.MAX_CRONS} crons already")
            check_specs((each.record.spec for each in others), record.spec, "crons")
            return adding(slot, cid, encode(record), colony, member)

        await self._writes.apply(decide)
        return self.get(cid)

    def get(self, cid: bytes) -> Cron:
        """A cron. Raises `NotFoundError`."""
        return self._find(cid, "Failed to get cron, cron is nil")

    async def remove(self, cid: bytes) -> None:
        """Remove a cron; what it has started goes on. Raises `NotFoundError`."""

        def decide() -> Plan:
            cron = self._find(cid, "Failed to remove cron, cron is nil")
            name = keys.cron_name(cron.colony.tag, cron.record.name)
            return removing(Slot(cron.key, name), cron.revision)

        await self._writes.apply(decide)

    def find_to_run(self, cid: bytes) -> Cron:
        """A cron that is to be run by hand. Raises `NotFoundError`."""
        return self._find(cid, "cron not found")

    def _find(self, cid: bytes, refusal: str) -> Cron:
        found = self.view.all.get(cid)
        if found is None:
            raise NotFoundError(refusal)
        return found


def _record(wanted: wire.Cron, member: Executor | User, now_ns: int, cid: bytes) -> CronRecord:
    schedule = schedule_of(wanted.interval, wanted.cronexpression, is_random=wanted.random)
    turn = start(schedule, now_ns, cid)
    if turn.at_ns == NEVER:
        raise InvalidValueError("cron expression: it names no time that is yet to come")
    return CronRecord(
        name=wanted.name,
        spec=wanted.workflowspec,
        interval_s=wanted.interval,
        expression=wanted.cronexpression,
        is_random=wanted.random,
        waits=wanted.waits,
        initiator_id=member.record.id,
        initiator=member.name,
        turn=turn,
        creator_kind=kind_of(member),
    )
