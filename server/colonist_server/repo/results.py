"""Results of attempts: each is counted or recorded, once, and answered so for ever.

`counted`: it ended the process, whose record says by which attempt. `recorded`: it changed nothing,
and stands under a key of its own, by its attempt. An event says so in the chain of the process, or
in the colony's where that has ended or is not known (removed, or forgotten by a restore).

Nothing is stored for a process so old that all evidence of it may have been forgotten (`too_old`):
tokens of attempts do not age, and whoever kept old results could fill the store with them again
and again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_core.attempt import counts, recorded, winner
from colonist_core.process import Live, What, ended, is_newest
from colonist_protocol.errors import ContendedError, ResultConflictError, TooOldError
from colonist_protocol.identity import digest
from colonist_protocol.process import COUNTED, RECORDED, State
from colonist_server.repo import chain, keys
from colonist_server.repo.attempts import Said
from colonist_server.repo.checkpoints import Checkpoints
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Row
from colonist_server.repo.processes import Processes, closing_ops, guards_of_end
from colonist_server.repo.records import (
    RemovedRecord,
    ResultRecord,
    decode_closed,
    decode_removed,
    decode_result,
    encode,
)
from colonist_server.repo.trail import Changed, Trail, Warrant
from colonist_server.repo.view import View
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import Guard, Item, Put, Revision

_CONFLICT: Final = "this attempt has another result already"
_FORGOTTEN: Final = "nothing is known any more of a process so old, nor of what became of it"


class Taken(msgspec.Struct, frozen=True, gc=False):
    """What became of a result, and the hash of the event that says so, if it was just made."""

    outcome: str
    event: bytes = b""


class Results:
    """Takes the results of attempts."""

    __slots__ = ("_checkpoints", "_clock", "_processes", "_trail", "_view", "_writes")

    def __init__(
        self,
        writes: Writes,
        processes: Processes,
        trail: Trail,
        clock: Clock,
        checkpoints: Checkpoints,
    ) -> None:
        self._checkpoints = checkpoints
        self._writes = writes
        self._view: View = writes.view
        self._processes = processes
        self._trail = trail
        self._clock = clock

    async def take(self, pid: bytes, what: What, said: Said, out: bytes = b"") -> Taken:
        """Take a success or a failure; `out` is the output in it.

        Raises `ResultConflictError`, `AccessError`, `ContendedError`, `TooOldError`.
        """
        for _ in range(ATTEMPTS):
            row = self._view.rows.get(pid)
            taken = (
                await self._of_past(pid, what, said)
                if row is None
                else await self._of_live(row, what, said, out)
            )
            if taken is not None:
                return taken
        raise ContendedError("the process changed too often")

    # -- processes that have not ended

    async def _of_live(self, row: Row, what: What, said: Said, out: bytes) -> Taken | None:
        """None: look again, it was changed by somebody else meanwhile."""
        live = row.live()
        if not (_runs(live, said) and _is_open(row)):
            earlier = await self._writes.past.read(_key(row.pid, said))
            if earlier is not None:
                return _repeated(earlier, said)
            if self._view.rows.get(row.pid) is not row:
                return None
            live = row.live()
        if is_newest(live, said.by):
            row.doubtful = False
        if _is_open(row) and counts(live, said.by, what):
            return await self._count(row, live, what, said, out)
        return await self._record(row, live, what, said)

    async def _count(
        self, row: Row, live: Live, what: What, said: Said, out: bytes
    ) -> Taken | None:
        closed = ended(
            live,
            row.id,
            what,
            now_ns=self._clock.now_ns(),
            cause=said.cause,
            payload=said.payload,
            by=said.by,
        )
        guards = [*guards_of_end(row), said.guard]
        if not _runs(live, said):
            guards.append(Guard(_key(row.pid, said), 0))
        if await self._commit(Plan(guards, closing_ops(row, closed))) is None:
            return None
        self._processes.look_after(row)
        self._processes.counted(row, out)
        return Taken(COUNTED, closed.live.head)

    async def _record(self, row: Row, live: Live, what: What, said: Said) -> Taken | None:
        now_ns = self._clock.now_ns()
        after = recorded(live, row.id, said.by, now_ns=now_ns, cause=said.cause)
        key = _key(row.pid, said)
        guards = [Guard(keys.live(row.pid), row.revision), Guard(key, 0), said.guard]
        put = Put(key, encode(_record_of(what, said, now_ns)))
        if await self._commit(Plan(guards, [*chain.rewrite(row.pid, after), put])) is None:
            return None
        return Taken(RECORDED, after.head)

    async def _commit(self, plan: Plan) -> Revision | None:
        revision = await self._writes.commit(plan.guards, plan.ops)
        if revision is None:
            await self._writes.refresh([guard.key for guard in plan.guards])
        return revision

    # -- processes that have ended, and those of which nothing is known

    async def _of_past(self, pid: bytes, what: What, said: Said) -> Taken | None:
        live, end, earlier, trace = await self._writes.past.read_many(
            [keys.live(pid), keys.closed(pid), _key(pid, said), keys.removed(pid)]
        )
        if live is not None:  # this node has not heard of it
            await self._writes.refresh([keys.live(pid)])
            return None
        if earlier is not None:
            return _repeated(earlier, said)
        if _won(end, trace, said):
            return Taken(COUNTED)
        if end is None and trace is None:
            forgotten_ns = await self._checkpoints.forgotten_ns(said.colony)
            if keys.born_ns(pid) < forgotten_ns:
                raise TooOldError(_FORGOTTEN)
        return await self._record_past(pid, end, what, said)

    async def _record_past(
        self, pid: bytes, end: Item | None, what: What, said: Said
    ) -> Taken | None:
        tag = pid[: keys.TAG_BYTES]
        key = _key(pid, said)
        tries = 0

        def decide() -> Plan:
            nonlocal tries
            tries += 1
            if tries > 1:
                raise _RacedError
            guards = [
                Guard(keys.live(pid), 0),
                Guard(keys.closed(pid), end.modified if end is not None else 0),
                Guard(key, 0),
                said.guard,
            ]
            record = _record_of(what, said, self._clock.now_ns())
            plan = Plan(guards, [Put(key, encode(record))])
            return self._trail.joined(
                plan,
                tag,
                Changed.RESULT_RECORDED,
                pid.hex(),
                Warrant(said.cause, said.payload),
                about=said.by.number,
            )

        try:
            await self._trail.apply(tag, decide)
        except _RacedError:
            return None
        return Taken(RECORDED, self._trail.head(tag).head)


class _RacedError(Exception):
    """Somebody else has changed what this rests on: read it again."""


def _runs(live: Live, said: Said) -> bool:
    """Whether it is the attempt under way: such a one has no result yet."""
    return live.state == State.RUNNING and is_newest(live, said.by)


def _is_open(row: Row) -> bool:
    """Whether a result may still decide: not of a member that its workflow ends, or holds back."""
    graph = row.workflow.graph if row.workflow is not None else None
    return graph is None or not (graph.is_cancelled or row.blocked)


def _key(pid: bytes, said: Said) -> bytes:
    return keys.result(pid, said.by.number, said.by.nonce)


def _record_of(what: What, said: Said, now_ns: int) -> ResultRecord:
    cause = said.cause
    who = bytes.fromhex(cause.who)
    return ResultRecord(what, now_ns, who, cause.digest, cause.signature, said.payload, cause.seal)


def _won(end: Item | None, trace: Item | None, said: Said) -> bool:
    """Whether the process, or what is left of it, says that it was this attempt's result.

    Raises `ResultConflictError`.
    """
    own = (said.by.number, said.by.nonce)
    if end is None:
        return trace is not None and _won_before_removal(decode_removed(trace.value), own, said)
    closed = decode_closed(end.value)
    if winner(closed.live) != own:
        return False
    _check_same(closed.payload, said)
    return True


def _won_before_removal(trace: RemovedRecord, own: tuple[int, bytes], said: Said) -> bool:
    if trace.winner != own:
        return False
    if trace.result and trace.result != digest(said.payload):
        raise ResultConflictError(_CONFLICT)
    return True


def _repeated(earlier: Item, said: Said) -> Taken:
    _check_same(decode_result(earlier.value).payload, said)
    return Taken(RECORDED)


def _check_same(payload: bytes, said: Said) -> None:
    if payload != said.payload:
        raise ResultConflictError(_CONFLICT)
