"""What waits to be shown to subscribers: a line for each colony, served in turns.

So a colony whose events cost much, or come faster than they can be handed out, delays itself. All
lines together are bounded in number and bytes; beyond that the longest one is to be cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from colonist_server.repo.moments import Moment
from colonist_server.repo.topics import Ending, Subscription
from colonist_server.store.interface import Revision

MAX_PENDING: Final = 10_000
MAX_PENDING_BYTES: Final = 67_108_864
BATCH: Final = 64
BATCH_SINKS: Final = 256
"""So many are served, or few more, before it is another colony's turn."""


class Show(NamedTuple):
    """Show a moment to the followers, and to those in the crowds who have not seen it."""

    moment: Moment
    revision: Revision
    followers: Sequence[Subscription]
    crowds: Sequence[Sequence[Subscription]] = ()
    size: int = 0

    @property
    def tag(self) -> bytes:
        """Whose line it stands in."""
        return self.moment.colony.tag

    @property
    def sinks(self) -> int:
        """How many it is for."""
        return len(self.followers) + sum(map(len, self.crowds))


class End(NamedTuple):
    """All that came before it was handed out: say that nothing more will come."""

    subscription: Subscription
    ending: Ending

    @property
    def tag(self) -> bytes:
        """Whose line it stands in."""
        return self.subscription.order.colony.tag


class LookUp(NamedTuple):
    """Show how a process ended that is not in the view any more."""

    subscription: Subscription

    @property
    def tag(self) -> bytes:
        """Whose line it stands in."""
        return self.subscription.order.colony.tag


Job = Show | End | LookUp


class _Line:
    """The jobs of one colony, in order."""

    __slots__ = ("bytes", "crowded", "jobs", "shows")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.shows = 0
        self.crowded = 0
        self.bytes = 0

    @property
    def share(self) -> float:
        """How much of what may wait waits here."""
        return max(self.shows / MAX_PENDING, self.bytes / MAX_PENDING_BYTES)

    def put(self, job: Job) -> None:
        self.jobs.append(job)
        self._count(job, 1)

    def take(self) -> Job:
        job = self.jobs.popleft()
        self._count(job, -1)
        return job

    def _count(self, job: Job, sign: int) -> None:
        if isinstance(job, Show):
            self.shows += sign
            self.bytes += sign * job.size
            self.crowded += sign * bool(job.crowds)


class Backlog:
    """All lines, in the order of their turns."""

    __slots__ = ("_bytes", "_lines", "_shows")

    def __init__(self) -> None:
        self._lines: dict[bytes, _Line] = {}
        self._shows = 0
        self._bytes = 0

    def __len__(self) -> int:
        return sum(len(line.jobs) for line in self._lines.values())

    def __bool__(self) -> bool:
        return bool(self._lines)

    @property
    def is_full(self) -> bool:
        """Whether more is on its way than is good."""
        return self._shows > MAX_PENDING or self._bytes > MAX_PENDING_BYTES

    def put(self, job: Job) -> None:
        """Hand out after all that was put before for this colony."""
        line = self._lines.get(job.tag)
        if line is None:
            line = self._lines[job.tag] = _Line()
        line.put(job)
        self._count(job, 1)

    def take(self) -> list[Job]:
        """The next few jobs, of the colony whose turn it is."""
        tag = next(iter(self._lines))
        line = self._lines.pop(tag)
        jobs: list[Job] = []
        sinks = 0
        while line.jobs and len(jobs) < BATCH and sinks < BATCH_SINKS:
            job = line.take()
            self._count(job, -1)
            jobs.append(job)
            sinks += job.sinks if isinstance(job, Show) else 1
        if line.jobs:
            self._lines[tag] = line
        return jobs

    def cut(self) -> bytes:
        """Let go of what only those want who follow the colony of which most waits: its tag."""
        tag = max(self._lines, key=lambda each: self._lines[each].share)
        line = self._lines[tag]
        if line.crowded:
            kept = _Line()
            for job in line.jobs:
                self._count(job, -1)
                if not isinstance(job, Show) or job.followers:
                    kept.put(job._replace(crowds=()) if isinstance(job, Show) else job)
            for job in kept.jobs:
                self._count(job, 1)
            self._lines[tag] = kept
        return tag

    def _count(self, job: Job, sign: int) -> None:
        if isinstance(job, Show):
            self._shows += sign
            self._bytes += sign * job.size
