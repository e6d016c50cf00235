"""Checks an audit file, on all cores: checkpoints, then chains, each cut into stretches.

What checkpoints name is sorted in a temporary folder, and so is which requests were used, so the
memory that this takes does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from colonist_cli.audit import work
from colonist_cli.audit.crew import cores, crew
from colonist_cli.audit.receipts import Receipt, read_receipts
from colonist_cli.audit.source import BUCKETS, Buckets, FileSource, RunWriter
from colonist_cli.audit.work import Task
from colonist_protocol import audit_layout as layout
from colonist_protocol.audit import FIRST_K
from colonist_protocol.audit_checkpoints import Groups
from colonist_protocol.audit_events import Frame, Tally
from colonist_protocol.audit_layout import FaultError, Outline, Stretch
from colonist_protocol.audit_members import MemberWalk
from colonist_protocol.audit_reading import (
    CHECKPOINT_START,
    EVENT_START,
    AuditError,
    Counts,
    Fault,
    Servers,
)
from colonist_protocol.audit_stretches import CheckpointOutcome, read_members

STEP_BYTES: Final = 1 << 20
_ONE_BUCKET_BYTES: Final = 1 << 28
"""Of so small a file all requests are sorted at once."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is worth. Of one that is not sound only `fault` says anything."""

    sound: bool
    fault: str = ""
    offset: int = -1
    line: int = 0
    chain: str = ""
    n: int = -1
    colony: str = ""
    server: str = ""
    made: int = 0
    first_checkpoint: int = 0
    last_checkpoint: int = 0
    checkpoints: int = 0
    last_time: int = 0
    chains: int = 0
    events: int = 0
    signed: int = 0
    unread: int = 0
    unproven: int = 0
    removed: int = 0
    members: str = ""
    """Why members could not be checked; "": they were."""
    receipts: int = 0
    forgotten_receipts: int = 0
    """How many of them are about history that the server has forgotten."""


def verify(
    path: Path,
    pin: str,
    *,
    receipts: Path | None = None,
    jobs: int = 0,
    step: int = STEP_BYTES,
) -> Report:
    """Check a file of the server whose id is pinned. `jobs`: processes, 0 for one a core.

    `receipts` is a folder of kept replies. Raises `OSError` when something cannot be read.
    """
    with ExitStack() as stack:
        source = stack.enter_context(FileSource(path))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="colonist-audit-")))
        # Other processes read it too: what /dev/stdin is here is another thing there.
        check = _Check(path.resolve(), source, folder, jobs=jobs or cores(), step=step)
        try:
            return check.run(pin, receipts)
        except FaultError as error:
            fault = error.fault
        line = layout.line_of(source, fault.offset) if fault.offset >= 0 else 0
        return Report(
            sound=False,
            fault=fault.text,
            offset=fault.offset,
            line=line,
            chain=fault.chain,
            n=fault.n,
        )


