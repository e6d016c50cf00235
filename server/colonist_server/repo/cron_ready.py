"""Runs of crons that are made ready before their time, and started many in a commit.

A thousand crons of one moment would else be a thousand plans and commits in that moment. What was
made ready is used as long as cron, colony and creator are what they were; else, and where somebody
else was quicker, each run is started by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from colonist_core.cron import following
from colonist_server.repo.clock import Clock
from colonist_server.repo.cron_runs import IN_TIME_NS, CronRuns, Move
from colonist_server.repo.cron_view import Cron
from colonist_server.repo.definitions import REFUSED, creator_of
from colonist_server.repo.new_workflow import NewWorkflow, size_of
from colonist_server.repo.nouns import Executor, User
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import MAX_OPS, Guard, Op, Revision

BUNDLE_BYTES: Final = 262_144
"""Keys and values of runs that share a commit."""


Depends = tuple[tuple[Revision, ...], bytes]
"""Revisions of cron, colony and creator; the workflow whose results are the input."""


class Prepared(NamedTuple):
    """What the turn at `at_ns` will commit, as long as what it depends on is the same."""

    at_ns: int
    following_ns: int
    depends: Depends
    move: Move
    size: int


class Bundle:
    """Prepared runs of several crons that go into one commit: all of them, or none."""

    __slots__ = ("crons", "guards", "new", "ops", "size")

    def __init__(self) -> None:
        self.crons: list[tuple[Cron, int]] = []
        self.guards: dict[bytes, Guard] = {}
        self.ops: list[Op] = []
        self.new: list[NewWorkflow] = []
        self.size = 0

    def add(self, cron: Cron, ready: Prepared, new: NewWorkflow) -> bool:
        """Take one more run in; False where there is no room."""
        plan = ready.move.plan
        if self.ops and (
            len(self.ops) + len(plan.ops) > MAX_OPS
            or len(self.guards) + len(plan.guards) > MAX_OPS
            or self.size + ready.size > BUNDLE_BYTES
        ):
            return False
        self.crons.append((cron, ready.at_ns))
        self.guards.update((guard.key, guard) for guard in plan.guards)
        self.ops += plan.ops
        self.new.append(new)
        self.size += ready.size
        return True


class ReadyRuns:
    """Keeps what is ready."""

    __slots__ = ("_clock", "_prepared", "_runs", "_workflows", "_writes")

    def __init__(self, writes: Writes, workflows: Workflows, runs: CronRuns, clock: Clock) -> None:
        self._writes = writes
        self._workflows = workflows
        self._runs = runs
        self._clock = clock
        self._prepared: dict[bytes, Prepared] = {}

    def prepare(self, cron: Cron) -> None:
        """Make ready what the next turn will commit, so that many can be started at one moment."""
        record = cron.record
        creator = creator_of(cron.colony, record)
        if creator is None or record.pending is not None or not cron.is_at_work:
            return
        depends = self._depends(cron, creator)
        ready = self._prepared.get(cron.cid)
        if ready is not None and (ready.at_ns, ready.depends) == (record.turn.at_ns, depends):
            return
        try:
            move = self._runs.planned(cron, creator, record.turn.at_ns)
            following_ns = following(cron.schedule, record.turn, record.turn.at_ns, cron.cid).at_ns
        except REFUSED:
            return  # its run will say why
        if move.new is not None:
            at_ns, size = record.turn.at_ns, size_of(move.plan.ops)
            self._prepared[cron.cid] = Prepared(at_ns, following_ns, depends, move, size)

    def bundle(
        self, due: Iterable[tuple[Cron, int]]
    ) -> tuple[list[Bundle], list[tuple[Cron, int]]]:
        """Runs that are ready, put together; then those that are to be served one by one."""
        now_ns = self._clock.now_ns()
        bundles: list[Bundle] = []
        others: list[tuple[Cron, int]] = []
        for cron, at_ns in due:
            ready = self._ready(cron, at_ns, now_ns)
            if ready is None or ready.move.new is None:
                others.append((cron, at_ns))
                continue
            del self._prepared[cron.cid]
            if not bundles or not bundles[-1].add(cron, ready, ready.move.new):
                bundles.append(Bundle())
                bundles[-1].add(cron, ready, ready.move.new)
        return bundles, others

    def _ready(self, cron: Cron, at_ns: int, now_ns: int) -> Prepared | None:
        ready = self._prepared.get(cron.cid)
        if ready is None or at_ns != ready.at_ns or self._runs.is_held_up(cron):
            return None
        record = cron.record
        creator = creator_of(cron.colony, record)
        if creator is None or not cron.is_at_work:
            return None
        if (ready.at_ns, ready.depends) != (record.turn.at_ns, self._depends(cron, creator)):
            return None
        return ready if _is_in_time(ready, now_ns) else None

    def _depends(self, cron: Cron, creator: Executor | User) -> Depends:
        revisions = (cron.revision, cron.colony.revision, creator.revision)
        return revisions, self._runs.input_of(cron)

    async def start(self, bundle: Bundle) -> bool:
        """Start all runs of a bundle; False where one of them was raced, and none was started.

        Raises `UnavailableError`.
        """
        if await self._writes.commit(list(bundle.guards.values()), bundle.ops) is None:
            return False
        for new in bundle.new:
            self._workflows.committed(new)
        return True

    def forget_missed(self) -> None:
        """Drop what was made ready and was not used."""
        horizon_ns = self._clock.now_ns() - IN_TIME_NS
        missed = [cid for cid, ready in self._prepared.items() if ready.at_ns < horizon_ns]
        for cid in missed:
            del self._prepared[cid]


def _is_in_time(ready: Prepared, now_ns: int) -> bool:
    return 0 <= now_ns - ready.at_ns < IN_TIME_NS and now_ns < ready.following_ns
