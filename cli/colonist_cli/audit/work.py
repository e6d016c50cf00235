"""What one process of a verification does: stretches of the file, one after the other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from colonist_cli.audit.source import FileSource, Runs, bucketed, records
from colonist_client import memory
from colonist_protocol import audit_stretches as stretches
from colonist_protocol.audit_checkpoints import CheckpointWalk, Groups, Heads
from colonist_protocol.audit_events import EventWalk, Frame, Tally, first_key
from colonist_protocol.audit_layout import Stretch
from colonist_protocol.audit_once import Repeated, repeated
from colonist_protocol.audit_reading import Fault
from colonist_protocol.audit_stretches import CheckpointOutcome

HASHED_BYTES: Final = 1 << 20


class Task(NamedTuple):
    """What all stretches of a verification have in common."""

    path: Path
    frame: Frame
    continued: Sequence[int] = ()
    last_k: int = 0
    heads: Sequence[Path] = ()
    buckets: int = 1
    end: int = -1
    """Where the chains end; -1: where nobody knows, the file was cut off."""


class Events(NamedTuple):
    """What a stretch of chains had; `uses` by bucket."""

    fault: Fault | None
    tally: Tally
    uses: list[tuple[int, bytes]]
    found: frozenset[str]


class Worker:
    """Checks stretches. Holds the file and the heads open."""

    def __init__(self, task: Task, stack: ExitStack) -> None:
        self._task = task
        self.source = stack.enter_context(FileSource(task.path))
        self._runs = Runs(task.heads, stack)
        self._groups = Groups(task.continued, task.last_k, is_cut=task.frame.is_cut)

    def heads(self, key: bytes) -> Heads:
        """What checkpoints say of chains from a key on."""
        return Heads(self._runs.since(key), self._groups)

    def checkpoints(self, stretch: Stretch) -> CheckpointOutcome:
        """Check a stretch of checkpoints. Raises `AuditError` where the one before is none."""
        frame = self._task.frame
        before = stretches.before(self.source, stretch)
        walk = CheckpointWalk(frame.colony, frame.tag, frame.servers, before)
        return stretches.check_checkpoints(self.source, stretch, walk)

    def events(self, stretch: Stretch) -> Events:
        """Check a stretch of chains. Raises `AuditError` where the event before is none."""
        before = stretches.before(self.source, stretch)
        walk = EventWalk(self._task.frame, self.heads(first_key(before)), before)
        found = stretches.check_events(
            self.source, stretch, walk, is_last=stretch.end == self._task.end
        )
        uses = bucketed(found.uses, self._task.buckets)
        return Events(found.fault, found.tally, uses, found.found)


def hash_of(path: Path, end: int) -> str:
    """The SHA3-256 of the first bytes of a file."""
    found = hashlib.sha3_256()
    with FileSource(path) as source:
        for start in range(0, end, HASHED_BYTES):
            found.update(source.read(start, min(start + HASHED_BYTES, end)))
    return found.hexdigest()


def repeated_in(path: Path) -> Repeated | None:
    """The first request of a bucket that was used too often."""
    return repeated(records(path.read_bytes()))


# What this process works at: one thing at a time.
_worker: list[Worker] = []


def begin(task: Task) -> None:
    """What a process that does nothing else does first."""
    memory.close(os.environ)
    _worker[:] = [Worker(task, ExitStack())]


@contextmanager
def at(task: Task) -> Generator[None]:
    """Work at a task for a while."""
    with ExitStack() as stack:
        _worker[:] = [Worker(task, stack)]
        yield
        _worker.clear()


def checkpoints(stretch: Stretch) -> CheckpointOutcome:
    """`Worker.checkpoints` of the task at hand."""
    return _worker[0].checkpoints(stretch)


def events(stretch: Stretch) -> Events:
    """`Worker.events` of the task at hand."""
    return _worker[0].events(stretch)


def heads_of(task: Task, stack: ExitStack) -> Heads:
    """All that checkpoints say, from the first chain on."""
    return Worker(task, stack).heads(b"")