class _Check:
    """One verification. Its steps raise `FaultError`."""

    def __init__(
        self, path: Path, source: FileSource, folder: Path, *, jobs: int, step: int
    ) -> None:
        self._path = path
        self._source = source
        self._folder = folder
        self._receipts: Sequence[Receipt] = ()
        self._seen: set[str] = set()
        """What is there of that which receipts name."""
        self._jobs = jobs
        self._step = step
        self._runs = RunWriter(folder)

    def run(self, pin: str, receipts: Path | None) -> Report:
        """All steps, in the order of the file."""
        outlined = layout.outline(self._source)
        header = outlined.header
        try:
            servers = Servers(header, pin)
        except AuditError as error:
            raise FaultError(Fault(str(error), 0)) from None
        self._receipts = _receipts(receipts, servers)
        found = self._checkpoints(outlined, servers)
        task = self._task(outlined, servers, found)
        walk, fault = self._members(outlined, task, found)
        task = task._replace(frame=task.frame._replace(members=walk.members))
        tally = self._events(outlined, task, fault, found.number)
        return Report(
            sound=True,
            colony=header.colony,
            server=header.server,
            made=header.made,
            first_checkpoint=found.first_k,
            last_checkpoint=found.last_k,
            checkpoints=found.number,
            last_time=found.last_time,
            members=walk.unknown,
            receipts=len(self._receipts),
            forgotten_receipts=self._forgotten(found),
            **tally._asdict(),
        )

    def _checkpoints(self, outlined: Outline, servers: Servers) -> CheckpointOutcome:
        start, end = outlined.checkpoints_at, outlined.chains_at
        stretches = self._cut(start, end, CHECKPOINT_START)
        frame = Frame(outlined.header.colony, outlined.tag, servers)
        total = CheckpointOutcome()
        with crew(Task(self._path, frame), min(self._jobs, len(stretches))) as hands:
            outcomes = hands.map(work.checkpoints, stretches)
            for outcome in outcomes:
                total = _joined(total, outcome)
                self._runs.write(b"".join(outcome.heads))
        if total.number and not servers.vouches(total.signer):
            text = "the last checkpoint was signed by a server key from before the pinned one"
            raise FaultError(Fault(text, end))
        if not total.number:
            text = "no checkpoint: nothing is vouched for by the server; export again in a moment"
            raise FaultError(Fault(text, end))
        return total

    def _task(self, outlined: Outline, servers: Servers, found: CheckpointOutcome) -> Task:
        frame = Frame(
            colony=outlined.header.colony,
            tag=outlined.tag,
            servers=servers,
            tail=Groups(found.continued, found.last_k).tail,
            last_time=found.last_time,
            is_cut=found.first_k > FIRST_K,
            wanted=frozenset(name for each in self._receipts for name in each.names),
        )
        return Task(
            path=self._path,
            frame=frame,
            continued=found.continued,
            last_k=found.last_k,
            heads=tuple(self._runs.paths),
            buckets=1 if self._source.size < _ONE_BUCKET_BYTES else BUCKETS,
            end=outlined.end_at if outlined.end is not None else -1,
        )

    def _members(
        self, outlined: Outline, task: Task, found: CheckpointOutcome
    ) -> tuple[MemberWalk, Fault | None]:
        with ExitStack() as stack:
            heads = work.heads_of(task, stack)
            walk, fault = read_members(self._source, outlined, task.frame.servers, heads)
        if fault is None and task.frame.is_cut and found.first_k - 1 not in walk.forgotten:
            text = (
                f"the checkpoints begin with {found.first_k}, and the colony's chain does not say "
                "that what was before them was forgotten"
            )
            raise FaultError(Fault(text, outlined.checkpoints_at))
        return walk, fault

    def _events(
        self, outlined: Outline, task: Task, limit: Fault | None, checkpoints: int
    ) -> Tally:
        """Check all chains; `limit`: what is wrong with the changes of members."""
        end = outlined.end_at
        stretches = self._cut(outlined.chains_at, end, EVENT_START)
        if limit is not None:  # what stands after it is not looked at
            stretches = [stretch for stretch in stretches if stretch.start <= limit.offset]
        tally = Tally()
        buckets = Buckets(self._folder)
        with crew(task, min(self._jobs, len(stretches))) as hands:
            hash = hands.later(work.hash_of, self._path, end)
            for outcome in hands.map(work.events, stretches):
                if outcome.fault is not None:
                    raise FaultError(_earlier(outcome.fault, limit))
                tally = tally.plus(outcome.tally)
                buckets.add(outcome.uses)
                self._seen |= outcome.found
            _raise(limit)
            counts = Counts(tally.chains, tally.events, checkpoints)
            _raise(layout.count(self._source, outlined, counts, hash()))
            for repeated in hands.map(work.repeated_in, buckets.paths):
                if repeated is not None:
                    raise FaultError(Fault(repeated.text, repeated.offset))
        return tally

    def _forgotten(self, found: CheckpointOutcome) -> int:
        """How many receipts are about what was forgotten; all others are of what is there."""
        until_ms = found.first_time if found.first_k > FIRST_K else 0
        lost = [each for each in self._receipts if not each.is_kept(self._seen)]
        for receipt in lost:
            if not receipt.is_forgotten(self._seen, until_ms):
                raise FaultError(receipt.fault())
        return len(lost)

    def _cut(self, start: int, end: int, begin: bytes) -> list[Stretch]:
        return list(layout.stretches(self._source, start, end, begin=begin, step=self._step))


def _receipts(folder: Path | None, servers: Servers) -> Sequence[Receipt]:
    if folder is None:
        return ()
    try:
        return tuple(read_receipts(folder, servers))
    except AuditError as error:
        raise FaultError(Fault(str(error), -1)) from None


def _joined(total: CheckpointOutcome, outcome: CheckpointOutcome) -> CheckpointOutcome:
    _raise(outcome.fault)
    return CheckpointOutcome(
        first_k=total.first_k or outcome.first_k,
        first_time=total.first_time if total.first_k else outcome.first_time,
        last_k=outcome.last_k or total.last_k,
        last_time=outcome.last_time or total.last_time,
        continued=[*total.continued, *outcome.continued],
        signer=outcome.signer if outcome.number else total.signer,
        number=total.number + outcome.number,
    )


def _earlier(one: Fault, other: Fault | None) -> Fault:
    return one if other is None or one.offset <= other.offset else other


def _raise(fault: Fault | None) -> None:
    if fault is not None:
        raise FaultError(fault)
